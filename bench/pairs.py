"""The measuring client: pairs of one request, past the Gateway and through it. A program for a container.

Reads one JSON object from stdin: keys and certificates come that way, and lie in the container's own memory only.
Prints one JSON object: for each pair what both ways took, in microseconds. Nothing but Python's own library, raw
sockets, and nothing parsed while the clock runs.
"""

import bisect
import gc
import json
import os
import re
import socket
import ssl
import sys
import time
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

SCRATCH = Path("/tmp")  # noqa: S108 - a tmpfs of this container alone
END = b"\r\n0\r\n\r\n"
FRAME = re.compile(rb"\{[^\r\n]*\}\n")
ASK_TIMEOUT_S = 10
RENEW_AFTER = 400
"""Pairs on one connection: the Gateway ends one after 1,000 requests, and that must not be what is measured."""
WARM_UP = 20
"""Pairs after each connect that do not count."""


class Way:
    """One kept-alive TLS connection, and the one request that goes over it again and again."""

    def __init__(self, address: tuple[str, int], context: ssl.SSLContext, name: str, request: bytes) -> None:
        self.address, self.context, self.name, self.request = address, context, name, request
        self.connection: ssl.SSLSocket | None = None

    def connect(self) -> None:
        if self.connection is not None:
            self.connection.close()
        plain = socket.create_connection(self.address, timeout=ASK_TIMEOUT_S)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.connection = self.context.wrap_socket(plain, server_hostname=self.name)

    def ask(self) -> dict[str, Any]:
        """One request, and everything of its answer."""
        assert self.connection is not None
        parts: list[bytes] = []
        times: list[int] = []
        tail = b""
        started = time.monotonic_ns()
        self.connection.sendall(self.request)
        while True:
            part = self.connection.recv(65536)
            times.append(time.monotonic_ns())
            parts.append(part)
            tail = (tail + part)[-len(END) :]  # the end may come in two reads
            if not part or tail == END:
                break
        return sample(started, parts, times)


def sample(started: int, parts: Sequence[bytes], times: Sequence[int]) -> dict[str, Any]:
    """What one answer took, in microseconds.

    parts, times: what each read brought, and when it did.
    Returns: first (request sent -> first chunk with text), way_in (-> read by the stand-in), way_out (first chunk
    sent by the stand-in -> here), late (the stand-in's own delay) and gaps (between chunks with text).
    Raises: ValueError quoting the answer where it is not the whole of one.
    """
    answer = b"".join(parts)
    if not answer.startswith(b"HTTP/1.1 200") or not answer.endswith(END):
        raise ValueError(f"no whole answer: {answer[:300]!r}")
    ends: list[int] = []
    for part in parts:
        ends.append((ends[-1] if ends else 0) + len(part))
    arrivals: list[int] = []
    frames: list[dict[str, Any]] = []
    for match in FRAME.finditer(answer):
        said = json.loads(match.group())
        if said["response"]:
            frames.append(said)
            arrivals.append(times[bisect.bisect_left(ends, match.end())])
    first = frames[0]
    return {
        "first": (arrivals[0] - started) / 1000,
        "way_in": (first["read_ns"] - started) / 1000,
        "way_out": (arrivals[0] - first["sent_ns"]) / 1000,
        "late": max((each["sent_ns"] - each["due_ns"]) / 1000 for each in frames),
        "gaps": [(later - earlier) / 1000 for earlier, later in pairwise(arrivals)],
    }


def request(host: str, body: str, key: str | None = None) -> bytes:
    proof = f"Authorization: Bearer {key}\r\n" if key else ""
    head = f"POST /api/generate HTTP/1.1\r\nHost: {host}\r\n{proof}Content-Type: application/json\r\n"
    return f"{head}Content-Length: {len(body.encode())}\r\n\r\n{body}".encode()


def context(authority: str, certificate: str = "", key: str = "") -> ssl.SSLContext:
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made.minimum_version = ssl.TLSVersion.TLSv1_3
    made.load_verify_locations(cadata=authority)
    if key:
        pair = SCRATCH / "client.pem"
        pair.write_text(certificate + key)  # Python reads a key from a file only
        made.load_cert_chain(pair)
        pair.unlink()
    return made


def ways(given: Mapping[str, Any]) -> tuple[Way, Way]:
    past, through = given["direct"], given["gateway"]
    return (
        Way(
            (past["address"], past["port"]),
            context(past["ca"], past["certificate"], past["key"]),
            past["name"],
            request(past["host"], given["body"]),
        ),
        Way(
            (through["address"], through["port"]),
            context(through["ca"]),
            through["name"],
            request(through["name"], given["body"], through["api_key"]),
        ),
    )


def pairs(direct: Way, gateway: Way, count: int, seconds: float) -> list[dict[str, Any]]:
    """`count` pairs, and every second one the other way round, so that neither way is always the first."""
    deadline = time.monotonic() + seconds
    measured: list[dict[str, Any]] = []
    for number in range(count):
        if time.monotonic() > deadline:
            raise TimeoutError(f"only {number} of {count} pairs within {seconds:.0f} s")
        if number % RENEW_AFTER == 0:
            for way in (direct, gateway):
                way.connect()
            for _ in range(WARM_UP):
                direct.ask()
                gateway.ask()
            gc.collect()
        if number % 2:
            through, past = gateway.ask(), direct.ask()
        else:
            past, through = direct.ask(), gateway.ask()
        measured.append({"direct": past, "gateway": through})
    return measured


def main() -> None:
    os.umask(0o077)
    given = json.load(sys.stdin)
    direct, gateway = ways(given)
    gc.disable()
    json.dump(pairs(direct, gateway, given["pairs"], given["seconds"]), sys.stdout)


if __name__ == "__main__":
    main()
