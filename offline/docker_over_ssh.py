"""A Docker engine behind SSH: the operator's own `ssh` runs `docker system dial-stdio` there, one for each connection.

docker-py can do this only with paramiko installed, and never with options of one's own (a pinned host key, say).
The docker plugin and the command line both use it; it lies here because plugins run from a copy of this folder alone.
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
PROBE_TIMEOUT_S = 60


class Unreachable(Exception):
    """The engine cannot be asked; one sentence says why."""


def command(host: str, options: Sequence[str], *remote: str) -> list[str]:
    """The words that run `docker remote...` at `ssh://user@host:port[/path/of/the/socket]`."""
    address = urlsplit(host)
    user = ["-l", address.username] if address.username else []
    port = ["-p", str(address.port)] if address.port else []
    engine = [f"--host=unix://{address.path}"] if address.path.strip("/") else []
    return ["ssh", *options, "-T", *user, *port, "--", address.hostname or "", "docker", *engine, *remote]


def reach(host: str, options: Sequence[str]) -> str:
    """Ask once whether the engine is there. Returns: its API version. Raises: Unreachable.

    What `ssh` and the far shell say is only heard here: of a connection that breaks off, docker-py knows nothing.
    """
    where = host.removeprefix("ssh://")
    try:
        done = subprocess.run(
            command(host, options, "version", "--format", "{{.Server.APIVersion}}"),
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=PROBE_TIMEOUT_S,
            check=False,
        )
    except FileNotFoundError:
        raise Unreachable("there is no `ssh` on this machine; install the OpenSSH client") from None
    except subprocess.TimeoutExpired:
        raise Unreachable(f"{where} does not answer within {PROBE_TIMEOUT_S} s") from None
    if done.returncode != 0:
        raise Unreachable(_why(where, done.stderr))
    return done.stdout.strip()


def _why(where: str, said: str) -> str:
    last = said.strip().splitlines()[-1] if said.strip() else "no word of why"
    if "Host key verification failed" in said:
        return f"{where} shows another host key than the pinned one; nothing was sent"
    if "Permission denied (" in said:
        return f"{where} does not accept the private key"
    if "not found" in said:
        return f"{where} has no `docker` command; install Docker there"
    if "docker daemon" in said.lower():
        return f"{where} is reached, but no Docker engine answers its user there: {last}"
    return f"cannot reach {where} by SSH: {last}"


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
    found.mount("http+docker://", _Adapter(command(host, options, "system", "dial-stdio"), timeout))
    return found
