"""After the engine was stopped, or the machine lost its power, everything comes back by itself."""

import json
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from images import NAMES, reference
from tests.deployment import Client, Deployment, deployed
from tests.own_engine import ADDRESS, OwnEngine, own_engine

BACK_WITHIN_S = 30


@pytest.fixture(scope="module")
def machine() -> Iterator[OwnEngine]:
    with tempfile.TemporaryDirectory(prefix="fortress-") as folder:
        home = Path(folder) / "engine"
        home.mkdir()
        with own_engine(home) as engine:
            yield engine


@pytest.fixture(scope="module")
def elsewhere(machine: OwnEngine) -> Iterator[Deployment]:
    """A fortress on that engine."""
    with pytest.MonkeyPatch.context() as patch:
        deployment = Deployment.fresh()
        machine.load(*(reference(name, deployment.engine) for name in NAMES))
        patch.setenv("DOCKER_HOST", f"unix://{machine.socket}")
        deployment.config["host"] = {"docker_socket": str(machine.socket)}
        deployment.config["wireguard"]["endpoint"] = f"{ADDRESS}:{deployment.config['wireguard']['port']}"
        with deployed(deployment):
            yield deployment


def _said(deployment: Deployment, client: Client) -> str:
    """What helps to find out which part did not come back."""
    vpn_node, gateway = deployment.container("vpn-node"), deployment.container("gateway")
    commands = [
        ["ps", "-a"],
        *(["logs", "--timestamps", "--tail", "9", deployment.container(part)] for part in ("vpn-node", "gateway")),
        ["logs", "--timestamps", "--tail", "9", deployment.container("ollama")],
        ["exec", vpn_node, "wg", "show", "all", "latest-handshakes"],
        ["exec", client.id, "wg", "show", "all", "transfer"],
        ["exec", gateway, "tail", "-n", "5", "/var/log/gateway/audit.json"],
    ]
    said: list[str] = []
    for command in commands:
        done = subprocess.run(
            ["docker", *command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
        )
        said += [" ".join(command), done.stdout]
    return "\n".join(said)


def _answers(client: Client, tries: list[str]) -> bool:
    """One try of a few seconds: a request that met a part which was not there yet must not use up the whole time."""
    body = json.dumps({"model": "tiny", "prompt": "hello", "stream": False, "options": {"num_predict": 4}})
    reply = client.curl("/api/generate", "--max-time", "6", "-d", body)
    tries.append(f"{reply.status} {reply.body[:200]}")
    return reply.status == 200


def back(deployment: Deployment, since: float) -> None:
    """A stream by a client that did not exist before: tunnel, relay, gateway, hop and model, all of them."""
    client, tries = Client(deployment, "bob"), []
    try:
        left = BACK_WITHIN_S - (time.monotonic() - since)
        try:
            Client.wait_until(lambda: _answers(client, tries), "answer after the engine came back", left)
        except AssertionError as error:
            raise AssertionError("\n".join([str(error), *tries[-9:], _said(deployment, client)])) from None
        with client.stream() as stream:
            assert stream.flows()
    finally:
        client.close()


def test_everything_comes_back_after_the_engine_was_restarted_three_times(machine: OwnEngine, elsewhere: Deployment):
    before = elsewhere.containers()
    back(elsewhere, time.monotonic())
    for _ in range(3):
        machine.stop()
        machine.start()
        back(elsewhere, time.monotonic())
    assert elsewhere.containers() == before, "somebody ran `up`"


def test_everything_comes_back_after_the_power_failed(machine: OwnEngine, elsewhere: Deployment):
    client = Client(elsewhere, "bob")
    with client.stream() as stream:
        assert stream.flows()
        machine.crash()
    machine.start()
    back(elsewhere, time.monotonic())
    assert set(elsewhere.planned("--refresh")) == {"same"}
