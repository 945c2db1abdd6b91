"""A model's pull that ends in its middle stands in nobody's way: not the next `up`'s, not `down`'s."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from settings import PROJECT, load
from tests.deployment import Client, Deployment, docker


@pytest.fixture
def pulling() -> Iterator[Deployment]:
    """A stack with a model that is pulled from an address of the pull's own network where nobody is."""
    made = Deployment.fresh()
    plan = load(made.stack, {f"{PROJECT}:{key}": value for key, value in made.config.items()}).plan
    made.config["models"] += [{"name": f"{plan.pull.cidr[9]}/library/never"}]
    yield made
    made.clean_up()


def pulls(deployment: Deployment) -> list[str]:
    labels = ["--filter", f"label=fortress.stack={deployment.stack}", "--filter", "label=fortress.component=model-pull"]
    return docker("ps", "-q", *labels).split()


def interrupt(deployment: Deployment) -> None:
    """Runs `up` until it pulls, and ends the shell there as a reboot of this machine or a lost connection does."""
    deployment.write()
    running = deployment.begun("up")
    try:
        Client.wait_until(lambda: pulls(deployment) or running.poll() is not None, "pull", 300)
        assert running.poll() is None, f"`up` ended before it pulled: {running.communicate()[0][-2000:]}"
        [container] = pulls(deployment)
        Client.wait_until(lambda: "ollama serve" in docker("top", container), "server of the pull")
        docker("exec", container, "sh", "-c", "kill -STOP -1")
        kill_what_names(f"fortress-{deployment.stack}-model-pull")
    finally:
        said, _ = running.communicate(timeout=300)
    assert running.returncode != 0, said[-2000:]
    assert pulls(deployment) == [container], "nothing was left, so what follows shows nothing"


def kill_what_names(word: str) -> None:
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if word.encode() in (process / "cmdline").read_bytes() and int(process.name) != os.getpid():
                os.kill(int(process.name), signal.SIGKILL)
        except (FileNotFoundError, ProcessLookupError):
            continue


def test_after_an_interrupted_pull_up_pulls_again_and_down_leaves_nothing(pulling: Deployment) -> None:
    interrupt(pulling)
    said = pulling.up(check=False)
    assert "pull model manifest" in said, f"it did not come as far as the pull again: {said[-3000:]}"
    assert "already exists" not in said
    assert pulls(pulling) == []

    interrupt(pulling)
    pulled = pulling.config["models"].pop()
    assert "chunks; first after" in pulling.up()
    assert pulls(pulling) == [], "the model's line went, and what its pull left stayed"

    pulling.config["models"] += [pulled]  # an address elsewhere may be refused at once, and the pull ends by itself
    interrupt(pulling)
    pulling.fortress("down")
    assert pulling.left_over() == []
