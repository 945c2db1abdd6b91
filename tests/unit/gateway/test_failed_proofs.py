"""Guessing keys is slow, and locks out nobody who has one."""

import re
from collections.abc import Iterator

import pytest

from tests.unit.gateway.harness import KEYS, Bench, settings
from tests.unit.gateway.test_deployed_policy import generate, request

GUESSER, NEIGHBOUR, LAPTOP = "10.66.77.1", "10.66.77.2", "10.66.3.4"
PER_MINUTE = 5


@pytest.fixture(scope="module")
def strict(bench: Bench) -> Iterator[Bench]:
    bench.reload(settings(model_upload=True, failed_auth_per_minute=PER_MINUTE))
    yield bench
    bench.reload(settings(model_upload=True))


def guesses(bench: Bench, address: str, count: int) -> list[int]:
    return [bench.ask("GET", "/api/tags", key=f"{number:064x}", address=address).status for number in range(count)]


def test_above_the_limit_a_failed_proof_is_429_and_says_when_to_come_again(strict: Bench):
    statuses = guesses(strict, GUESSER, PER_MINUTE + 3)
    assert statuses[:PER_MINUTE] == [401] * PER_MINUTE
    assert set(statuses[PER_MINUTE + 1 :]) == {429}
    reply = strict.ask("POST", "/v1/chat/completions", key="0" * 64, address=GUESSER)
    assert (reply.status, reply.json["error"]["code"]) == (429, "failed_auth_per_minute")
    assert 1 <= int(reply.headers["retry-after"]) <= 60 / PER_MINUTE
    assert strict.audit()[-1]["reason"] == "failed_auth_per_minute"
    assert strict.ask("GET", "/api/tags", address=GUESSER).status == 429, "no key at all is a failed proof too"


def test_whoever_proves_itself_passes_from_the_same_address(strict: Bench):
    assert 429 in guesses(strict, LAPTOP, PER_MINUTE + 2)
    for _ in range(2 * PER_MINUTE):
        assert strict.ask("GET", "/api/tags", key=KEYS["bob"], address=LAPTOP).status == 200
        assert strict.ask("GET", "/api/tags", address=LAPTOP).status == 200, "the tunnel proves alice here"
    assert strict.ask("POST", "/api/generate", key=KEYS["bob"], body=generate(), address=LAPTOP).status == 200


def test_another_address_and_another_relay_have_a_count_of_their_own(strict: Bench):
    assert 429 in guesses(strict, GUESSER, PER_MINUTE + 2)
    assert strict.ask("GET", "/api/tags", key="0" * 64, address=NEIGHBOUR).status == 401
    assert strict.ask("GET", "/api/tags", key="0" * 64, address=None, port=8444).status == 401


def test_a_caller_that_proves_itself_uses_up_no_failed_proof(strict: Bench):
    address = "10.66.77.3"
    for _ in range(3 * PER_MINUTE):
        assert strict.ask("GET", "/api/copy", key=KEYS["bob"], address=address).status == 403
    assert strict.ask("GET", "/api/tags", key="0" * 64, address=address).status == 401


def test_guesses_on_one_connection_are_counted_one_by_one(strict: Bench):
    data = request("GET /api/tags HTTP/1.1", key="0" * 64, close=False) * (PER_MINUTE + 2)
    data += request("GET /api/tags HTTP/1.1", key=KEYS["bob"])
    statuses = re.findall(rb"HTTP/1\.1 (\d+)", strict.raw(data, "10.66.77.4"))
    assert statuses[:PER_MINUTE] == [b"401"] * PER_MINUTE
    assert statuses[-2:] == [b"429", b"200"]
