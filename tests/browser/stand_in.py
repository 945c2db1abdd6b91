"""A stand-in for the gateway: the page's files with the headers they really get, and an API that does as a test says.

What an answer waits for is an event of the test, not a time, so that a test can look at the page in the middle of it.
"""

import json
import re
import select
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

from render import browser, page
from settings import StackSettings
from tests.browser.namespace import Namespace

STACK = StackSettings.model_validate(
    {
        "stack": "page",
        "engine": "online",
        "users": {"alice": {"keyless": True}},
        "wireguard": {"endpoint": "vpn.example.com:51820"},
        "browser": {},
    }
)
HEADERS = {
    name: quoted or plain
    for name, quoted, plain in re.findall(
        r'^ *add_header (\S+) (?:"([^"]*)"|([^$"]\S*)) always;$', browser.server(STACK), re.MULTILINE
    )
}
"""What nginx adds to each of its answers."""
assert "Content-Security-Policy" in HEADERS, "without it, these tests would prove little"
LIMITS = {
    "requests_per_minute": 30,
    "burst": 20,
    "concurrent": 2,
    "reads_per_minute": 120,
    "context_tokens": 4096,
    "answer_tokens": 2048,
    "tokens_per_day": None,
    "tokens_per_month": None,
}
NOTHING = {"in": 0, "out": 0}
ME: dict[str, Any] = {
    "user": "alice",
    "role": "user",
    "proof": "address",
    "device": "laptop",
    "devices": ["laptop", "phone"],
    "models": ["*"],
    "limits": LIMITS,
    "streams": 0,
    "waiting": 0,
    "queue_wait_s": 30,
    "timezone": "Europe/Berlin",
    "today": NOTHING,
    "month": NOTHING,
    "budgets": {},
}
Piece = str | dict[str, Any] | bytes | threading.Event


class StandIn:
    """What the page is told, and what it has asked. A test changes the one and reads the other."""

    def __init__(self, origin: str) -> None:
        self.origin = origin
        self.me = json.loads(json.dumps(ME))
        self.users: dict[str, Any] = {}
        self.models = ["llama3.2:3b", "tiny:latest"]
        self.refusals: dict[str, tuple[int, dict[str, str], str]] = {}
        """Path -> status, headers and words, until the test takes it away."""
        self.planned: set[int] = set()
        """Statuses that have been said on purpose."""
        self.before: threading.Event | None = None
        """What a chat's first byte waits for: a place in the queue, or a model that is loaded."""
        self.answer: list[Piece] = ["Hello", " there."]
        """Words, other lines, raw bytes, and events to wait for."""
        self.last: Piece | None = None
        """The line that ends an answer; nothing means Ollama's own."""
        self.chats: list[dict[str, Any]] = []
        self.left = threading.Event()
        """Set when the page leaves an answer before its end."""
        self.ended = threading.Event()

    def refuse(self, path: str, status: int, says: str = "", **headers: str) -> None:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self.refusals[path] = (status, named, says)
        self.planned.add(status)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    stand_in: ClassVar[StandIn]

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: a failing test shows what the page has seen."""

    def _send(self, status: int, kind: str, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(body)), **HEADERS, **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def _json(self, value: Any, status: int = 200, **headers: str) -> None:
        self._send(status, "application/json", json.dumps(value).encode(), **headers)

    def _refused(self) -> bool:
        if self.path not in self.stand_in.refusals:
            return False
        status, headers, says = self.stand_in.refusals[self.path]
        self._json({"error": says}, status, **headers)
        return True

    def do_GET(self) -> None:
        here = self.stand_in
        if self._refused():
            return
        if self.path == "/fortress/me":
            return self._json(here.me)
        if self.path == "/fortress/usage":
            return self._json({"timezone": here.me["timezone"], "users": here.users})
        if self.path == "/api/tags":
            return self._json({"models": [{"name": name, "model": name} for name in here.models]})
        name = page.paths().get(self.path)
        if name is not None:
            return self._send(200, page.TYPES[Path(name).suffix], (page.FOLDER / name).read_bytes())
        self._json({"error": "there is nothing here"}, 404)

    def do_POST(self) -> None:
        here = self.stand_in
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        here.chats.append(asked)
        if self._refused():
            return
        try:
            if here.before is not None:
                self._wait(here.before)
            self.send_response(200)
            self.send_header("Content-Type", "application/x-ndjson")
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for piece in here.answer:
                self._piece(asked["model"], piece)
            whole = {"message": {"content": ""}, "done": True, "done_reason": "stop", "eval_count": len(here.answer)}
            self._piece(asked["model"], whole if here.last is None else here.last)
            self.wfile.write(b"0\r\n\r\n")
            here.ended.set()
        except OSError:
            self.close_connection = True
            here.left.set()

    def _piece(self, model: str, piece: Piece) -> None:
        if isinstance(piece, threading.Event):
            return self._wait(piece)
        if isinstance(piece, str):
            piece = {"message": {"role": "assistant", "content": piece}}
        if isinstance(piece, dict):
            piece = (json.dumps({"model": model, "done": False, **piece}) + "\n").encode()
        if piece:
            self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))

    def _wait(self, event: threading.Event) -> None:
        """Until the event, or until nobody is there any more."""
        while not event.wait(0.02):
            readable, _, _ = select.select([self.connection], [], [], 0)
            if readable and not self.connection.recv(1, socket.MSG_PEEK):
                raise ConnectionResetError("the page has left")


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64  # of its own it is 5, and a browser opens more connections at once


@contextmanager
def serving(network: Namespace) -> Iterator[StandIn]:
    server = network.make(lambda: _Server(("127.0.0.1", 0), type("Handler", (_Handler,), {})))
    stand_in = StandIn(f"http://127.0.0.1:{server.server_port}")
    server.RequestHandlerClass.stand_in = stand_in  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield stand_in
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
