"""What would only fail in the middle of a deployment, asked before it: digests, ports and subnets of the host.

What the stack itself owns is never in its own way. Of a host reached by SSH only its engine is asked: its routes, and
ports of other programs there, are seen when the containers start.
"""

import errno
import ipaddress
import socket
from collections.abc import Iterable
from typing import Any

from docker import DockerClient
from docker.errors import DockerException
from requests.exceptions import RequestException

import images
from fortress import stack_file
from fortress.errors import Stop
from images import catalogue
from settings import PROJECT, Engine, StackSettings, WireguardSettings

LABEL = "fortress.stack"
Networks = list[ipaddress.IPv4Network]


def check(settings: StackSettings, engine: DockerClient) -> None:
    """Raise Stop with the line to change."""
    there = settings.host.ssh
    where = "this machine" if there is None else f"the Docker engine of {there.address}"
    try:
        networks: list[dict[str, Any]] = engine.api.networks()
        containers: list[dict[str, Any]] = engine.api.containers()
    except (DockerException, RequestException) as error:
        raise Stop(f"{where} does not answer: {error}") from None
    own = set(_subnets(network for network in networks if _is_ours(network, settings)))
    used = [network for network in _subnets(networks) if network not in own]
    if there is None:
        used += [network for network in stack_file.routes() if network.prefixlen > 0 and network not in own]
    # The tunnel's addresses live in the VpnNode alone: a route that appears later is in nobody's way.
    _refuse_overlap(settings, used, where, first=not own)
    _refuse_taken_port(settings, containers, where)


def refuse_unknown(settings: StackSettings, engine: DockerClient) -> None:
    """Refuse what stands there under this stack's name, where the state knows of nothing.

    It would be in the way of the containers and networks that come, or be taken over and made anew with other keys.
    """
    mine = {"label": [f"{LABEL}={settings.stack}"]}
    containers: list[dict[str, Any]] = engine.api.containers(all=True, filters=mine)
    networks: list[dict[str, Any]] = engine.api.networks(filters=mine)
    # The client of a question has a name of its own, and is in nobody's way.
    parts = [each for each in containers if each["Labels"].get("fortress.component") != "client"]
    there = {
        "docker rm -f": sorted(each["Names"][0].removeprefix("/") for each in parts),
        "docker network rm": sorted(each["Name"] for each in networks),
    }
    remove = " && ".join(" ".join([command, *names]) for command, names in there.items() if names)
    if not remove:
        return
    where = "this machine" if settings.host.ssh is None else settings.host.ssh.address
    raise Stop(
        f"a stack {settings.stack!r} that the state here does not know is on {where}: another account's, or one whose "
        "state is lost or elsewhere (PULUMI_BACKEND_URL, XDG_STATE_HOME). Where it is somebody's, take another name: "
        f"rename stacks/Pulumi.{settings.stack}.yaml, and say that name in `make up STACK=`. Where it is nobody's, "
        f"remove what is left of it there: `{remove}`. Its volumes stay, and are used again"
    )


def digests(settings: StackSettings) -> None:
    """A digest that a registry names while the stack comes up is nobody's choice: protected stacks refuse it.

    Asks no engine. Raises: Stop with the command to run.
    """
    known = catalogue.load()
    unresolved = known.unresolved(images.pulled_for(images.needed(settings)))
    if settings.engine is Engine.ONLINE and settings.protect and unresolved:
        missing = " and ".join(known.pulled[name].tagged for name in unresolved)
        raise Stop(
            f"stack {settings.stack!r} is protected, and images/{catalogue.FILE.name} has no digest for {missing} yet; "
            "run `bin/fortress images lock`, commit what it writes, then run this again"
        )


def _is_ours(found: dict[str, Any], settings: StackSettings) -> bool:
    return (found.get("Labels") or {}).get(LABEL) == settings.stack


def _subnets(networks: Iterable[dict[str, Any]]) -> Networks:
    subnets = [config.get("Subnet", ":") for each in networks for config in each["IPAM"].get("Config") or []]
    return [ipaddress.IPv4Network(subnet) for subnet in subnets if ":" not in subnet]


def _refuse_overlap(settings: StackSettings, used: Networks, where: str, *, first: bool) -> None:
    """first: whether nothing of the stack is there yet."""
    base, tunnel = settings.network.base, settings.wireguard
    wanted = [("network.base", base, lambda: stack_file.free_base([*used, *([tunnel.subnet4] if tunnel else [])]))]
    if tunnel is not None and first:
        wanted.append(("wireguard.subnet4", tunnel.subnet4, lambda: stack_file.free_subnet4([*used, base])))
    for taken in used:
        for key, network, free in wanted:
            if network.overlaps(taken):
                raise Stop(
                    f"{PROJECT}:{key} {network} overlaps {taken}, which {where} uses already; write another "
                    f"private range, for example {free()}"
                )


def _meets(published: str, own: WireguardSettings) -> bool:
    """Whether a port on that address is in the way of the tunnel's, which is published on IPv4 only."""
    anywhere, ours = ipaddress.IPv4Address(0), own.published_address
    return ":" not in published and (ours == anywhere or published in (str(anywhere), str(ours)))


def _refuse_taken_port(settings: StackSettings, containers: Iterable[dict[str, Any]], where: str) -> None:
    own = settings.wireguard
    if own is None:
        return
    owners = [
        _is_ours(container, settings)
        for container in containers
        for port in container.get("Ports") or []
        if port.get("PublicPort") == own.port and port["Type"] == "udp" and _meets(port.get("IP", ""), own)
    ]
    if any(owners):
        return
    taken = f"UDP port {own.port} is in use on {where}; write a free one as {PROJECT}:wireguard.port (and into"
    taken += " wireguard.endpoint)"
    if owners:
        raise Stop(taken)
    if settings.host.ssh is not None:
        return
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((str(own.published_address), own.port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise Stop(taken) from None
            if error.errno == errno.EADDRNOTAVAIL:
                raise Stop(
                    f"{PROJECT}:wireguard.published_address {own.published_address} is no address of this machine; "
                    "write one that `ip address` shows, or leave it out"
                ) from None
            # Anything else is this account's: a port below 1024, say, that only the engine may take.
