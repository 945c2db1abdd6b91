"""What would only fail in the middle of a deployment, asked before it: digests, ports and subnets of this machine.

What the stack itself owns is never in its own way.
"""

import errno
import ipaddress
import json
import socket
import subprocess
from typing import Any

from fortress import stack_file
from fortress.errors import Stop
from images import catalogue
from settings import PROJECT, Engine, StackSettings


def check(settings: StackSettings) -> None:
    """Raise Stop with the line to change. Hosts reached by SSH are not asked: their engine answers itself."""
    _digests(settings)
    if settings.host.ssh is not None:
        return
    _subnets(settings)
    _port(settings)


def _digests(settings: StackSettings) -> None:
    """A digest that a registry names while the stack comes up is nobody's choice: protected stacks refuse it."""
    known = catalogue.load()
    if settings.engine is Engine.ONLINE and settings.protect and known.unresolved():
        missing = " and ".join(known.pulled[name].tagged for name in known.unresolved())
        raise Stop(
            f"stack {settings.stack!r} is protected, and images/{catalogue.FILE.name} has no digest for {missing} yet; "
            "run `bin/fortress images lock`, commit what it writes, then run this again"
        )


def _subnets(settings: StackSettings) -> None:
    own = _own_networks(settings.stack)
    wanted = [("network.base", settings.network.base)]
    if settings.wireguard is not None:
        wanted.append(("wireguard.subnet4", settings.wireguard.subnet4))
    for used in stack_file.networks_in_use():
        if used.prefixlen == 0 or used in own:
            continue
        for key, network in wanted:
            if network.overlaps(used):
                free = f", for example {stack_file.free_base(stack_file.networks_in_use())}" if "base" in key else ""
                raise Stop(
                    f"{PROJECT}:{key} {network} overlaps {used}, which this machine uses already; write another "
                    f"private range{free}"
                )


def _own_networks(stack: str) -> set[ipaddress.IPv4Network]:
    mine = ["--filter", f"label=fortress.stack={stack}"]
    ids = _docker("network", "ls", "-q", *mine).split()
    inspected: list[dict[str, Any]] = json.loads(_docker("network", "inspect", *ids)) if ids else []
    subnets = [config["Subnet"] for network in inspected for config in network["IPAM"].get("Config") or []]
    return {ipaddress.IPv4Network(subnet) for subnet in subnets if ":" not in subnet}


def _port(settings: StackSettings) -> None:
    own = settings.wireguard
    if own is None or f"{own.port}->" in _docker(
        *("ps", "--filter", f"label=fortress.stack={settings.stack}", "--format", "{{.Ports}}")
    ):
        return
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((str(own.published_address), own.port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise Stop(
                    f"UDP port {own.port} is in use on this machine; write a free one as {PROJECT}:wireguard.port (and "
                    "into wireguard.endpoint)"
                ) from None
            raise Stop(
                f"{PROJECT}:wireguard.published_address {own.published_address} is no address of this machine; write "
                "one that `ip address` shows, or leave it out"
            ) from None


def _docker(*arguments: str) -> str:
    return subprocess.run(["docker", *arguments], capture_output=True, text=True, check=False).stdout
