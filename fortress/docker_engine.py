"""The Docker engines a stack needs: this machine's, found or installed on Debian as root, and the host's over SSH.

What this program asks and what Pulumi asks must be one engine, so its address comes from the stack's settings and
goes to every child of this process as DOCKER_HOST.
"""

import os
import platform
import shutil
import subprocess
import time
from pathlib import Path

import docker
from docker.errors import DockerException
from rich.console import Console

from fortress import debian, paths, ssh
from fortress.errors import Stop
from offline import docker_over_ssh
from settings import PROJECT, HostSettings
from settings.stack import DOCKER_SOCKET

MINIMUM_API = (1, 41)
START_TIMEOUT_S = 60
CLIENT_TIMEOUT_S = 900
"""A request may be a whole image build."""
DEFAULT = f"unix://{DOCKER_SOCKET}"
PROCESSORS = {"x86_64": "amd64", "aarch64": "arm64"}


def reach(console: Console, host: HostSettings) -> docker.DockerClient:
    """Leave with a client of the engine that runs the containers, or stop with the one thing to do."""
    if host.ssh is not None:
        return _over_ssh(host)
    use(console, host)
    ensure(console)
    return docker.DockerClient(base_url=ssh.docker_host(host), timeout=CLIENT_TIMEOUT_S)


def use(console: Console, host: HostSettings) -> None:
    """From here on this process and its children ask the engine that the stack file names."""
    address, said = ssh.docker_host(host), os.environ.get("DOCKER_HOST")
    if said and said != address:
        console.print(
            f"[yellow]DOCKER_HOST is {said}, but this stack's containers run on {address}. A stack does not move: "
            f"`make down` first, then {PROJECT}:host: {{docker_socket: ...}}[/]",
            highlight=False,
        )
    os.environ["DOCKER_HOST"] = address


def socket() -> str:
    """The socket that `docker` uses for this account, by DOCKER_HOST or its context: a second engine has its own."""
    if shutil.which("docker") is None:
        return DOCKER_SOCKET
    asked = subprocess.run(
        ["docker", "context", "inspect", "--format", "{{.Endpoints.docker.Host}}"],
        capture_output=True,
        text=True,
        check=False,
    )
    address = asked.stdout.strip() or DEFAULT
    if not address.startswith("unix://"):
        raise Stop(
            f"`docker` talks to {address} here; the fortress runs on a socket of this machine or on a host reached by "
            f"SSH. Unset DOCKER_HOST, or write a stack file with {PROJECT}:host: {{ssh: ...}} (see the README)"
        )
    path = address.removeprefix("unix://")
    return DOCKER_SOCKET if Path(path).resolve() == Path(DOCKER_SOCKET).resolve() else path


def ensure(console: Console) -> None:
    """Leave with a running engine of a usable version on this machine, or stop with the one thing to do."""
    if _api() is None:
        debian.ensure(console, {"docker": "docker.io", "dockerd": "docker.io"}, "the fortress")
    if _api() is None:
        _start(console)
    api = _api()
    if api is None:
        raise Stop(
            "no Docker engine answers. Start it (for example `systemctl start docker`), or check that this account "
            "may use it (group `docker`), then run `make up` again"
        )
    _refuse_old(api, "the Docker engine")


def answers() -> bool:
    """Whether this machine has an engine at all: with a host reached by SSH it need not."""
    return _api() is not None


def _over_ssh(host: HostSettings) -> docker.DockerClient:
    assert host.ssh is not None
    if not host.ssh.private_key_file.expanduser().is_file():
        raise Stop(f"{PROJECT}:host.ssh.private_key_file: there is no file {host.ssh.private_key_file}")
    ssh.make_folder()
    address, options = ssh.docker_host(host), ssh.options(host.ssh)
    try:
        api = _version(docker_over_ssh.reach(address, options))
    except docker_over_ssh.Unreachable as error:
        raise Stop(f"{PROJECT}:host.ssh: {error}") from None
    _refuse_old(api or (0, 0), f"the Docker engine of {host.ssh.address}")
    found = docker.DockerClient(base_url="unix:///not-used", version=".".join(map(str, MINIMUM_API)))
    found.api = docker_over_ssh.client(
        address, options, version=".".join(map(str, MINIMUM_API)), timeout=CLIENT_TIMEOUT_S
    )
    return found


def refuse_another_processor(engine: docker.DockerClient) -> None:
    """The registry-only engine compiles on this machine, so its images run only on machines like it."""
    try:
        there = engine.version()["Arch"]
    except DockerException as error:
        raise Stop(f"the Docker engine of the host does not answer: {error}") from None
    here = PROCESSORS.get(platform.machine(), platform.machine())
    if there != here:
        raise Stop(
            f"the registry-only engine builds for {here}, this machine's processor, but the host has {there}; run "
            "this on a machine like the host, or on the host itself"
        )


def _refuse_old(api: tuple[int, int], which: str) -> None:
    if api < MINIMUM_API:
        raise Stop(
            f"{which} speaks API {api[0]}.{api[1]}; at least {MINIMUM_API[0]}.{MINIMUM_API[1]} (engine "
            "20.10) is needed. Upgrade Docker, then run `make up` again"
        )


def _api() -> tuple[int, int] | None:
    if shutil.which("docker") is None:
        return None
    done = subprocess.run(
        ["docker", "version", "--format", "{{.Server.APIVersion}}"], capture_output=True, text=True, check=False
    )
    return _version(done.stdout) if done.returncode == 0 else None


def _version(text: str) -> tuple[int, int] | None:
    major, _, minor = text.strip().partition(".")
    return (int(major), int(minor)) if major.isdigit() and minor.isdigit() else None


def _start(console: Console) -> None:
    elsewhere = os.environ.get("DOCKER_HOST") not in (None, "", DEFAULT)
    if elsewhere or not debian.has("dockerd") or os.geteuid() != 0:
        return
    if Path("/run/systemd/system").is_dir():
        subprocess.run(["systemctl", "start", "docker"], check=False)
    else:
        console.print("starting the Docker engine")
        log = paths.cache() / "dockerd.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as output:
            subprocess.Popen(
                ["dockerd"],
                env={**os.environ, "PATH": debian.everywhere()},
                stdout=output,
                stderr=output,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline and _api() is None:
        time.sleep(0.5)
