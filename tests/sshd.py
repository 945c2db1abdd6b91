"""An SSH server of its own for one test: on loopback, own port, own keys, gone afterwards."""

import getpass
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console

from fortress import debian

CONFIG = """\
ListenAddress 127.0.0.1:{port}
HostKey {folder}/host_key
PidFile {folder}/sshd.pid
AuthorizedKeysFile {folder}/authorized_keys
AllowUsers {user}
AuthenticationMethods publickey
StrictModes no
UsePAM no
# What a fortress needs of its host is a shell, nothing else.
DisableForwarding yes
PrintMotd no
LogLevel VERBOSE
"""
POLICY = Path("/usr/sbin/policy-rc.d")


class Sshd:
    def __init__(self, folder: Path) -> None:
        self.folder, self.user = folder, getpass.getuser()
        for name in ("host_key", "client_key", "other_key"):
            key = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", str(folder / name)]
            subprocess.run(key, check=True)
        shutil.copy(folder / "client_key.pub", folder / "authorized_keys")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        self.log = folder / "sshd.log"
        config = folder / "sshd_config"
        config.write_text(CONFIG.format(port=self.port, folder=folder, user=self.user))
        program = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin")
        assert program
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        self.process = subprocess.Popen(
            [program, "-D", "-f", str(config), "-E", str(self.log)], stdin=subprocess.DEVNULL, start_new_session=True
        )
        self._wait()

    def _wait(self) -> None:
        deadline = time.monotonic() + 10
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return
            except OSError:
                assert self.process.poll() is None, f"sshd ended: {self.log.read_text()}"
                assert time.monotonic() < deadline, "sshd does not listen"
                time.sleep(0.05)

    def public(self, name: str) -> str:
        return " ".join((self.folder / f"{name}.pub").read_text().split()[:2])

    def settings(self, *, pinned: str = "host_key", key: str = "client_key") -> dict[str, Any]:
        """`host:` of a stack that is reached this way."""
        return {
            "ssh": {
                "address": "127.0.0.1",
                "port": self.port,
                "user": self.user,
                "host_key": self.public(pinned),
                "private_key_file": str(self.folder / key),
            }
        }

    def logins(self) -> int:
        return self.log.read_text().count("Accepted publickey")

    def close(self) -> None:
        """End the server and the connections it serves: only processes whose ancestor it is."""
        for process in (*_descendants(self.process.pid), self.process.pid):
            subprocess.run(["kill", str(process)], capture_output=True, check=False)
        self.process.wait(timeout=10)


def _descendants(parent: int) -> list[int]:
    listed = subprocess.run(["pgrep", "-P", str(parent)], capture_output=True, text=True, check=False)
    children = [int(line) for line in listed.stdout.split()]
    return [found for child in children for found in (*_descendants(child), child)]


@contextmanager
def sshd(folder: Path) -> Iterator[Sshd]:
    _install()
    folder.mkdir(parents=True, exist_ok=True)
    made = Sshd(folder)
    try:
        yield made
    finally:
        made.close()


def _install() -> None:
    """Debian's OpenSSH server, without the service on port 22 that its package would start."""
    if shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin") is not None:
        return
    ours = os.geteuid() == 0 and not POLICY.exists()
    if ours:
        POLICY.write_text("#!/bin/sh\nexit 101\n")
        POLICY.chmod(0o755)
    try:
        debian.ensure(Console(), {"sshd": "openssh-server"}, "a test that deploys by SSH")
    finally:
        if ours:
            POLICY.unlink()
