"""How a host is reached by SSH: one set of words for the Docker provider, for files sent to it, and for this program.

The operator's own `ssh` is used, but not its config: the stack file says all, so every machine reaches the same host.
"""

import hashlib
import os
import pwd
import shlex
from pathlib import Path

from settings import HostSettings, SshSettings
from settings.stack import DOCKER_SOCKET

CONNECT_TIMEOUT_S = 15
ALIVE_EVERY_S, ALIVE_TRIES = 15, 3
"""A host that says nothing to so many questions is gone: after a network change nothing else would ever end."""
SHARED_FOR_S = 60
"""How long the shared connection outlives its last user; then it ends by itself."""


def options(to: SshSettings) -> list[str]:
    """The options of every `ssh` to this host: its pinned key and no other, the one private key, never a question."""
    wanted = {
        "BatchMode": "yes",
        "ConnectTimeout": str(CONNECT_TIMEOUT_S),
        "ServerAliveInterval": str(ALIVE_EVERY_S),
        "ServerAliveCountMax": str(ALIVE_TRIES),
        "LogLevel": "ERROR",
        "StrictHostKeyChecking": "yes",
        # The pinned key comes from a command, so no known_hosts file has to exist on the operator's machine.
        "KnownHostsCommand": f"/usr/bin/env echo %H {to.host_key}",
        "UserKnownHostsFile": "/dev/null",
        "GlobalKnownHostsFile": "/dev/null",
        "IdentityFile": str(to.private_key_file),
        "IdentitiesOnly": "yes",
        # One connection for all: sshd drops some of many that log in at the same moment (MaxStartups 10:30:100).
        "ControlMaster": "auto",
        "ControlPersist": str(SHARED_FOR_S),
        "ControlPath": _shared_connection(to),
    }
    return ["-F", "none", *(word for name, value in wanted.items() for word in ("-o", f"{name}={value}"))]


def _shared_connection(to: SshSettings) -> str:
    """Named by all that decides who is trusted: another pinned key never rides on a connection made under this one."""
    who = "\0".join([to.user, to.address, str(to.port), to.host_key, str(to.private_key_file)])
    return f"~/.ssh/fortress-{hashlib.sha256(who.encode()).hexdigest()[:16]}"


def make_folder() -> None:
    """Where the shared connection's socket lies; `ssh` makes it only when it writes known_hosts, and else gives up."""
    # As `ssh` expands `~`: from the passwd entry, not from $HOME.
    Path(pwd.getpwuid(os.getuid()).pw_dir, ".ssh").mkdir(mode=0o700, exist_ok=True)


def docker_host(host: HostSettings) -> str:
    """The engine's address, as Docker writes it."""
    if host.ssh is None:
        return f"unix://{host.docker_socket}"
    address = f"[{host.ssh.address}]" if ":" in host.ssh.address else host.ssh.address
    socket = "" if host.docker_socket == DOCKER_SOCKET else host.docker_socket
    return f"ssh://{host.ssh.user}@{address}:{host.ssh.port}{socket}"


def shell(to: SshSettings, text: str) -> str:
    """A line of shell that runs `text` on the host; what the line's standard input is, the text's is."""
    words = ["ssh", *options(to), "-T", "-l", to.user, "-p", str(to.port), "--", to.address, text]
    return shlex.join(words)
