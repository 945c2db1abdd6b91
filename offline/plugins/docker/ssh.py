"""A Docker engine behind SSH: the operator's own `ssh` runs `docker system dial-stdio` there, one for each connection.

docker-py can do this only with paramiko installed, and never with options of one's own (a pinned host key, say).
"""

import socket
import subprocess
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

import docker
from docker.transport.basehttpadapter import BaseHTTPAdapter
from urllib3.connection import HTTPConnection
from urllib3.connectionpool import HTTPConnectionPool

CONNECTIONS = 4
REMOTE = ("docker", "system", "dial-stdio")


def command(host: str, options: Sequence[str]) -> list[str]:
    """The words that reach the engine at `ssh://user@host:port`."""
    address = urlsplit(host)
    user = ["-l", address.username] if address.username else []
    port = ["-p", str(address.port)] if address.port else []
    return ["ssh", *options, "-o", "BatchMode=yes", *user, *port, "--", address.hostname or "", *REMOTE]


class _Connection(HTTPConnection):
    words: Sequence[str] = ()
    process: subprocess.Popen[bytes] | None = None

    def connect(self) -> None:
        here, there = socket.socketpair()
        with there:
            # A session of its own: Ctrl-C is for Pulumi, which then ends the plugin in order.
            self.process = subprocess.Popen(
                self.words, stdin=there.fileno(), stdout=there.fileno(), start_new_session=True
            )
        self.sock = here

    def close(self) -> None:
        super().close()
        if self.process is not None:
            self.process.terminate()
            self.process.wait()
            self.process = None


class _Adapter(BaseHTTPAdapter):
    def __init__(self, words: Sequence[str], timeout: float) -> None:
        class Connection(_Connection):
            pass

        Connection.words = words
        # docker-py keeps a pool for each URL; here that would be an `ssh` for each path.
        self.pool = HTTPConnectionPool("localhost", timeout=timeout, maxsize=CONNECTIONS, block=True)
        self.pool.ConnectionCls = Connection  # type: ignore[assignment]
        super().__init__()

    def get_connection(self, url: str | bytes, proxies: Any = None) -> HTTPConnectionPool:
        return self.pool

    def request_url(self, request: Any, proxies: Any) -> str:
        return str(request.path_url)

    def close(self) -> None:
        super().close()
        self.pool.close()


def client(host: str, options: Sequence[str], *, version: str, timeout: int) -> docker.APIClient:
    """A client whose every request goes through `ssh`."""
    found = docker.APIClient(base_url="unix:///not-used", version=version, timeout=timeout)
    found.mount("http+docker://", _Adapter(command(host, options), timeout))
    return found
