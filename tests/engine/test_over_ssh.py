"""A whole fortress on a host reached by SSH: the server is on loopback, the engine behind it is this machine's."""

import json
import os
import re
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console

from fortress import docker_engine
from images import Recipe, build
from models.tiny_gguf import tiny_gguf
from settings import HostSettings
from tests.deployment import Deployment, docker
from tests.sshd import Sshd, sshd


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Sshd]:
    with sshd(tmp_path / "sshd") as made:
        yield made


@pytest.fixture
def planned(server: Sshd) -> Iterator[Deployment]:
    """A stack that is written down but never deployed."""
    made = Deployment.fresh()
    made.config["host"] = server.settings()
    yield made
    made.clean_up()


def test_a_fortress_on_a_host_reached_by_ssh_answers_and_leaves_nothing(
    planned: Deployment, server: Sshd, tmp_path: Path
) -> None:
    file = tmp_path / "own.gguf"
    file.write_bytes(tiny_gguf())
    planned.config["models"] += [{"name": "own", "source": str(file)}]
    said = planned.up()
    assert "chunks; first after" in said, said[-2000:]
    containers = planned.containers()
    listed = docker("exec", containers["ollama"], "ollama", "ls")
    assert "own:latest" in listed, "a GGUF file of this machine did not arrive"
    assert server.logins() > 5, "the host was not reached by SSH"

    types = {each["type"] for each in json.loads(planned.pulumi("stack", "export"))["deployment"]["resources"]}
    assert "command:remote:Command" in types
    assert re.search(r"Resources:\s+\d+ unchanged\s+Duration", planned.up()), "a second up changed something"
    assert planned.containers() == containers

    for source in ("builtin", str(file)):
        planned.config["models"][-1]["source"] = source
        planned.pulumi_up()
        listed = docker("exec", containers["ollama"], "ollama", "ls")
        assert "own:latest" in listed, "a model went when its source changed"

    there = planned.config.pop("host")
    for move in ("up", "down"):
        planned.write()
        moved = " ".join(planned.fortress(move, check=False).split())
        assert planned.last_code == 1
        assert "a stack does not move" in moved
        assert planned.containers() == containers
    planned.config["host"] = there
    planned.write()
    planned.fortress("down")
    assert planned.left_over() == []


def test_a_host_with_another_key_is_refused_before_anything_is_made(planned: Deployment, server: Sshd) -> None:
    planned.config["host"] = server.settings(pinned="other_key")
    said = " ".join(planned.up(check=False).split())
    assert planned.last_code == 1
    assert "host.ssh: " in said
    assert "shows another host key than the pinned one; nothing was sent" in said
    assert "Traceback" not in said
    assert server.logins() == 0


def test_a_host_that_does_not_know_us_is_refused_before_anything_is_made(planned: Deployment, server: Sshd) -> None:
    planned.config["host"] = server.settings(key="other_key")
    said = " ".join(planned.up(check=False).split())
    assert planned.last_code == 1
    assert "does not accept the private key" in said
    assert planned.left_over() == []


def test_a_subnet_that_the_hosts_engine_uses_is_refused(planned: Deployment) -> None:
    taken = f"fortress-{planned.stack}-foreign"
    docker("network", "create", "--subnet", planned.config["network"]["base"].replace("/20", "/24"), taken)
    try:
        said = " ".join(planned.up(check=False).split())
    finally:
        docker("network", "rm", taken)
    assert planned.last_code == 1
    assert "which the Docker engine of 127.0.0.1 uses already" in said


def test_an_image_is_built_on_the_engine_of_the_host(server: Sshd, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM scratch\nCOPY large /\nLABEL made=there\n")
    (tmp_path / "large").write_bytes(os.urandom(20 * 1024 * 1024))
    files = {name: tmp_path / name for name in ("Dockerfile", "large")}
    recipe = Recipe(f"test-{secrets.token_hex(3)}", "Dockerfile", files, {}, {}, "")
    there = docker_engine.reach(Console(), HostSettings.model_validate(server.settings()))
    try:
        build._build(there, recipe, {}, lambda step: None)
        assert docker("inspect", "-f", "{{.Config.Labels.made}}", recipe.tag).strip() == "there"
        docker_engine.refuse_another_processor(there)
    finally:
        there.close()
        docker("rmi", recipe.tag, check=False)
    assert server.logins() == 1, "the requests did not share one connection"
