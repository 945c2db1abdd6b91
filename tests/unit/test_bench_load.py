"""The bench's load program against its own stand-in, and the arithmetic of what comes back."""

import json
import socket
import subprocess
import time
from collections.abc import Iterator
from typing import Any

import pytest

from bench import chunks, rate, scene, tool
from bench.peers import compare
from bench.results import Result, exit_code


def row(results: list[Result], name: str) -> Result:
    return next(each for each in results if each.name.startswith(name))


@pytest.fixture(scope="module")
def stand_in() -> Iterator[dict[str, Any]]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    program = tool.folder() / tool.NAME
    with subprocess.Popen([program, "serve", f"127.0.0.1:{port}", "60"], stdout=subprocess.DEVNULL) as process:
        for _ in range(100):
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                time.sleep(0.05)
        yield {"address": "127.0.0.1", "port": port, "host": "localhost"}
        process.terminate()


def ask(way: dict[str, Any], path: str, body: dict[str, Any] | None, **how: float) -> dict[str, Any]:
    job = scene.job(way, scene.request(way, path, body), **how)
    program = tool.folder() / tool.NAME
    done = subprocess.run([program, "ask"], input=json.dumps(job), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("path", ["/api/chat", "/v1/chat/completions"])
def test_a_stream_comes_chunk_by_chunk_at_the_pace_that_was_asked_for(path: str, stand_in: dict[str, Any]):
    said = scene.conversation("5 50 and words", stream=True)
    answers = scene.answers(ask(stand_in, path, said, Connections=3, Requests=2))
    assert [len(answer["chunks"]) for answer in answers] == [5] * 6
    assert all(answer["last"] >= 200_000 for answer in answers)
    assert all(answer["long_gap"] >= 40_000 for answer in answers)
    assert all(0 <= late < 1_000_000 for answer in answers for late in answer["chunks"])


@pytest.mark.parametrize("path", ["/api/chat", "/v1/chat/completions"])
def test_an_answer_in_one_piece_is_read_to_its_end_again_and_again(path: str, stand_in: dict[str, Any]):
    result = ask(stand_in, path, scene.kilobyte(), Connections=4, Requests=50, Warm=1)
    assert len(scene.answers(result)) == 200
    assert result["seconds"] > 0


def test_chunks_in_one_write_are_seen(stand_in: dict[str, Any]):
    alone = scene.answers(ask(stand_in, "/api/chat", scene.conversation("1 0", stream=True), Connections=1, Requests=1))
    assert alone[0]["coalesced"] == 0
    # No pause between them: the stand-in flushes each, but the kernel hands several over at once sooner or later.
    answers = scene.answers(
        ask(stand_in, "/api/chat", scene.conversation("5000 0", stream=True), Connections=1, Requests=1)
    )
    assert len(answers[0]["chunks"]) == 5000
    assert answers[0]["coalesced"] > 0


def test_requests_at_a_pace_take_their_time(stand_in: dict[str, Any]):
    result = ask(stand_in, "/api/version", None, Connections=2, Requests=6, PerSecond=20)
    assert result["seconds"] >= 5 / 20


def test_a_refusal_is_no_measurement():
    refused = {"answers": [[{"status": 200}], [{"status": 429, "body": "slow down"}]]}
    with pytest.raises(AssertionError, match="429 instead of 200: slow down"):
        scene.answers(refused)
    with pytest.raises(AssertionError, match="nothing was answered"):
        scene.answers({"answers": [[]]})


def test_a_kilobyte_is_one():
    assert len(json.dumps(scene.kilobyte())) == scene.KILOBYTE


def test_a_request_carries_the_ways_own_proof():
    text = scene.request({"host": "h", "api_key": "k", "headers": {"X-Own": "1"}}, "/api/version", None)
    assert text.startswith("GET /api/version HTTP/1.1\r\nHost: h\r\n")
    assert "\r\nAuthorization: Bearer k\r\nX-Own: 1\r\n\r\n" in text


def test_what_must_be_reached_is_judged_from_below():
    assert Result("a", 0.6, "", at_least=0.6).ok
    assert exit_code([Result("a", 0.59, "", at_least=0.6)]) == 1
    assert Result("a", 1, "", at_least=0.6).row()["at_least"] == 0.6


def test_a_rate_is_judged_against_the_bare_proxy_of_its_own_round():
    def way(rate_: float) -> dict[str, float]:
        return {"rate": rate_, "cpu_us": 100.0, "load": 0.2}

    rounds = [{"bare": way(1000), "gateway": way(500)}, {"bare": way(100), "gateway": way(70)}] * 2
    rounds = [{**each, "unseen": each["bare"]} for each in rounds]
    ratio = row(rate.figures(rounds), "requests/s, policy on, of the bare proxy's: median")
    assert (ratio.value, ratio.ok) == (0.5, False)


def streams(*late: float, coalesced: int = 0) -> list[dict[str, Any]]:
    return [{"chunks": list(late), "coalesced": coalesced, "long_gap": 1.0}]


def test_a_chunk_is_compared_with_itself_and_one_that_did_not_come_alone_fails():
    results = chunks.figures([{"past": streams(1000, 5000), "through": streams(1500, 5900, coalesced=2)}])
    assert row(results, "chunks of many streams, added by the Gateway: p99").value == 0.9
    assert not row(results, "chunks of many streams, not in a write of their own, through").ok


def test_a_missing_chunk_is_no_measurement():
    torn = [*streams(1, 2, 3), *streams(1, 2)]
    with pytest.raises(AssertionError, match="streams of 3 chunks, but one has 2"):
        chunks.figures([{"past": torn, "through": torn}])


def test_the_fortress_is_judged_against_the_best_of_the_others_in_each_row():
    def way(rate_: float, late: float) -> dict[str, list[float]]:
        return {"rate": [rate_], "first": [late], "chunk": [late]}

    seen = {compare.DIRECT: way(9999, 100), compare.OWN: way(900, 600), "a": way(800, 5000), "b": way(1000, 9000)}
    results = compare.figures(seen, {compare.OWN: 20.0, "a": 100.0, "b": 10.0})
    verdicts = {each.name: (each.value, each.ok) for each in results if each.judged}
    assert verdicts == {
        "requests/s: fortress": (900, False),
        "first chunk, added: p50: fortress": (0.5, True),
        "first chunk, added: p99: fortress": (0.5, True),
        "each chunk, added: p50: fortress": (0.5, True),
        "each chunk, added: p99: fortress": (0.5, True),
        "memory after that: fortress": (20.0, False),
    }
