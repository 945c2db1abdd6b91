"""`fortress block` and `unblock`: a list on the gateway's state volume, which the gateway reads twice a second.

`up` never writes it, so a block outlives every deployment. It is changed by a one-shot command in the gateway's own
container, over whatever way leads to its engine, and each change is a line of the trail of commands.
"""

import ipaddress
import json
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from docker import DockerClient
from docker.models.containers import Container

from fortress import commands
from fortress.errors import Stop
from fortress.in_gateway import clock, execute, gateways, operator, run, running

LIST = "/var/lib/gateway/blocked.json"
CHANGED_MEANWHILE = 75
TRIES = 5
HEEDED_AFTER_S = 1
"""By then the gateway has ended what streams, and its audit line says why."""
SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
KINDS = ("users", "addresses")
NOBODY = '{"v": 1, "users": {}, "addresses": {}}'
READ = f"if [ -e {LIST} ]; then cat {LIST}; else echo '{NOBODY}'; fi"
# The rename is what counts.
WRITE = f"""\
set -eu; umask 077; list={LIST}
exec 9> "$list.lock"; flock 9
[ "$({READ})" = "$1" ] || exit {CHANGED_MEANWHILE}
printf '%s\\n' "$2" > "$list.new"; sync -d "$list.new"
mv "$list.new" "$list"
"""


@dataclass(frozen=True)
class Blocked:
    """One row of the list."""

    kind: str
    """`users` or `addresses`."""
    name: str
    until: int
    """Seconds since 1970; 0: for good."""
    by: str


@dataclass(frozen=True)
class Target:
    """Whom a word means: a user, or an address with the other ones of the same device."""

    kind: str
    names: tuple[str, ...]
    device: str = ""

    def __str__(self) -> str:
        return " and ".join(self.names) + (f" ({self.device})" if self.device else "")


def block(there: DockerClient, stack: str, word: str, duration: str | None) -> list[str]:
    """Returns: a sentence for each gateway of the stack."""
    seconds = 0 if duration is None else lasting(duration)
    nodes = running(there, stack, "vpn-node")
    return [_block(gateway, nodes, word, seconds) for gateway in gateways(there, stack)]


def _block(gateway: Container, nodes: Sequence[Container], word: str, seconds: int) -> str:
    principals = known(gateway)
    target, now = meant(word, principals), clock(gateway)
    until = now + seconds if seconds else 0
    rows = [Blocked(target.kind, name, until, operator()) for name in target.names]
    _change(gateway, lambda before: [*_without(before, target), *rows])
    trouble = commands.write(gateway, "block", str(target), until=commands.stamp(until) if until else "")
    blocked = f"{target} is blocked {f'until {when(until)}' if until else when(until)}"
    left = _cut(nodes, places(target, principals))
    return _with(trouble, f"{blocked}; {f'what is silent goes on: {left}' if left else 'open streams are cut'}")


def _cut(nodes: Sequence[Container], addresses: Sequence[str]) -> str:
    """The gateway ends a stream at its next chunk; the relay ends what is silent. Returns: what went wrong, or ""."""
    if not addresses or not nodes:
        return ""
    time.sleep(HEEDED_AFTER_S)
    return "; ".join(filter(None, (_cut_at(node, addresses) for node in nodes)))


def _cut_at(node: Container, addresses: Sequence[str]) -> str:
    try:
        code, said = execute(node, ("vpn-node", "cut", *addresses))
    except Stop as stop:  # the block itself is in force
        return str(stop)
    return said.strip() if code != 0 else ""


def unblock(there: DockerClient, stack: str, word: str) -> list[str]:
    return [_unblock(gateway, word) for gateway in gateways(there, stack)]


def _unblock(gateway: Container, word: str) -> str:
    rows = blocked(gateway)
    # Also a user whose line is gone.
    listed = any(row.kind == "users" and row.name == word for row in rows)
    target = Target("users", (word,)) if listed else meant(word, known(gateway))
    if _without(rows, target) == rows:
        return f"{target} was not blocked"
    _change(gateway, lambda before: _without(before, target))
    return _with(commands.write(gateway, "unblock", str(target)), f"{target} is not blocked any more")


def unblock_all(there: DockerClient, stack: str) -> list[str]:
    """Also where the list cannot be read: this replaces it."""
    return [_unblock_all(gateway) for gateway in gateways(there, stack)]


def _unblock_all(gateway: Container) -> str:
    _change(gateway, None)
    return _with(commands.write(gateway, "unblock", "everybody"), "nobody is blocked any more")


def _with(trouble: str | None, sentence: str) -> str:
    return f"{sentence}, but this is not in the trail: {trouble}" if trouble else sentence


def blocked(gateway: Container) -> list[Blocked]:
    """Who is blocked at this moment, by the gateway's own clock."""
    return parse(run(gateway, "sh", "-c", READ), clock(gateway))


def lasting(text: str, otherwise: str = "or leave --for out to block for good") -> int:
    """Seconds of a duration like 30s, 10m, 1h or 7d. otherwise: what else may be written, for the refusal."""
    matched = re.fullmatch(r"([1-9][0-9]{0,4})([smhd])", text)
    if matched is None:
        raise Stop(f"{text!r} is no duration; write it like 30s, 10m, 1h or 7d, {otherwise}")
    return int(matched[1]) * SECONDS[matched[2]]


def known(gateway: Container) -> dict[str, Any]:
    """The principals that this gateway works with, whatever the stack file says by now."""
    text = run(gateway, "cat", "/config/current/principals.js")
    return dict(json.loads(text.partition("export default ")[2].strip().removesuffix(";")))


def meant(word: str, principals: Mapping[str, Any]) -> Target:
    """Whom a word means. A user's name comes first: it may look like an address."""
    if word in principals["users"]:
        return Target("users", (word,))
    address = _canonical(word)
    if address is None:
        users = ", ".join(sorted(principals["users"]))
        raise Stop(f"{word!r} is neither an address nor a user of this deployment; known users: {users}")
    rows = {place.partition("|")[2]: (row["user"], row["device"]) for place, row in principals["addresses"].items()}
    if address not in rows:
        return Target("addresses", (address,))
    # Who is shut out at one address of a device would come in again at the other.
    same = tuple(sorted(place for place, owner in rows.items() if owner == rows[address]))
    return Target("addresses", same, "/".join(rows[address]))


def places(target: Target, principals: Mapping[str, Any]) -> tuple[str, ...]:
    """The tunnel addresses of whom a target means."""
    if target.kind == "addresses":
        return target.names
    rows = principals["addresses"].items()
    return tuple(sorted(place.partition("|")[2] for place, row in rows if row["user"] in target.names))


def parse(text: str, now: int) -> list[Blocked]:
    """The rows of the list that still hold. Raises: Stop where it is no list."""
    try:
        whole = json.loads(text)
        rows = [
            Blocked(kind, name, int(row["until"]), str(row["by"]))
            for kind in KINDS
            for name, row in sorted(whole[kind].items())
        ]
        if whole["v"] != 1 or any(row.until < 0 for row in rows):
            raise ValueError("no list of version 1")
        return [row for row in rows if row.until == 0 or row.until > now]
    except (ValueError, TypeError, KeyError, AttributeError):
        raise Stop(
            f"the list of who is blocked ({LIST} in the gateway) cannot be read; the gateway goes on with the one "
            "before. `fortress unblock --all` writes an empty one; then block again whom it should hold"
        ) from None


def written(rows: Sequence[Blocked]) -> str:
    lists = {kind: {row.name: {"until": row.until, "by": row.by} for row in rows if row.kind == kind} for kind in KINDS}
    return json.dumps({"v": 1, **lists})


def when(until: int | None) -> str:
    return f"{datetime.fromtimestamp(until, UTC):%Y-%m-%d %H:%M:%S} UTC" if until else "for good"


def _without(rows: Sequence[Blocked], target: Target) -> list[Blocked]:
    return [row for row in rows if row.kind != target.kind or row.name not in target.names]


def _change(gateway: Container, change: Callable[[list[Blocked]], list[Blocked]] | None) -> None:
    """Write the list anew. change: None for nobody at all, whatever the list is now."""
    for _ in range(TRIES):
        before = run(gateway, "sh", "-c", READ).rstrip("\n")
        after = written(change(parse(before, clock(gateway))) if change else [])
        code, said = execute(gateway, ("sh", "-c", WRITE, "sh", before, after))
        if code == 0:
            return
        if code != CHANGED_MEANWHILE:
            raise Stop(f"the list of who is blocked could not be written: {said.strip()}")
    raise Stop("somebody else changes the list of who is blocked all the time; run this again")


def _canonical(word: str) -> str | None:
    """An address as nginx writes it, or None."""
    try:
        address = ipaddress.ip_address(word.strip("[]"))
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return None if "%" in word else str(mapped or address)
