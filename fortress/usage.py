"""`fortress usage`: what each user has asked for and got, counted from the audit trail."""

from collections.abc import Iterable
from typing import Any

from docker import DockerClient
from rich.console import Console
from rich.table import Table

from fortress.blocklist import known
from fortress.in_gateway import gateways
from fortress.logs import ago, nobody
from fortress.trail import REQUESTS, Reader

UNPROVEN = ""
"""The principal of whoever proved nothing."""


def read(there: DockerClient, stack: str, user: str | None, since: str) -> dict[str, Any]:
    """Everything that `--json` prints: users with what they used, those who asked for nothing too."""
    found = gateways(there, stack)
    users = {name for gateway in found for name in known(gateway)["users"]}
    begins = [(gateway, ago(gateway, since)) for gateway in found]
    lines = (line for gateway, begin in begins for line in Reader(gateway, REQUESTS, begin).lines())
    counted = count(lines, users)
    if user is not None:
        if user not in counted["users"]:
            raise nobody(user, users)
        counted["users"] = {user: counted["users"][user]}
    return {"stack": stack, "since": f"{min(begin for _, begin in begins):%Y-%m-%dT%H:%M:%SZ}", **counted}


def count(lines: Iterable[dict[str, Any]], users: Iterable[str]) -> dict[str, Any]:
    """users: who is shown even without a line."""
    found = {name: _none() for name in users}
    lost = 0
    for line in lines:
        if line.get("event") == "audit-lost":
            lost += line["lines"]
        if "principal" not in line:
            continue
        row = found.setdefault(line["principal"], _none())
        row["requests"] += 1
        row["refused"] += line["verdict"] == "refused"
        row["tokens_in"] += line["tokens_in"]
        row["tokens_out"] += line["tokens_out"]
        row["last"] = max(row["last"] or "", line["time"])
        if line["model"]:
            row["models"][line["model"]] = row["models"].get(line["model"], 0) + 1
    return {"users": dict(sorted(found.items())), "lost_lines": lost}


def _none() -> dict[str, Any]:
    return {"requests": 0, "refused": 0, "tokens_in": 0, "tokens_out": 0, "models": {}, "last": None}


def show(console: Console, found: dict[str, Any]) -> None:
    table = Table(box=None, pad_edge=False)
    table.add_column("user")
    for heading in ("requests", "refused", "tokens in", "tokens out"):
        table.add_column(heading, justify="right")
    table.add_column("models")
    table.add_column("last (UTC)")
    for name, row in found["users"].items():
        models = sorted(row["models"], key=lambda model: (-row["models"][model], model))
        numbers = [f"{row[key]:,}" for key in ("requests", "refused", "tokens_in", "tokens_out")]
        last = "-" if row["last"] is None else row["last"][:16].replace("T", " ")
        table.add_row("[dim]nobody known[/]" if name == UNPROVEN else name, *numbers, ", ".join(models), last)
    console.print(f"[bold]{found['stack']}[/]  since {found['since'][:16].replace('T', ' ')} UTC", highlight=False)
    console.print(table)
    if found["lost_lines"]:
        console.print(f"[red]{found['lost_lines']} lines are missing: the audit trail could not be written[/]")
