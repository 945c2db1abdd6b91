"""A run that was killed between a container's making and the note of it: Docker's own plugin adopts nothing."""

import secrets
from collections.abc import Iterator
from typing import Any

import pytest
from docker import from_env

from fortress import engine
from fortress.deployed import CONTAINER, NETWORK, remove_half_made
from images import reference
from tests.deployment import docker, free_subnets


class Stack:
    """What stands on the engine under a stack's labels, and a state that knows of some of it."""

    def __init__(self) -> None:
        self.name = f"test-{secrets.token_hex(3)}"
        self.image = reference("gateway", engine.choose())
        self.state: dict[str, Any] = {"resources": [{"type": "pulumi:pulumi:Stack"}], "pending_operations": []}

    def labels(self, part: str, stack: str | None = None) -> dict[str, str]:
        return {"fortress.stack": stack or self.name, "fortress.component": part}

    def make(self, kind: str, part: str, labels: dict[str, str] | None = None) -> str:
        words = [word for key, value in (labels or {}).items() for word in ("--label", f"{key}={value}")]
        name = f"fortress-{self.name}-{part}"
        if kind == CONTAINER:
            run = ("run", "-d", "--network", "none", "--entrypoint", "sleep", "--name", name)
            return docker(*run, *words, self.image, "1000").strip()
        return docker("network", "create", "--subnet", str(next(free_subnets())), *words, name).strip()

    def pending(self, kind: str, part: str, what: str = "creating") -> None:
        labels = [{"label": key, "value": value} for key, value in self.labels(part).items()]
        inputs = {"name": f"fortress-{self.name}-{part}", "labels": labels}
        self.state["pending_operations"].append({"type": what, "resource": {"type": kind, "inputs": inputs}})

    def there(self) -> set[str]:
        named = ["--no-trunc", "-q", "--filter", f"name=fortress-{self.name}-"]
        return {*docker("ps", "-a", *named).split(), *docker("network", "ls", *named).split()}

    def recover(self) -> None:
        there = from_env()
        try:
            remove_half_made(self.state, there)
        finally:
            there.close()

    def clean_up(self) -> None:
        named = ["-q", "--filter", f"name=fortress-{self.name}-"]
        for id_ in docker("ps", "-a", *named).split():
            docker("rm", "-f", id_)
        for id_ in docker("network", "ls", *named).split():
            docker("network", "rm", id_)


@pytest.fixture
def stack() -> Iterator[Stack]:
    made = Stack()
    yield made
    made.clean_up()


def test_what_was_being_made_and_no_state_knows_goes(stack: Stack) -> None:
    for kind, part in ((CONTAINER, "gateway"), (NETWORK, "wan")):
        stack.make(kind, part, stack.labels(part))
        stack.pending(kind, part)
    stack.pending(CONTAINER, "never-made")
    stack.state["pending_operations"].append({"type": "creating", "resource": {"type": "x", "inputs": {}}})
    assert len(stack.there()) == 2
    stack.recover()
    assert stack.there() == set()


@pytest.mark.parametrize("kind", [CONTAINER, NETWORK])
def test_all_else_stays(kind: str, stack: Stack) -> None:
    known = stack.make(kind, "known", stack.labels("known"))
    stack.state["resources"].append({"type": kind, "id": known})
    for part, labels in (
        ("foreign", None),
        ("anothers", stack.labels("anothers", "another")),
        ("other-part", stack.labels("gateway")),
        ("going", stack.labels("going")),
    ):
        stack.make(kind, part, labels)
    for part in ("known", "foreign", "anothers", "other-part", "gateway"):
        stack.pending(kind, part)
    stack.pending(kind, "going", "deleting")
    before = stack.there()
    assert len(before) == 5
    stack.recover()
    assert stack.there() == before
