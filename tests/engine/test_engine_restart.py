"""After the engine was stopped, or the machine lost its power, everything comes back by itself."""

import json
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from images import NAMES, reference
from tests.deployment import Client, Deployment, deployed, docker
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


def _logs(deployment: Deployment) -> str:
    said: list[str] = []
    for part in ("vpn-node", "gateway", "ollama"):
        command = ["docker", "logs", "--timestamps", "--tail", "9", deployment.container(part)]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
        said += [f"{part}:", done.stdout]
    return "\n".join(said)


def _answers(client: Client) -> bool:
    """One try of a few seconds: a request that met a part which was not there yet must not use up the whole time."""
    body = json.dumps({"model": "tiny", "prompt": "hello", "stream": False, "options": {"num_predict": 4}})
    return client.curl("/api/generate", "--max-time", "6", "-d", body).status == 200


def back(deployment: Deployment, since: float) -> None:
    """A stream by a client that did not exist before: tunnel, relay, gateway, hop and model, all of them."""
    client = Client(deployment, "bob")
    try:
        left = BACK_WITHIN_S - (time.monotonic() - since)
        try:
            Client.wait_until(lambda: _answers(client), "answer after the engine came back", left)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{docker('ps', '-a')}\n{_logs(deployment)}") from None
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
    machine.crash()
    machine.start()
    back(elsewhere, time.monotonic())
    assert set(elsewhere.planned("--refresh")) == {"same"}
