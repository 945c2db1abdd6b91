"""Packages of the machine that are missing: installed on Debian as root, named everywhere else."""

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from rich.console import Console

from fortress.errors import Stop

DAEMONS = "/usr/local/sbin:/usr/sbin:/sbin"
"""Where Debian has daemons and administrators' tools: there, and yet not on every account's PATH."""


def ensure(console: Console, wanted: Mapping[str, str], why: str) -> None:
    """Leave with every command there.

    wanted: command -> Debian package that has it.
    """
    missing = {command: package for command, package in wanted.items() if not has(command)}
    if not missing:
        return
    packages = sorted(set(missing.values()))
    if not (os.geteuid() == 0 and Path("/etc/debian_version").exists()):
        raise Stop(f"{why} needs {', '.join(sorted(missing))}; install that, then run `make up` again")
    console.print(f"installing {', '.join(packages)} ({why})")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for command in (["apt-get", "update", "-qq"], ["apt-get", "install", "-y", "-qq", *packages]):
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise Stop(f"`{' '.join(command)}` failed:\n{done.stderr.strip()[-800:]}")


def has(command: str) -> bool:
    """Whether the machine has it, for this account or only for root."""
    return shutil.which(command, path=everywhere()) is not None


def everywhere() -> str:
    """PATH, and where daemons are."""
    return f"{os.environ.get('PATH', os.defpath)}:{DAEMONS}"
