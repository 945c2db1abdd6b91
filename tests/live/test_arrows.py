"""Every arrow of the picture is open, and nothing else is."""

import json
import socket
import subprocess
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from fortress.stack_file import own_address
from images import reference
from tests.deployment import Client, Deployment, docker

ON_THE_WAY = {
    "vpn-node": (443, 51820),
    "gateway": (8443, 8444, 8081, 9145),
    "ollama-sidecar": (8443, 8081),
    "ollama": (11434,),
}
"""Of a request: part -> its ports."""
WATCHERS = {
    "collector": (8888,),
    "loki": (3100,),
    "prometheus": (9090,),
    "alertmanager": (9093,),
    "node-exporter": (9100,),
}
LISTENING = {**ON_THE_WAY, **WATCHERS}
PLACES = tuple(LISTENING)
OPEN = {
    ("vpn-node", "gateway", 8443),
    ("gateway", "ollama-sidecar", 8443),
    ("ollama-sidecar", "ollama", 11434),
    ("prometheus", "gateway", 9145),
    # Who watches is among itself.
    *((one, another, port) for one in WATCHERS for another in WATCHERS if one != another for port in WATCHERS[another]),
}
"""The VpnNode's own firewall lets its relay out to one port only, so 8444 is closed to it."""


def addresses(fortress: Deployment, component: str) -> list[str]:
    networks = json.loads(docker("inspect", fortress.container(component)))[0]["NetworkSettings"]["Networks"]
    return [network["IPAddress"] for network in networks.values()]


HOST = -1


def reaches(process: int, address: str, port: int) -> bool:
    """Tries a TCP connection from inside a process's network namespace, or from the host's own."""
    if process == HOST and not _by_a_bridge(address):
        return False  # the packet leaves this machine: whoever may answer out there is not the container
    probe = f"exec 3<>/dev/tcp/{address}/{port}"
    enter = [] if process == HOST else ["nsenter", "-t", str(process), "-n"]
    done = subprocess.run([*enter, "timeout", "1", "bash", "-c", probe], capture_output=True, check=False)
    return done.returncode == 0


def reached(process: int, targets: Iterable[tuple[str, int]]) -> set[tuple[str, int]]:
    """Those of them that `reaches`; all at once, since a closed one may take its second."""
    tried = list(targets)
    with ThreadPoolExecutor(32) as pool:
        answers = list(pool.map(lambda target: reaches(process, *target), tried))
    return {target for target, open_ in zip(tried, answers, strict=True) if open_}


def _by_a_bridge(address: str) -> bool:
    route = subprocess.run(["ip", "route", "get", address], capture_output=True, text=True, check=False).stdout
    return " dev br-" in route or " dev docker" in route


def process_of(fortress: Deployment, component: str) -> int:
    return int(docker("inspect", "-f", "{{.State.Pid}}", fortress.container(component)))


@contextmanager
def world() -> Iterator[int]:
    """A port of this machine. It stands for the world: who cannot get there gets nowhere beyond."""
    with socket.create_server(("0.0.0.0", 0)) as listening:
        yield int(listening.getsockname()[1])


@contextmanager
def bystander(fortress: Deployment, *options: str) -> Iterator[int]:
    """The process of a container that is no part of the fortress."""
    own = ("--label", f"fortress.stack={fortress.stack}", "--label", "fortress.component=client")
    image = reference("client", fortress.engine)
    id_ = docker("run", "-d", "--rm", *own, *options, "--entrypoint", "sleep", image, "60").strip()
    try:
        yield int(docker("inspect", "-f", "{{.State.Pid}}", id_))
    finally:
        docker("rm", "-f", id_)


def test_between_containers_only_the_pictures_arrows_are_open(fortress: Deployment):
    places = {address: place for place in PLACES for address in addresses(fortress, place)}
    listening = [(address, port) for address, place in places.items() for port in LISTENING[place]]
    found = set()
    for place in PLACES:
        others = [(address, port) for address, port in listening if places[address] != place]
        found |= {(place, places[address], port) for address, port in reached(process_of(fortress, place), others)}
    assert found == OPEN


def test_the_host_reaches_no_container(fortress: Deployment):
    assert any(_by_a_bridge(address) for address in addresses(fortress, "vpn-node")), "no way to wan: nothing is shown"
    for place in PLACES:
        targets = [(address, port) for address in addresses(fortress, place) for port in LISTENING[place]]
        assert reached(HOST, targets) == set(), f"the host reached {place}"


def test_a_peer_reaches_the_relay_and_nothing_else(fortress: Deployment, bob: Client, ada: Client):
    assert bob.can_connect("10.66.0.1", 443), "the tunnel is down, so the next lines would prove nothing"
    assert bob.can_connect("fd66:66:66:66::1", 443)
    other = ada.run("sed", "-n", "s/^Address = \\([0-9.]*\\).*/\\1/p", "/tmp/bundle/wireguard-laptop.conf").strip()
    bob.run("ip", "route", "replace", other, "dev", "wgclient")
    for address in ("10.66.0.1", "fd66:66:66:66::1", other):
        for port in (22, 8443, 51820) if address != other else (22, 443):
            assert not bob.can_connect(address, port), f"{address}:{port} is open to a peer"
    for place in ("gateway", "ollama-sidecar", "ollama", "loki", "prometheus"):
        for address in addresses(fortress, place):
            bob.run("ip", "route", "replace", f"{address}/32", "dev", "wgclient")
            for port in LISTENING[place]:
                assert not bob.can_connect(address, port), f"a peer reached {place} around the gateway"


def test_a_neighbour_on_wan_reaches_nothing(fortress: Deployment, bob: Client):
    """It stands where the internet stands, without any NAT between; its only way to other networks is the host."""
    with world() as port, bystander(fortress, "--network", fortress.network("wan")) as process:
        assert reaches(process, own_address(), port), "it reaches nothing at all, so the next lines prove nothing"
        for place in PLACES:
            ports = (*LISTENING[place], 22, 80, 443, 8080)
            targets = [(there, to) for there in addresses(fortress, place) if _by_a_bridge(there) for to in ports]
            assert reached(process, targets) == set(), f"wan reached {place}"
    assert bob.ask().status == 200


def test_without_the_tunnel_only_the_tunnels_own_port_is_published(fortress: Deployment):
    for component, id_ in fortress.containers().items():
        ports = json.loads(docker("inspect", id_))[0]["HostConfig"]["PortBindings"] or {}
        assert list(ports) == (["51820/udp"] if component == "vpn-node" else [])


@pytest.mark.parametrize("place", [place for place in PLACES if place != "vpn-node"])
def test_nothing_behind_the_tunnel_has_a_way_out(place: str, fortress: Deployment):
    with world() as port:
        with bystander(fortress) as process:
            assert reaches(process, own_address(), port), "an ordinary container has no way out: nothing is shown"
        assert not reaches(process_of(fortress, place), own_address(), port)


def test_containers_are_hardened_as_seen_from_inside(fortress: Deployment):
    for component, id_ in fortress.containers().items():
        inspected = json.loads(docker("inspect", id_))[0]
        status = docker("exec", id_, "cat", "/proc/1/status")
        seen = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
        net_admin = f"{1 << 12:016x}"
        assert seen["CapEff"] == (net_admin if component == "vpn-node" else "0" * 16), component
        assert seen["NoNewPrivs"] == "1", component
        assert seen["Seccomp"] == "2", component
        assert (seen["Uid"].split()[0] == "0") == (component == "vpn-node"), component
        assert inspected["HostConfig"]["ReadonlyRootfs"], component
        assert inspected["HostConfig"]["PidsLimit"] > 0, component
        assert inspected["HostConfig"]["Memory"] == inspected["HostConfig"]["MemorySwap"] > 0, component
        assert not any("docker.sock" in mount["Source"] for mount in inspected["Mounts"]), component
