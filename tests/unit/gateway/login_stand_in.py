"""A login service that says what a test tells it to, and writes down what it was asked."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from render.nginx import LOGIN_PORT


@dataclass
class LoginStandIn:
    status: int = 401
    headers: list[tuple[str, str]] = field(default_factory=list)
    body: bytes = b""
    delay_s: float = 0
    asked: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)
    """Method, path with query, headers in lower case."""

    def says(
        self, status: int, email: str | None = None, *, body: bytes = b"", delay_s: float = 0, **headers: str
    ) -> None:
        self.status, self.body, self.delay_s = status, body, delay_s
        self.headers = [(name.replace("_", "-"), value) for name, value in headers.items()]
        if email is not None:
            self.headers.append(("X-Auth-Request-Email", email))
        self.asked.clear()


@contextmanager
def login_stand_in(address: str) -> Iterator[LoginStandIn]:
    told = LoginStandIn()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            told.asked.append((self.command, self.path, {name.lower(): value for name, value in self.headers.items()}))
            time.sleep(told.delay_s)
            self.send_response(told.status)
            for name, value in told.headers:
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(told.body)))
            self.end_headers()
            self.wfile.write(told.body)

        do_POST = do_GET

        def log_message(self, format: str, *args: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: Any, client_address: Any) -> None:
            """The gateway may have had enough."""

    server = Server((address, LOGIN_PORT), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield told
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
