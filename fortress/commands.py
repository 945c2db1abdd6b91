"""The trail of commands: a line on the audit volume for each `fortress` command that changed something.

It says who did what, and never a secret. Where it cannot be written, that is said, and the command stays done.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from docker.models.containers import Container
from rich.console import Console
from rich.markup import escape

from fortress import paths, up
from fortress.errors import Stop
from fortress.in_gateway import clock, execute, gateways, operator
from fortress.trail import COMMANDS
from settings import ConfigRefused

WRITE = f"printf '%s\\n' \"$1\" | write-down {COMMANDS.folder} {COMMANDS.stem}"


@contextmanager
def recorded(console: Console, stack: str, command: str, about: str, *, last: bool = False) -> Iterator[None]:
    """Write down what becomes of the block; a config that is refused has changed nothing.

    last: the trail goes with what the block does, so that it began is written first, and that it is done nowhere.
    """
    if last:
        _tell(console, stack, command, about, "begun")
    try:
        yield
    except ConfigRefused:
        raise
    except BaseException:
        _tell(console, stack, command, about, "failed", quiet=last)
        raise
    if not last:
        _tell(console, stack, command, about, "done")


def _tell(console: Console, stack: str, command: str, about: str, result: str, *, quiet: bool = False) -> None:
    if not paths.stack_file(stack).exists():
        return
    try:
        if result == "failed" and not up.is_reachable(stack):
            return
        with up.reached(console, stack) as (_, there):
            troubles = [write(each, command, about, result) for each in gateways(there, stack)]
    except (Stop, ConfigRefused) as stop:
        troubles = [str(stop)]
    for trouble in filter(None, () if quiet else troubles):
        console.print(f"[yellow]this command is not in the trail:[/] {escape(trouble)}", highlight=False)


def write(gateway: Container, command: str, about: str, result: str = "done", **more: str) -> str | None:
    """Returns: why it could not be written, or None."""
    try:
        code, said = execute(gateway, ("sh", "-c", WRITE, "sh", line(clock(gateway), command, about, result, **more)))
    except Stop as stop:
        return str(stop)
    return (said.strip() or f"{COMMANDS.folder} is full or not writable") if code else None


def line(now: int, command: str, about: str, result: str, **more: str) -> str:
    """now: seconds since 1970, by the gateway's clock. more: what only one command knows, as `until` of a block."""
    fields = {"command": command, "about": about, "by": operator(), "result": result, **more}
    return json.dumps({"time": stamp(now), "event": "command", **fields}, separators=(",", ":"))


def stamp(now: int) -> str:
    return f"{datetime.fromtimestamp(now, UTC):%Y-%m-%dT%H:%M:%S}.000Z"
