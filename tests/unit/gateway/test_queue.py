"""The fair queue: who waits for an inference slot, in which order, for how long, and what frees a slot."""

import json
import ssl
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from fortress import blocklist
from settings import StackSettings
from tests.unit.gateway.harness import DOMAIN, KEYS, WIDE, Bench, Reply, parse, running, settings

USERS: dict[str, Any] = {user: {"limits": WIDE} for user in ("alice", "bob", "carol", "slow")}
USERS["alice"]["role"] = "admin"
LIMITS = {"slots": 1, "wait_s": 30, "per_user": 2, "total": 3}
LONG = "100 50"  # five seconds


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    with running(tmp_path_factory.mktemp("queue")) as started:
        yield started


@pytest.fixture
def narrow(own: Bench) -> Callable[..., Bench]:
    """The bench with one slot, free, and nothing heard behind it yet."""

    def reloaded(**gateway: Any) -> Bench:
        own.reload(settings(USERS, **{"slots": 1, **gateway}))
        for _ in range(100):
            if ask(own, "alice").status == 200:
                own.forget()
                return own
            time.sleep(0.1)
        raise AssertionError("the slot is never free:\n" + own.logs("gateway"))

    return reloaded


def begin(bench: Bench, user: str, prompt: str = "1 0", path: str = "/api/generate") -> ssl.SSLSocket:
    """A request that has arrived; the prompt ends with its user's name, so that Ollama's order can be read."""
    words = f"{prompt} 0 {user}" if prompt.count(" ") == 1 else f"{prompt} {user}"
    body = json.dumps({"model": "tiny", "prompt": words}).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: {DOMAIN}\r\nAuthorization: Bearer {KEYS[user]}\r\nConnection: close\r\n"
    connection = bench.connect()
    connection.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
    time.sleep(0.08)
    return connection


def end(connection: ssl.SSLSocket) -> Reply:
    data = b""
    with connection:
        while part := connection.recv(65536):
            data += part
    return parse(data)


def ask(bench: Bench, user: str, prompt: str = "1 0", path: str = "/api/generate") -> Reply:
    return end(begin(bench, user, prompt, path))


def order(bench: Bench) -> list[str]:
    return [json.loads(row["body"])["prompt"].split()[-1] for row in bench.heard() if row["method"] == "POST"]


def until_heard(bench: Bench, count: int) -> None:
    for _ in range(100):
        if len(order(bench)) >= count:
            return
        time.sleep(0.05)
    raise AssertionError(f"only {order(bench)} came through")


def line_of(bench: Bench, user: str) -> dict[str, Any]:
    """The last request's; what the operator did to the user is not one."""
    return [line for line in bench.audit() if line["principal"] == user and "operator" not in line][-1]


# The decisions.


def test_a_tag_comes_after_what_was_served_and_after_its_users_own(bench: Bench):
    rows = [{"user": "bob", "tag": 4}, {"user": "bob", "tag": 5}, {"user": "carol", "tag": 9}]
    assert [bench.call("tag", rows, user, 3) for user in ("bob", "alice", "carol")] == [6, 4, 10]
    assert bench.call("tag", [], "bob", 0) == 1


def test_the_smallest_tag_is_next_and_then_the_first_that_came(bench: Bench):
    rows = [
        {"id": "a", "tag": 3, "since": 1},
        {"id": "b", "tag": 2, "since": 9},
        {"id": "d", "tag": 2, "since": 5},
        {"id": "c", "tag": 2, "since": 5},
    ]
    assert bench.call("next", rows)["id"] == "c"
    assert bench.call("next", []) is None


@pytest.mark.parametrize(
    ("waiting", "changed", "refused"),
    [
        ([], {}, None),
        (["bob", "carol"], {}, None),
        (["bob", "bob"], {}, ("queue-full", "queue_per_user (2)")),
        (["carol", "carol", "alice"], {}, ("queue-full", "queue_total (3)")),
        ([], {"wait_s": 0}, ("queue-wait", "slots (1)")),
    ],
)
def test_only_so_many_wait(waiting: list[str], changed: dict[str, int], refused: Any, bench: Bench):
    verdict = bench.call("full", [{"user": user} for user in waiting], "bob", LIMITS | changed)
    if refused is None:
        assert verdict is None
    else:
        assert (verdict["status"], verdict["reason"]) == (429, refused[0])
        assert refused[1] in verdict["says"]
        assert int(verdict["headers"]["Retry-After"]) > 0


def test_the_kernels_list_says_whose_connection_is_closed(bench: Bench):
    table = (
        "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
        "   0: 0300A8C0:20FB 0100A8C0:D2F0 01 00000000:00000000 00:00000000 00000000   101        0 1\n"
        "   1: 0300A8C0:20FB 0100A8C0:0050 08 00000000:00000000 00:00000000 00000000   101        0 2\n"
    )
    peers = [bench.call("peer", "192.168.0.1", port) for port in ("54000", "80", "81")]
    assert peers == ["0100A8C0:D2F0", "0100A8C0:0050", "0100A8C0:0051"]
    assert [row["peer"] for row in bench.call("left", [{"peer": peer} for peer in peers], table)] == peers[1:]


def test_whoever_has_waited_long_is_looked_at_less_often(bench: Bench):
    assert [bench.call("pause", waited) for waited in (0, 2500, 10_000, 600_000)] == [25, 25, 100, 250]


def test_no_entry_ends_while_what_it_stands_for_may_still_be_silent():
    own = StackSettings.model_validate(
        {"stack": "unit", "users": {"bob": {}}, "wireguard": {"endpoint": "vpn.example.com:51820"}}
    ).gateway
    assert own.longest_silence_s > own.queue_wait_s + own.connect_timeout_s + own.read_timeout_s


# The deployed queue.


def test_slots_go_round_over_the_users_not_to_whoever_came_first(narrow: Callable[..., Bench]):
    bench = narrow()
    streams = [begin(bench, "alice", LONG), *(begin(bench, "bob", "1 100") for _ in range(6))]
    streams += [begin(bench, "carol", "1 100") for _ in range(2)]
    assert order(bench) == ["alice"], "one slot let more than one request through"
    assert [end(stream).status for stream in streams] == [200] * 9
    assert order(bench) == ["alice", "bob", "carol", "bob", "carol", "bob", "bob", "bob", "bob"]
    assert line_of(bench, "carol")["queued_s"] > 0.5


def test_without_waiting_there_is_no_delay(narrow: Callable[..., Bench]):
    bench = narrow()
    for _ in range(20):
        assert ask(bench, "bob").status == 200
    assert [line["queued_s"] for line in bench.audit()[-20:]] == [0] * 20, "a request waited beside a free slot"


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/api/generate", lambda body: body["error"]),
        ("/api/embed", lambda body: body["error"]),
        ("/v1/embeddings", lambda body: body["error"]["message"] + body["error"]["code"]),
        ("/v1/messages", lambda body: body["error"]["message"] + body["error"]["type"]),
    ],
)
def test_waiting_ends_with_429_in_the_callers_shape(path: str, said: Any, narrow: Callable[..., Bench]):
    bench = narrow(queue_wait_s=1)
    with begin(bench, "bob", "100 50"):
        reply = ask(bench, "alice", path=path)
        assert (reply.status, reply.headers["retry-after"]) == (429, "1")
        assert "limit queue_wait_s (1) reached" in said(reply.json)
        line = line_of(bench, "alice")
        assert (line["verdict"], line["reason"]) == ("refused", "queue-wait")
        assert 1 <= line["queued_s"] < 5
        assert bench.ask("GET", "/api/version", key=KEYS["carol"]).status == 200, "a read waited"
        assert line_of(bench, "carol")["queued_s"] == 0
    assert order(bench) == ["bob"]


def test_whoever_waits_can_see_it(narrow: Callable[..., Bench]):
    bench = narrow()
    connections = [begin(bench, "alice", LONG), begin(bench, "bob"), begin(bench, "bob")]
    seen = {user: bench.ask("GET", "/fortress/me", key=KEYS[user]).json for user in ("alice", "bob")}
    assert {user: (me["waiting"], me["queue_wait_s"]) for user, me in seen.items()} == {
        "alice": (0, 30),
        "bob": (2, 30),
    }
    for connection in connections:
        connection.close()


def test_where_waiting_is_off_a_taken_slot_refuses_at_once(narrow: Callable[..., Bench]):
    bench = narrow(queue_wait_s=0)
    with begin(bench, "bob", "100 50"):
        reply = ask(bench, "carol")
        line = line_of(bench, "carol")
    assert (reply.status, line["reason"], line["queued_s"]) == (429, "queue-wait", 0)
    assert "limit slots (1) reached" in reply.json["error"]


def test_the_queue_is_bounded_per_user_and_in_all(narrow: Callable[..., Bench]):
    bench = narrow(queue_per_user=2, queue_total=3)
    with begin(bench, "alice", "100 50"), begin(bench, "bob"), begin(bench, "bob"):
        reply = ask(bench, "bob")
        assert (reply.status, reply.headers["retry-after"], line_of(bench, "bob")["reason"]) == (429, "5", "queue-full")
        assert "queue_per_user (2)" in reply.json["error"]
        with begin(bench, "carol"):
            reply = ask(bench, "slow")
            assert (reply.status, line_of(bench, "slow")["reason"]) == (429, "queue-full")
            assert "queue_total (3)" in reply.json["error"]


def test_a_client_that_leaves_while_it_waits_is_never_heard_and_holds_up_nobody(narrow: Callable[..., Bench]):
    bench = narrow(queue_per_user=1)
    holder = begin(bench, "alice", "200 50")
    begin(bench, "bob").close()
    time.sleep(2.5)
    line = line_of(bench, "bob")
    assert (line["status"], line["reason"]) == (499, "left-queue"), "it was not noticed while the slot was taken"
    begin(bench, "bob").close()
    next_one = begin(bench, "carol")
    holder.close()  # the slot is free before anybody has looked for the one that left
    started = time.monotonic()
    assert end(next_one).status == 200
    assert time.monotonic() - started < 2
    time.sleep(0.5)
    assert order(bench) == ["alice", "carol"]
    assert "rejection" not in bench.logs("gateway")


def test_whoever_is_removed_while_waiting_is_refused_and_never_heard(narrow: Callable[..., Bench]):
    bench = narrow()
    with begin(bench, "alice", "100 100"):
        waiting = begin(bench, "bob")
        bench.reload(settings({user: own for user, own in USERS.items() if user != "bob"}, slots=1))
        started = time.monotonic()
        assert end(waiting).status == 401
        assert time.monotonic() - started < 5
        assert order(bench) == ["alice"]


def test_whoever_is_blocked_while_waiting_is_refused_and_never_heard(narrow: Callable[..., Bench]):
    bench = narrow()
    with begin(bench, "alice", "100 100"):
        waiting = begin(bench, "bob")
        blocklist.block(bench.engine, bench.name, "bob", None)
        try:
            started = time.monotonic()
            reply = end(waiting)
            assert time.monotonic() - started < 5
        finally:
            blocklist.unblock(bench.engine, bench.name, "bob")
        assert reply.status == 403
        assert "blocked" in {line["reason"] for line in bench.audit() if line["principal"] == "bob"}
        assert order(bench) == ["alice"]


def test_a_worker_that_dies_frees_its_slots(narrow: Callable[..., Bench]):
    bench = narrow()
    holder, waiting = begin(bench, "alice", "600 50"), begin(bench, "carol")
    killed = bench.containers["gateway"].exec_run(["sh", "-c", "kill -9 $(cat /proc/1/task/1/children)"])
    assert killed.exit_code == 0, killed.output
    started = time.monotonic()
    assert ask(bench, "bob").status == 200
    assert time.monotonic() - started < 8, "what the dead worker held was not given back"
    for lost in (holder, waiting):
        lost.close()
    assert order(bench) == ["alice", "bob"]


def test_a_reload_in_the_middle_keeps_count_and_whoever_waits(narrow: Callable[..., Bench]):
    bench = narrow()
    streams = [begin(bench, "alice", "100 100"), begin(bench, "bob", "10 100")]
    bench.reload(settings(USERS, slots=1, model_upload=True))
    streams.append(begin(bench, "carol"))
    time.sleep(1.5)
    assert order(bench) == ["alice"], "the old worker's stream did not hold its slot"
    assert [end(stream).status for stream in streams] == [200] * 3
    assert order(bench) == ["alice", "bob", "carol"], "who waited in the old worker was forgotten"


def test_a_long_silence_before_the_first_token_keeps_the_slot(narrow: Callable[..., Bench]):
    bench = narrow()
    loading = begin(bench, "alice", "1 0 8000")
    waiting = begin(bench, "bob")
    time.sleep(3.5)
    assert order(bench) == ["alice"], "a silent stream lost its slot"
    assert [end(stream).status for stream in (loading, waiting)] == [200, 200]


def test_a_slot_is_given_back_however_a_request_ends(narrow: Callable[..., Bench]):
    bench = narrow(queue_wait_s=0)
    for _ in range(3):
        with begin(bench, "bob", "100 50"):
            until_heard(bench, 1)
            assert ask(bench, "carol").status == 429, "the slot is not held, so the next line would prove nothing"
        time.sleep(0.5)
        broken = {"model": "tiny", "prompt": "broken"}
        assert bench.ask("POST", "/api/generate", key=KEYS["bob"], body=broken).status == 500
        assert bench.ask("POST", "/api/generate", key=KEYS["bob"], body=b"{").status == 400
        assert ask(bench, "carol").status == 200
