"""One engine for Pulumi, the command line and the images: which one it is, and how it is written down."""

import io
import os
import subprocess
from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError
from rich.console import Console

from fortress import debian, docker_engine, ssh, stack_file
from fortress.errors import Stop
from settings import PROJECT, HostSettings, SshSettings, load
from settings.stack import DOCKER_SOCKET

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGt1bm5pbmdfZXhhbXBsZV9vbmx5X25vdF9hX2tleQ"
HOST = {"address": "box.example.com", "user": "deploy", "port": 2222, "host_key": KEY}


def host(**changes: object) -> HostSettings:
    return HostSettings.model_validate({"ssh": HOST | changes})


def there(**changes: object) -> SshSettings:
    return SshSettings.model_validate(HOST | changes)


@pytest.fixture
def fake_docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A `docker` that prints what the file `says` holds."""
    (tmp_path / "docker").write_text(f"#!/bin/sh\ncat {tmp_path}/says\n")
    (tmp_path / "docker").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    return tmp_path / "says"


def test_an_engines_address_says_user_port_and_any_other_socket():
    assert ssh.docker_host(HostSettings()) == f"unix://{DOCKER_SOCKET}"
    assert ssh.docker_host(HostSettings(docker_socket="/run/user/1000/docker.sock")) == (
        "unix:///run/user/1000/docker.sock"
    )
    assert ssh.docker_host(host()) == "ssh://deploy@box.example.com:2222"
    assert ssh.docker_host(host(address="fd00::1")) == "ssh://deploy@[fd00::1]:2222"
    rootless = HostSettings.model_validate({"ssh": HOST, "docker_socket": "/run/user/1000/docker.sock"})
    assert ssh.docker_host(rootless) == "ssh://deploy@box.example.com:2222/run/user/1000/docker.sock"


def test_ssh_itself_understands_the_options_and_trusts_only_the_pinned_key():
    shown = subprocess.run(
        ["ssh", *ssh.options(there()), "-G", "box.example.com"], capture_output=True, text=True, check=True
    ).stdout
    said = dict(line.split(" ", 1) for line in shown.splitlines() if " " in line)
    assert said["stricthostkeychecking"] in ("true", "yes")
    assert said["batchmode"] == "yes"
    assert said["knownhostscommand"].endswith(KEY)
    assert said["userknownhostsfile"] == said["globalknownhostsfile"] == "/dev/null"
    assert said["identitiesonly"] == "yes"
    # The shared connection of a host that is gone ends by itself, and no command waits for it for ever.
    assert (said["serveraliveinterval"], said["serveralivecountmax"]) == ("15", "3")


@pytest.mark.parametrize(
    "change",
    [{"host_key": KEY.replace("AAAAC3", "AAAAC4")}, {"private_key_file": "/k"}, {"user": "eve"}, {"port": 22}],
    ids=lambda change: next(iter(change)),
)
def test_another_trust_never_rides_on_a_shared_connection(change: dict[str, object]):
    def path(to: SshSettings) -> str:
        return next(word for word in ssh.options(to) if word.startswith("ControlPath="))

    assert path(there()) == path(there())
    assert path(there()) != path(there(**change))


@pytest.mark.parametrize("path", ["id_ed25519", "~/my keys/id", "/k%h", "/k\n", "~root/id"])
def test_a_private_key_path_that_ssh_would_read_differently_is_refused(path: str):
    with pytest.raises(ValidationError, match="begins with / or ~/"):
        there(private_key_file=path)


def test_a_line_for_the_host_stays_one_line_of_shell():
    line = ssh.shell(there(), "echo 'a b' \"$HOME\"\n")
    words = subprocess.run(
        ["sh", "-c", f'ssh() {{ for word; do :; done; printf %s "$word"; }}; {line}'],
        capture_output=True,
        text=True,
        check=True,
    )
    assert words.stdout == "echo 'a b' \"$HOME\"\n"


def test_what_the_stack_file_says_goes_to_every_child(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("DOCKER_HOST", "tcp://elsewhere:2375")
    said = io.StringIO()
    docker_engine.use(Console(file=said, width=200), HostSettings())
    assert os.environ["DOCKER_HOST"] == f"unix://{DOCKER_SOCKET}"
    assert "DOCKER_HOST is tcp://elsewhere:2375, but this stack's containers run on" in said.getvalue()
    said = io.StringIO()
    docker_engine.use(Console(file=said), HostSettings())
    assert said.getvalue() == ""


@pytest.mark.parametrize(
    ("says", "expected"),
    [
        ("unix:///run/user/1000/docker.sock", "/run/user/1000/docker.sock"),
        ("unix:///var/run/docker.sock", DOCKER_SOCKET),
        ("unix:///run/docker.sock", DOCKER_SOCKET),
        ("", DOCKER_SOCKET),
    ],
)
def test_a_first_stack_file_names_an_engine_with_a_socket_of_its_own(
    says: str, expected: str, fake_docker: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    fake_docker.write_text(says)
    assert docker_engine.socket() == expected
    monkeypatch.setattr(stack_file, "networks_in_use", lambda: [])
    file = tmp_path / "Pulumi.dev.yaml"
    stack_file.make(file, engine="registry-only", docker_socket=expected)
    config = yaml.safe_load(file.read_text())["config"]
    assert (f"{PROJECT}:host" in config) == (expected != DOCKER_SOCKET)
    first = load("dev", config)
    assert first.host.docker_socket == expected
    assert (first.browser_users, first.login) == ((stack_file.user_name(),), None), "the page is for who ran `make up`"


def test_an_engine_that_is_neither_here_nor_behind_ssh_is_refused(fake_docker: Path):
    fake_docker.write_text("tcp://elsewhere:2375")
    with pytest.raises(Stop, match="tcp://elsewhere:2375 here; the fortress runs on a socket of this machine"):
        docker_engine.socket()


def test_an_engine_elsewhere_is_never_started_here(monkeypatch: pytest.MonkeyPatch, fake_docker: Path):
    fake_docker.write_text("")
    monkeypatch.setenv("DOCKER_HOST", "unix:///nonexistent/docker.sock")
    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: pytest.fail("an engine was started"))
    docker_engine._start(Console())


@pytest.mark.parametrize(
    ("there", "says"),
    [
        (["docker", "dockerd"], "no Docker engine answers. Start it .*group `docker`"),
        (["docker"], "the fortress needs dockerd; install that"),
        (["dockerd"], "the fortress needs docker; install that"),
        ([], "the fortress needs docker, dockerd; install that"),
    ],
)
def test_what_is_there_and_only_stopped_or_closed_is_not_called_missing(
    there: list[str], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Where Debian has daemons is not on a normal account's PATH."""
    folders = {"docker": tmp_path / "bin", "dockerd": tmp_path / "sbin"}
    for folder in folders.values():
        folder.mkdir()
    for command in there:
        (folders[command] / command).write_text("#!/bin/sh\nexit 1\n")
        (folders[command] / command).chmod(0o755)
    monkeypatch.setenv("PATH", str(folders["docker"]))
    monkeypatch.setattr(debian, "DAEMONS", str(folders["dockerd"]))
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(Stop, match=says):
        docker_engine.ensure(Console(quiet=True))


def test_a_missing_private_key_file_is_named():
    with pytest.raises(Stop, match=r"host\.ssh\.private_key_file: there is no file /nonexistent/key"):
        docker_engine.reach(Console(), host(private_key_file="/nonexistent/key"))
