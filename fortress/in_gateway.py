"""The running gateways of a stack, asked by one-shot commands in their containers, wherever their engine is."""

import os
import pwd
from collections.abc import Sequence

from docker import DockerClient
from docker.errors import APIError
from docker.models.containers import Container

from fortress.errors import Stop

TRIES = 3
"""A busy engine loses what a short command said, now and then."""


def gateways(there: DockerClient, stack: str) -> list[Container]:
    """The running gateways of a stack; two fortresses in one program have two."""
    found = running(there, stack, "gateway")
    if not found:
        raise Stop(f"no gateway of stack {stack!r} is running; `make up STACK={stack}` starts it")
    return found


def running(there: DockerClient, stack: str, component: str) -> list[Container]:
    return there.containers.list(filters={"label": _labels(stack, component), "status": "running"})


def all_run(there: DockerClient, stack: str, component: str) -> bool:
    """Is the component there, and does each of its containers run?"""
    found = there.containers.list(all=True, filters={"label": _labels(stack, component)})
    return bool(found) and all(each.status == "running" for each in found)


def _labels(stack: str, component: str) -> list[str]:
    return [f"fortress.stack={stack}", f"fortress.component={component}"]


def operator() -> str:
    """The login name of whoever runs this, also behind sudo."""
    return os.environ.get("SUDO_USER") or pwd.getpwuid(os.getuid()).pw_name


def clock(gateway: Container) -> int:
    """The time where the list is read: the host's clock may differ from this machine's."""
    for _ in range(TRIES):
        said = run(gateway, "date", "+%s").strip()
        if said.isdecimal():
            return int(said)
    raise Stop("the gateway's container does not say what time it is; `fortress status` says how it is")


def run(gateway: Container, *words: str) -> str:
    code, said = execute(gateway, words)
    if code != 0:
        raise Stop(f"`{words[0]}` in the gateway's container failed: {said.strip()}")
    return said


def execute(container: Container, words: Sequence[str]) -> tuple[int, str]:
    """Returns: exit code, and all that was printed."""
    try:
        done = container.exec_run(list(words))
    except APIError as error:
        raise Stop(f"the container {container.name} cannot be asked: {error.explanation or error}") from None
    assert isinstance(done.output, bytes), "no stream was asked for"
    return done.exit_code or 0, done.output.decode(errors="replace")
