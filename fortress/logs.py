"""`fortress logs`: the audit trail as it is written, one line for each request."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from docker import DockerClient
from docker.models.containers import Container
from rich.console import Console
from rich.text import Text

from fortress.blocklist import known, lasting
from fortress.errors import Stop
from fortress.in_gateway import clock, gateways
from fortress.trail import REQUESTS, Reader

VERDICTS = {
    "allowed": "green",
    "refused": "yellow",
    "failed": "red",
    "cut": "magenta",
}
"""Each with its colour."""
SAME = {"denied": "refused"}
WAIT_S = 20


def read(
    there: DockerClient, stack: str, *, user: str | None, verdict: str | None, since: str, follow: bool
) -> Iterator[dict[str, Any]]:
    """Lines of all gateways of the stack; with `follow` without end."""
    wanted = SAME.get(verdict, verdict) if verdict is not None else None
    if wanted is not None and wanted not in VERDICTS:
        raise Stop(f"{verdict!r} is no verdict; one of {', '.join([*VERDICTS, *SAME])}")
    found = gateways(there, stack)
    users = {name for gateway in found for name in known(gateway)["users"]}
    readers = [Reader(gateway, REQUESTS, ago(gateway, since)) for gateway in found]
    if follow and user is not None and user not in users:
        raise nobody(user, users)
    seen, wait_s = False, 0
    while True:
        for reader in readers:
            for line in reader.lines(wait_s):
                if matches(line, user, wanted):
                    seen = True
                    yield line
        if not follow:
            break
        wait_s = WAIT_S if len(readers) == 1 else 1
    if not seen and user is not None and user not in users:
        raise nobody(user, users)


def ago(gateway: Container, duration: str) -> datetime:
    """The time so long ago, by the gateway's own clock."""
    seconds = lasting(duration, "which is how far to look back")
    return datetime.fromtimestamp(clock(gateway) - seconds, UTC)


def nobody(user: str, users: set[str]) -> Stop:
    """The refusal of a name that neither the deployment nor a line knows."""
    return Stop(
        f"{user!r} is no user of this deployment, and no line names it; known users: {', '.join(sorted(users))}"
    )


def matches(line: dict[str, Any], user: str | None, verdict: str | None) -> bool:
    return (user is None or line.get("principal") == user) and (verdict is None or line.get("verdict") == verdict)


def show(console: Console, line: dict[str, Any]) -> None:
    """One line for a person: when, who, what, and how it ended."""
    console.print(shown(line), highlight=False, soft_wrap=True)


def shown(line: dict[str, Any]) -> Text:
    text = Text(f"{line['time'][:19].replace('T', ' ')}  ", style="default")
    if "duration_s" not in line:  # lost lines, or lines of an earlier version
        return text.append(" ".join(f"{key}={value}" for key, value in line.items() if key != "time"), style="red")
    verdict = str(line["verdict"])
    who = line["principal"] or "?"
    device = f"/{line['device']}" if line["device"] else ""
    text.append(f"{who + device:<20} {line['address']:<15}  ")
    text.append(f"{verdict:<8}", style=VERDICTS.get(verdict, ""))
    text.append(f" {line['status']:>3}  {line['method']} {line['route']}")
    if line["model"]:
        text.append(f"  {line['model']}")
    if line["tokens_in"] or line["tokens_out"]:
        text.append(f"  {line['tokens_in']} in, {line['tokens_out']} out")
    text.append(f"  {line['duration_s']:.2f} s")
    ending = " ".join(word for word in (line["reason"], "" if line["completion"] == "finished" else "cut") if word)
    return text.append(f"  {ending}" if ending else "")


def as_json(line: dict[str, Any]) -> str:
    return json.dumps(line, separators=(",", ":"))
