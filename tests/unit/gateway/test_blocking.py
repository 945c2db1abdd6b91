"""Who is blocked is out at once, by whatever way in, and nobody else is; the list is written by the real command."""

import contextlib
import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from fortress import blocklist, in_gateway, status, trail
from fortress.errors import Stop
from tests.unit.gateway.harness import KEYS, STRANGER, Bench, settings
from tests.unit.gateway.test_deployed_policy import CHAT, generate, opened, read_until, request
from tests.unit.gateway.test_deployed_policy import status as code

BOB, CAROL = KEYS["bob"], KEYS["carol"]
LAPTOP, LAPTOP6 = "10.66.3.4", "fd66:66:66:66::34"
EFFECT_S = 2


@pytest.fixture
def blocking(bench: Bench) -> Iterator[Bench]:
    """A bench where nobody is blocked, before and after."""
    bench.until_ready()
    yield bench
    blocklist.unblock_all(bench.engine, bench.name)
    within(bench, lambda: bench.ask("GET", "/api/version", key=BOB).status == 200, "everybody in again")


def within(bench: Bench, condition: Callable[[], bool], what: str, seconds: float = EFFECT_S) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not {what} within {seconds} s\n{bench.logs('gateway')}"
        time.sleep(0.05)


def asked(bench: Bench, key: str | None = BOB, **how: Any) -> int:
    return bench.ask("POST", "/api/generate", key=key, body=generate(), **how).status


def block(bench: Bench, word: str, duration: str | None = None) -> str:
    [said] = blocklist.block(bench.engine, bench.name, word, duration)
    return said


def unblock(bench: Bench, word: str) -> str:
    [said] = blocklist.unblock(bench.engine, bench.name, word)
    return said


def test_a_blocked_user_is_refused_in_the_callers_shape_and_nobody_else_is(blocking: Bench):
    assert block(blocking, "bob") == "bob is blocked for good; open streams are cut"
    within(blocking, lambda: asked(blocking) == 403, "refused")
    line = blocking.audit()[-1]
    assert (line["principal"], line["verdict"], line["reason"]) == ("bob", "refused", "blocked")
    assert blocking.ask("POST", "/v1/chat/completions", key=BOB, body=CHAT).json["error"]["code"] == "blocked"
    assert blocking.ask("POST", "/v1/messages", key=BOB, body=CHAT).json["error"]["type"] == "permission_error"
    assert blocking.ask("DELETE", "/api/generate", key=BOB).status == 403
    assert asked(blocking, CAROL) == 200
    blocking.forget()
    assert unblock(blocking, "bob") == "bob is not blocked any more"
    within(blocking, lambda: asked(blocking) == 200, "let in again")


def test_open_streams_of_a_blocked_user_are_cut_and_others_stream_on(blocking: Bench):
    with (
        opened(blocking, "bob", "200 50") as bobs,
        opened(blocking, "alice", "100 50") as alices,
        blocking.connect() as slow,
    ):
        head = request("POST /api/chat HTTP/1.1", f"Content-Length: {len(json.dumps(CHAT))}")
        slow.sendall(head + json.dumps(CHAT)[:-5].encode())
        read_until(bobs, b'"n":1')
        read_until(alices, b'"n":1')
        block(blocking, "bob", "1h")
        started = time.monotonic()
        data = b""
        bobs.settimeout(6)
        with contextlib.suppress(OSError):
            data = read_until(bobs, b'"done":true')
        assert b'"done":true' not in data
        assert time.monotonic() - started < EFFECT_S
        blocking.forget()
        slow.sendall(json.dumps(CHAT)[-5:].encode())
        assert code(read_until(slow, b"\r\n\r\n")) == 403, "a request begun before the block was let in after it"
        assert blocking.heard() == []
        assert b'"done":true' in read_until(alices, b'"done":true'), "another's stream was cut"
    cut = [line for line in blocking.audit() if line["verdict"] == "cut" and line["reason"] == "blocked"]
    assert [line["principal"] for line in cut] == ["bob"]


@pytest.mark.parametrize("word", [LAPTOP, LAPTOP6])
def test_a_blocked_address_of_a_device_shuts_out_its_other_one_too_and_no_other_address(word: str, blocking: Bench):
    assert asked(blocking, None, address=LAPTOP) == 200
    with blocking.connect(LAPTOP6) as stream:
        body = json.dumps(generate("200 50")).encode()
        stream.sendall(request("POST /api/generate HTTP/1.1", f"Content-Length: {len(body)}", key=None, body=body))
        read_until(stream, b'"n":1')
        assert "(alice/laptop)" in block(blocking, word)
        stream.settimeout(EFFECT_S + 4)
        started = time.monotonic()
        with contextlib.suppress(OSError):
            assert b'"done":true' not in read_until(stream, b'"done":true')
        assert time.monotonic() - started < EFFECT_S
    for address in (LAPTOP, LAPTOP6):
        for key in (None, BOB, KEYS["alice"], "0" * 64):
            assert asked(blocking, key, address=address) == 403, "the refusal tells who is known"
    assert asked(blocking, KEYS["alice"]) == 200
    assert asked(blocking, BOB) == 200
    unblock(blocking, LAPTOP)
    within(blocking, lambda: asked(blocking, None, address=LAPTOP6) == 200, "let in again")


@pytest.mark.parametrize("address", ["10.66.200.1", "fd66:66:66:66:0:1:2:3", "fd66:66:66:66:1::3", "fd66::"])
def test_an_address_is_recognized_as_nginx_writes_it(address: str, blocking: Bench):
    assert asked(blocking, BOB, address=address) == 200
    block(blocking, address)
    within(blocking, lambda: asked(blocking, BOB, address=address) == 403, "refused")
    assert blocking.audit()[-1]["address"] == address


def test_a_block_ends_by_itself_when_its_time_is_over(blocking: Bench):
    said = block(blocking, "bob", "3s")
    assert said.startswith("bob is blocked until 20")
    within(blocking, lambda: asked(blocking) == 403, "refused")
    within(blocking, lambda: asked(blocking) == 200, "let in again", 5)
    assert unblock(blocking, "bob") == "bob was not blocked"


def test_a_block_outlives_reload_and_restart_of_the_gateway(blocking: Bench):
    block(blocking, "bob")
    within(blocking, lambda: asked(blocking) == 403, "refused")
    blocking.reload(settings(model_upload=True))
    assert asked(blocking) == 403
    blocking.containers["gateway"].restart(timeout=1)
    statuses: set[int] = set()
    deadline = time.monotonic() + 10
    while 403 not in statuses and time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            statuses.add(asked(blocking))
    assert statuses - {0} == {403}, "right after a start a blocked user was let in"
    blocking.until_ready()


@pytest.mark.parametrize("text", ["", "{", '{"v":1,"users":{}}', '{"v":1,"users":{"x":{"until":-1}},"addresses":{}}'])
def test_a_torn_list_leaves_the_last_known_one_in_force_and_says_so(text: str, blocking: Bench):
    block(blocking, "bob")
    within(blocking, lambda: asked(blocking) == 403, "refused")
    torn = blocking.state / "torn"
    torn.write_text(text)
    torn.chmod(0o644)
    torn.replace(blocking.state / "blocked.json")
    time.sleep(1.5)
    assert asked(blocking) == 403
    assert asked(blocking, CAROL) == 200
    assert blocking.logs("gateway").count("blocked.json is not used, the list before it stays in force") >= 1
    with pytest.raises(Stop, match="cannot be read"):
        block(blocking, "carol")


def test_without_any_list_that_can_be_read_nobody_passes_until_there_is_one(blocking: Bench):
    (blocking.state / "blocked.json").unlink(missing_ok=True)
    (blocking.state / "blocked.json").write_text("{")
    (blocking.state / "blocked.json").chmod(0o644)
    blocking.containers["gateway"].restart(timeout=1)
    seen: list[int] = []

    def closed() -> bool:
        with contextlib.suppress(OSError):
            seen.append(asked(blocking))
        return 503 in seen

    within(blocking, closed, "closed", 10)
    assert set(seen) <= {0, 503}
    assert blocking.audit()[-1]["reason"] == "no-block-list"
    assert blocklist.unblock_all(blocking.engine, blocking.name) == ["nobody is blocked any more"]
    within(blocking, lambda: asked(blocking) == 200, "open again")


def test_every_change_is_a_line_of_the_trail_of_commands(blocking: Bench):
    block(blocking, "bob", "1h")
    block(blocking, STRANGER)
    unblock(blocking, STRANGER)
    [reader] = trail.readers(blocking.engine, blocking.name, trail.COMMANDS)
    first, second, third = list(reader.lines())[-3:]
    assert (first["command"], first["about"], first["by"]) == ("block", "bob", in_gateway.operator())
    assert first["until"] > first["time"]
    assert (second["command"], second["about"], second["until"]) == ("block", STRANGER, "")
    assert (third["command"], third["about"], third["result"]) == ("unblock", STRANGER, "done")


def test_two_operators_at_the_same_time_lose_nothing(blocking: Bench, monkeypatch: pytest.MonkeyPatch):
    real, once = blocklist.written, iter(["carol"])

    def slower(rows: Any) -> str:
        for name in once:  # the other one comes in between
            block(blocking, name)
        return real(rows)

    monkeypatch.setattr(blocklist, "written", slower)
    block(blocking, "bob")
    [gateway] = in_gateway.gateways(blocking.engine, blocking.name)
    assert [row.name for row in blocklist.blocked(gateway)] == ["bob", "carol"]


def test_status_shows_the_containers_and_who_is_blocked_until_when(blocking: Bench):
    block(blocking, "bob", "1h")
    block(blocking, LAPTOP)
    config = settings().model_copy(update={"stack": blocking.name})
    found = status.read(blocking.engine, config)
    assert {row["component"] for row in found["containers"]} == {"gateway", "ollama", "sidecar"}
    assert {row["state"] for row in found["containers"]} == {"running"}
    bob, *addresses = found["blocked"]
    assert (bob["user"], bob["by"]) == ("bob", in_gateway.operator())
    assert 3500 < bob["until"] - time.time() < 3700
    assert [(row["address"], row["until"]) for row in addresses] == [(LAPTOP, None), (LAPTOP6, None)]


def test_a_stack_without_a_running_gateway_says_what_starts_it(blocking: Bench):
    with pytest.raises(Stop, match="no gateway of stack 'nowhere' is running; `make up STACK=nowhere` starts it"):
        blocklist.block(blocking.engine, "nowhere", "bob", None)
    found = status.read(blocking.engine, settings().model_copy(update={"stack": "nowhere"}))
    assert (found["containers"], found["blocked"]) == ([], None)
