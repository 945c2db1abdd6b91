"""`fortress status`: what runs of a stack, how it is, and who is blocked."""

from typing import Any

from docker import DockerClient
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from fortress.blocklist import KINDS, blocked, when
from fortress.errors import Stop
from fortress.in_gateway import gateways
from settings import StackSettings

TRANSIENT = "client"
"""Containers that ask one question and go: no part of the deployment."""


def read(there: DockerClient, config: StackSettings) -> dict[str, Any]:
    """Everything that `--json` prints."""
    containers = there.containers.list(all=True, filters={"label": [f"fortress.stack={config.stack}"]})
    rows = [_container(each.attrs) for each in containers if each.labels.get("fortress.component") != TRANSIENT]
    return {
        "stack": config.stack,
        "endpoint": config.url(),
        "tunnel_address": str(config.wireguard.server4) if config.wireguard else None,
        "tunnel_endpoint": config.url(str(config.wireguard.server4)) if config.wireguard else None,
        "containers": sorted(rows, key=lambda row: (row["component"], row["name"])),
        **_blocked(there, config.stack),
    }


def _container(attrs: dict[str, Any]) -> dict[str, str]:
    state = attrs["State"]
    return {
        "component": attrs["Config"]["Labels"].get("fortress.component", ""),
        "name": attrs["Name"].removeprefix("/"),
        "state": state["Status"],
        "health": state.get("Health", {}).get("Status", "none"),
        "since": state["StartedAt"].partition(".")[0],
    }


def _blocked(there: DockerClient, stack: str) -> dict[str, Any]:
    """`blocked` is null where nobody can say it; then `blocked_unknown` says why."""
    try:
        rows = {row for gateway in gateways(there, stack) for row in blocked(gateway)}
    except Stop as stop:
        return {"blocked": None, "blocked_unknown": str(stop)}
    ordered = sorted(rows, key=lambda row: (KINDS.index(row.kind), row.name, row.until))
    names = {"users": "user", "addresses": "address"}
    return {"blocked": [{names[row.kind]: row.name, "until": row.until or None, "by": row.by} for row in ordered]}


def show(console: Console, found: dict[str, Any]) -> None:
    console.print(f"[bold]{found['stack']}[/]  {found['endpoint']}  (in the tunnel: {found['tunnel_endpoint']})")
    containers = Table("container", "state", "health", "since (UTC)", box=None, pad_edge=False)
    for row in found["containers"]:
        colour = {"healthy": "green", "unhealthy": "red"}.get(row["health"], "yellow")
        state = row["state"] if row["state"] == "running" else f"[red]{row['state']}[/]"
        containers.add_row(row["component"], state, f"[{colour}]{row['health']}[/]", row["since"].replace("T", " "))
    console.print(containers if found["containers"] else "[yellow]nothing of it is on this host[/]")
    if found["blocked"] is None:
        console.print(f"[yellow]who is blocked is not known:[/] {escape(found['blocked_unknown'])}", highlight=False)
        return
    if not found["blocked"]:
        console.print("nobody is blocked")
        return
    table = Table("blocked", "until", "by", box=None, pad_edge=False)
    for row in found["blocked"]:
        table.add_row(row.get("user") or row["address"], when(row["until"]), row["by"])
    console.print(table)
