"""Peers that are slow, speak another protocol, or are not who they should be, on both sides of the gateway."""

import re
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest

from tests.unit.gateway.harness import KEYS, STRANGER, Authority, Bench
from tests.unit.gateway.test_deployed_policy import CHAT, HELLO, request, status

BOB = KEYS["bob"]
HEAD_S, BODY_S = 10, 15
"""The gateway's patience (render/nginx.py)."""
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(3) + b"\x04" + bytes(5)


def _handshake(bench: Bench) -> bytes:
    with bench.plain(STRANGER) as connection:
        connection.sendall(b"\x16\x03\x01\x02\x00")  # a ClientHello that never goes on
        return connection.recv(4096)


def _half_a_head(bench: Bench) -> bytes:
    with bench.connect() as connection:
        connection.sendall(request("POST /api/chat HTTP/1.1")[:30])
        return connection.recv(4096)


def _drops(bench: Bench) -> bytes:
    """A header a byte at a time: each by itself is soon enough, all of them are not."""
    with bench.connect() as connection:
        connection.sendall(b"GET /api/tags HTTP/1.1\r\nX-Slow: ")
        connection.settimeout(0.5)
        for _ in range(2 * HEAD_S + 10):
            connection.sendall(b"a")
            try:
                return connection.recv(4096)
            except TimeoutError:
                continue
        raise AssertionError("it may go on for ever")


def _half_a_body(bench: Bench) -> bytes:
    with bench.connect() as connection:
        connection.sendall(request("POST /api/generate HTTP/1.1", f"Content-Length: {len(HELLO)}", body=HELLO)[:-5])
        return connection.recv(4096)


def test_whoever_is_slow_is_sent_away_and_costs_nobody_anything(quiet: Bench):
    def timed(slow: Callable[[Bench], bytes]) -> tuple[bytes, float]:
        began = time.monotonic()
        said = slow(quiet)
        return said, time.monotonic() - began

    slow = {_handshake: HEAD_S, _half_a_head: HEAD_S, _drops: HEAD_S, _half_a_body: BODY_S}
    with ThreadPoolExecutor(len(slow)) as pool:
        running = [pool.submit(timed, each) for each in slow]
        time.sleep(1)
        assert quiet.ask("POST", "/api/chat", key=BOB, body=CHAT).status == 200
        quiet.forget()
        for how, done in zip(slow, running, strict=True):
            said, seconds = done.result()
            assert said == b"" or status(said) == 408, (how, said)
            assert seconds < slow[how] + 4, how
    assert quiet.heard() == []


@pytest.mark.parametrize("offered", [["h2", "http/1.1"], ["h2"]])
def test_http_2_is_never_spoken(offered: list[str], quiet: Bench):
    context = quiet.context()
    context.set_alpn_protocols(offered)
    try:
        with quiet.connect(context=context) as connection:
            assert connection.selected_alpn_protocol() != "h2"
            connection.sendall(PREFACE)
            said = connection.recv(4096)
    except OSError:  # an alert: no protocol in common
        said = b""
    assert said == b"" or status(said) in (400, 505), said
    assert quiet.heard() == []


OTHERS = {
    "another name": lambda hop: hop.leaf("gateway"),
    "another authority": lambda _: Authority("another").leaf("ollama-sidecar"),
    "expired": lambda hop: hop.leaf("ollama-sidecar", ends=timedelta(hours=-1)),
}


@pytest.fixture
def hop(quiet: Bench) -> Iterator[Callable[[tuple[str, str]], None]]:
    def presents(pair: tuple[str, str]) -> None:
        quiet.write("sidecar", quiet.sidecar_files(pair))
        quiet.containers["sidecar"].kill("HUP")

    yield presents
    presents(quiet.hop.leaf("ollama-sidecar"))
    quiet.until_ready()


@pytest.mark.parametrize("what", OTHERS)
def test_the_gateway_sends_nothing_to_a_hop_that_is_not_its_own(
    what: str, hop: Callable[[tuple[str, str]], None], quiet: Bench
):
    hop(OTHERS[what](quiet.hop))
    deadline = time.monotonic() + 10
    while (reply := quiet.ask("POST", "/api/chat", key=BOB, body=CHAT)).status == 200:
        assert time.monotonic() < deadline, "another's certificate is taken"
    quiet.forget()
    assert quiet.ask("POST", "/api/chat", key=BOB, body=CHAT).status == reply.status == 502
    assert quiet.heard() == []
    assert re.search("upstream SSL certificate (verify error|does not match)", quiet.logs("gateway"))
