"""The Docker engine of this machine: found, installed on Debian as root, started where nothing else starts it."""

import os
import shutil
import subprocess
import time
from pathlib import Path

from rich.console import Console

from fortress import debian, paths
from fortress.errors import Stop

MINIMUM_API = (1, 41)
START_TIMEOUT_S = 60


def ensure(console: Console) -> None:
    """Leave with a running engine of a usable version, or stop with the one thing to do."""
    if shutil.which("dockerd") is None and _api() is None:
        debian.ensure(console, {"docker": "docker.io", "dockerd": "docker.io"}, "the fortress")
    if _api() is None:
        _start(console)
    api = _api()
    if api is None:
        raise Stop(
            "no Docker engine answers. Start it (for example `systemctl start docker`), or check that this account "
            "may use it (group `docker`), then run `make up` again"
        )
    if api < MINIMUM_API:
        raise Stop(
            f"the Docker engine speaks API {api[0]}.{api[1]}; at least {MINIMUM_API[0]}.{MINIMUM_API[1]} (engine "
            "20.10) is needed. Upgrade Docker, then run `make up` again"
        )


def _api() -> tuple[int, int] | None:
    if shutil.which("docker") is None:
        return None
    done = subprocess.run(
        ["docker", "version", "--format", "{{.Server.APIVersion}}"], capture_output=True, text=True, check=False
    )
    if done.returncode != 0 or "." not in done.stdout:
        return None
    major, minor = done.stdout.strip().split(".")[:2]
    return int(major), int(minor)


def _start(console: Console) -> None:
    if shutil.which("dockerd") is None or os.geteuid() != 0:
        return
    if Path("/run/systemd/system").is_dir():
        subprocess.run(["systemctl", "start", "docker"], check=False)
    else:
        console.print("starting the Docker engine")
        log = paths.cache() / "dockerd.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as output:
            subprocess.Popen(
                ["dockerd"], stdout=output, stderr=output, stdin=subprocess.DEVNULL, start_new_session=True
            )
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline and _api() is None:
        time.sleep(0.5)
