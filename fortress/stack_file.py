"""`stacks/Pulumi.dev.yaml`: what `make up` finds out about this machine, written down once."""

import getpass
import ipaddress
import json
import os
import re
import socket
import subprocess
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

import yaml

from fortress.errors import Stop
from settings import PROJECT, refuse_plain
from settings.network import BASE_PREFIX
from settings.secrets import ENCRYPTED
from settings.stack import DOCKER_SOCKET

EDITORS = "# yaml-language-server: $schema=schema.json"
"""Editors complete the keys and underline what would be refused."""
TUNNEL, PORT = ipaddress.IPv4Network("10.66.0.0/16"), 51820
"""The tunnel's network and its port, where nothing here has them already."""
PROBE = "probe"
"""The service user whose only device is the throw-away client of `make up`."""


def make(path: Path, *, engine: str, docker_socket: str) -> None:
    """Write a first stack file that fits this machine."""
    used = networks_in_use()
    base, port = free_base(used), free_port(_published_ports())
    wireguard: dict[str, Any] = {"endpoint": f"{own_address()}:{port}", "port": port}
    if (subnet4 := free_subnet4([*used, base])) != TUNNEL:
        wireguard["subnet4"] = str(subnet4)
    config = {
        f"{PROJECT}:engine": engine,
        f"{PROJECT}:protect": False,
        f"{PROJECT}:users": {
            user_name(): {"role": "admin", "keyless": True, "devices": ["laptop", "phone"]},
            PROBE: {"service": True},
        },
        f"{PROJECT}:models": [{"name": "tiny", "source": "builtin"}],
        f"{PROJECT}:wireguard": wireguard,
        f"{PROJECT}:browser": {},
        f"{PROJECT}:network": {"base": str(base)},
    }
    if docker_socket != DOCKER_SOCKET:
        config[f"{PROJECT}:host"] = {"docker_socket": docker_socket}
    path.parent.mkdir(parents=True, exist_ok=True)
    text = f"{EDITORS}\n# Made by `make up` for this machine; yours to edit.\n" + yaml.safe_dump(
        {"config": config}, sort_keys=False, width=120
    )
    _replace(path, text)


def _replace(path: Path, text: str) -> None:
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    fresh.write_text(text)
    fresh.rename(path)


def name_engine(path: Path, engine: str) -> None:
    """Write the engine into a stack file that names none; every other line stays as it is.

    Raises: Stop where the file is written in a way that has no place for a line.
    """
    text = path.read_text()
    head = re.search(r"^config:[ \t]*(#.*)?\n(?=(?:[ \t]*(?:#.*)?\n)*( +)\S)", text, re.MULTILINE)
    if head is None:
        raise Stop(f"write `{PROJECT}:engine: {engine}` into the `config:` of {path.name}, then run this again")
    line = f"{head[2]}{PROJECT}:engine: {engine}\n"
    _replace(path, text[: head.end()] + line + text[head.end() :])


def read(path: Path) -> dict[str, Any]:
    """The config of a stack file.

    Raises: Stop where it is none, ConfigRefused for a secret in plain text.
    """
    try:
        loaded = yaml.safe_load(path.read_text()) or {}
    except yaml.YAMLError as error:
        raise Stop(f"{path.name} is not YAML: {str(error).splitlines()[0]}") from None
    config = loaded.get("config") if isinstance(loaded, dict) else None
    if not isinstance(config, dict):
        raise Stop(f"{path.name} has no `config:`; see the README for the smallest stack file")
    readable = {key: _readable(value) for key, value in config.items()}
    refuse_plain(readable)
    return readable


def _readable(value: Any) -> Any:
    """The value with a mark where it is encrypted: what Pulumi alone can read, nobody here needs to."""
    if isinstance(value, list):
        return [_readable(each) for each in value]
    if not isinstance(value, dict):
        return value
    return ENCRYPTED if set(value) == {"secure"} else {name: _readable(each) for name, each in value.items()}


def user_name() -> str:
    """The login name where it can be a user's name in the config, else `me`."""
    name = getpass.getuser().lower()
    return name if re.fullmatch(r"[a-z][a-z0-9-]{0,30}", name) and name not in ("root", PROBE) else "me"


def own_address() -> str:
    """The address under which this machine's default route leaves; no packet is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
            return str(probe.getsockname()[0])
        except OSError:
            return "127.0.0.1"


def networks_in_use() -> list[ipaddress.IPv4Network]:
    """Every IPv4 network this machine has a route to, and Docker's networks, which may have none."""
    return routes() + _docker_networks()


def routes() -> list[ipaddress.IPv4Network]:
    """Every IPv4 network this machine has a route to; the default route is 0.0.0.0/0."""
    table = Path("/proc/net/route")
    found: list[ipaddress.IPv4Network] = []
    for line in table.read_text().splitlines()[1:] if table.exists() else []:
        fields = line.split()
        destination, mask = (int.from_bytes(bytes.fromhex(fields[i]), "little") for i in (1, 7))
        found.append(ipaddress.IPv4Network((destination, mask.bit_count())))
    return found


def _docker_networks() -> list[ipaddress.IPv4Network]:
    """Internal networks have no route on the host, so the engine itself is asked."""
    listed = subprocess.run(["docker", "network", "ls", "-q"], capture_output=True, text=True, check=False)
    if listed.returncode != 0 or not listed.stdout.split():
        return []
    inspected = subprocess.run(
        ["docker", "network", "inspect", *listed.stdout.split()], capture_output=True, text=True, check=False
    )
    subnets = [
        config["Subnet"]
        for network in json.loads(inspected.stdout or "[]")
        for config in network["IPAM"].get("Config") or []
        if ":" not in config.get("Subnet", ":")
    ]
    return [ipaddress.IPv4Network(subnet) for subnet in subnets]


def _published_ports() -> set[int]:
    """UDP ports of Docker's, which an engine may publish without a socket that would be in the way."""
    listed = subprocess.run(["docker", "ps", "--format", "{{.Ports}}"], capture_output=True, text=True, check=False)
    return {int(port) for port in re.findall(r":(\d+)->\d+/udp", listed.stdout)}


def free_port(published: Collection[int] = ()) -> int:
    """The first UDP port of this machine, from PORT on, that nobody has."""
    for port in range(PORT, PORT + 1000):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            try:
                probe.bind(("0.0.0.0", port))  # noqa: S104 - nothing is read from it
            except OSError:
                continue
        if port not in published:
            return port
    raise Stop(
        f"none of the UDP ports from {PORT} on is free; write a stack file with another wireguard.port (see the README)"
    )


def free_subnet4(used: Iterable[ipaddress.IPv4Network]) -> ipaddress.IPv4Network:
    """The tunnel's usual network, else the next wide private one that overlaps nothing."""
    taken = [network for network in used if network.prefixlen > 0]
    wide = list(ipaddress.IPv4Network("10.0.0.0/8").subnets(new_prefix=TUNNEL.prefixlen))
    usual = wide.index(TUNNEL)
    candidates = [*wide[usual:], *wide[:usual]]
    candidates += reversed(list(ipaddress.IPv4Network("192.168.0.0/16").subnets(new_prefix=BASE_PREFIX)))
    for candidate in candidates:
        if not any(candidate.overlaps(network) for network in taken):
            return candidate
    raise Stop(
        "every private range of a /20 or wider that is asked for overlaps a network of this machine; write "
        f"`{PROJECT}:wireguard: {{subnet4: ...}}` with a free one into the stack file"
    )


def free_base(used: Iterable[ipaddress.IPv4Network]) -> ipaddress.IPv4Network:
    """The first private /20 of 172.16/12, from its upper end, that overlaps nothing."""
    taken = [network for network in used if network.prefixlen > 0]
    candidates = list(ipaddress.IPv4Network("172.16.0.0/12").subnets(new_prefix=BASE_PREFIX))
    for candidate in reversed(candidates):
        if not any(candidate.overlaps(network) for network in taken):
            return candidate
    raise Stop(
        "every private /20 of 172.16.0.0/12 overlaps a network of this machine; write "
        f"`{PROJECT}:network: {{base: ...}}` with a free /20 into the stack file"
    )
