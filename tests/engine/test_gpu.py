"""A fortress whose Ollama has a GPU, on an engine that believes to have NVIDIA's container toolkit.

The toolkit is a hook that the engine calls for each container with a GPU, before its first process. The stand-in puts
an `nvidia-smi` there, as the real one does, and notes for whom. That Ollama computes with it is not shown.
"""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from images import NAMES, WATCHERS, reference
from tests.deployment import Client, Deployment, deployed, docker
from tests.own_engine import ADDRESS, OwnEngine, own_engine
from tests.unit import test_gpu_watch as gpu
from tests.watched import Watched

HOOK = """\
#!/bin/sh
set -eu
home=$(dirname "$0")
bundle=$(sed -n 's/.*"bundle": *"\\([^"]*\\)".*/\\1/p')
root=$(sed -n 's/.*"root": *{"path": *"\\([^"]*\\)".*/\\1/p' "$bundle/config.json")
of() { grep -o "\\"$1=[^\\"]*" "$bundle/config.json" | cut -d = -f 2; }
sees=$(of NVIDIA_VISIBLE_DEVICES) may=$(of NVIDIA_DRIVER_CAPABILITIES)
printf '%s %s %s\\n' "$(basename "$bundle")" "$sees" "$may" >> "$home/asked"
cp "$home/nvidia-smi" "$root/usr/bin/nvidia-smi"
"""


class Machine:
    def __init__(self, engine: OwnEngine, toolkit: Path) -> None:
        self.engine, self.toolkit = engine, toolkit

    def asked(self) -> dict[str, tuple[str, ...]]:
        """Container -> the GPUs it sees, and what of the driver."""
        rows = [line.split(" ") for line in (self.toolkit / "asked").read_text().splitlines()]
        return {id_: (devices, capabilities) for id_, devices, capabilities in rows}


@pytest.fixture(scope="module")
def machine() -> Iterator[Machine]:
    with tempfile.TemporaryDirectory(prefix="fortress-") as folder, pytest.MonkeyPatch.context() as patch:
        home, toolkit = Path(folder) / "engine", Path(folder) / "toolkit"
        home.mkdir()
        toolkit.mkdir()
        hook = toolkit / "nvidia-container-runtime-hook"
        hook.write_text(HOOK)
        hook.chmod(0o755)
        driver = gpu.Watch(toolkit)
        driver.answers(gpu.RTX, gpu.A100)
        driver.driver.write_text(driver.driver.read_text().replace(f"{toolkit}/asked", "/dev/null"))
        patch.setenv("PATH", f"{toolkit}:{os.environ['PATH']}")
        with own_engine(home) as engine:
            yield Machine(engine, toolkit)


@pytest.fixture(scope="module")
def watched(machine: Machine) -> Iterator[Watched]:
    with pytest.MonkeyPatch.context() as patch:
        deployment = Deployment.fresh()
        machine.engine.load(*(reference(name, deployment.engine) for name in (*NAMES, *WATCHERS)))
        patch.setenv("DOCKER_HOST", f"unix://{machine.engine.socket}")
        deployment.config["host"] = {"docker_socket": str(machine.engine.socket)}
        deployment.config["wireguard"]["endpoint"] = f"{ADDRESS}:{deployment.config['wireguard']['port']}"
        deployment.config["ollama"]["gpus"] = "all"
        deployment.config["observability"] = "full"
        with deployed(deployment) as made:
            yield Watched(made)


def test_its_figures_come_to_prometheus(watched: Watched):
    def value(query: str) -> float | None:
        return next(iter(watched.prometheus(query).values()), None)

    Client.wait_until(lambda: value("fortress_gpu_up") == 1, "figures of the GPU", 90)
    assert value('fortress_gpu_used_ratio{gpu="0",name="NVIDIA GeForce RTX 4090"}') == 0.37
    assert value("sum(fortress_gpu_memory_total_bytes)") == (24564 + 81920) << 20


def test_only_ollama_and_what_watches_it_have_the_gpu(watched: Watched, machine: Machine):
    made = watched.deployment
    assert machine.asked() == {made.container("ollama"): ("all", ""), made.container("gpu"): ("all", "utility")}
    assert docker("inspect", "-f", "{{.HostConfig.NetworkMode}}", made.container("gpu")).strip() == "none"
    assert docker("exec", made.container("gpu"), "cat", "/proc/net/route").count("\n") == 1, "a way out"
    assert watched.health("gpu") == "healthy"


def test_an_unchanged_program_changes_nothing(watched: Watched):
    assert set(watched.deployment.planned()) == {"same"}
    assert set(watched.deployment.planned("--refresh")) == {"same"}
