"""A Docker engine behind SSH: the operator's own `ssh` runs `docker system dial-stdio` there, one for each connection.

docker-py can do this only with paramiko installed, and never with options of one's own (a pinned host key, say).
"""

import socket
import subprocess
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

import docker
from docker.transport.unixconn import UnixHTTPAdapter, UnixHTTPConnection, UnixHTTPConnectionPool

POOLS = 4


def command(host: str, options: Sequence[str]) -> list[str]:
    """The words that reach the engine at `ssh://user@host:port`."""
    address = urlsplit(host)
    user = ["-l", address.username] if address.username else []
    port = ["-p", str(address.port)] if address.port else []
    return ["ssh", *options, "-o", "BatchMode=yes", *user, *port, "--", address.hostname or "", *_REMOTE]


_REMOTE = ("docker", "system", "dial-stdio")


class _Connection(UnixHTTPConnection):
    def __init__(self, words: list[str], timeout: float) -> None:
        super().__init__("http+docker://ssh", "", timeout)
        self.words = words

    def connect(self) -> None:
        here, there = socket.socketpair()
        here.settimeout(self.timeout)
        with there:
            # A session of its own: Ctrl-C is for the engine, which then cancels properly.
            self.process = subprocess.Popen(self.words, stdin=there, stdout=there, start_new_session=True)
        self.sock = here

    def close(self) -> None:
        super().close()
        process: subprocess.Popen[bytes] | None = getattr(self, "process", None)
        if process is not None:
            process.terminate()
            process.wait()


class _Pool(UnixHTTPConnectionPool):
    def __init__(self, words: list[str], timeout: float) -> None:
        super().__init__("http+docker://ssh", "", timeout=timeout, maxsize=POOLS)
        self.words = words

    def _new_conn(self) -> _Connection:
        return _Connection(self.words, self.timeout)


class _Adapter(UnixHTTPAdapter):
    def __init__(self, words: list[str], timeout: float) -> None:
        super().__init__("http+unix://", timeout=timeout, pool_connections=POOLS)
        self.words = words

    def get_connection(self, url: str, proxies: Any = None) -> _Pool:
        with self.pools.lock:
            pool = self.pools.get(url)
            if pool is None:
                pool = self.pools[url] = _Pool(self.words, self.timeout)
            return pool


def client(host: str, options: Sequence[str], *, version: str, timeout: float) -> docker.APIClient:
    """A client whose every request goes through `ssh`."""
    found = docker.APIClient(base_url="unix:///not-used", version=version, timeout=timeout)
    adapter = _Adapter(command(host, options), timeout)
    found.mount("http+docker://", adapter)
    found._custom_adapter = adapter
    return found
