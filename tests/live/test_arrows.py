"""Every arrow of the picture is open, and nothing else is."""

import json
import subprocess

from tests.deployment import Client, Deployment, docker

PLACES = ("vpn-node", "gateway", "ollama-sidecar", "ollama")
LISTENING = {
    "vpn-node": (443, 51820),
    "gateway": (8443, 8444, 8081),
    "ollama-sidecar": (8443, 8081),
    "ollama": (11434,),
}
OPEN = {
    ("vpn-node", "gateway", 8443),
    ("vpn-node", "gateway", 8444),
    ("gateway", "ollama-sidecar", 8443),
    ("ollama-sidecar", "ollama", 11434),
}
"""8444 is for access methods that share the edge; it believes no address and asks for a key."""


def addresses(fortress: Deployment, component: str) -> list[str]:
    networks = json.loads(docker("inspect", fortress.container(component)))[0]["NetworkSettings"]["Networks"]
    return [network["IPAddress"] for network in networks.values()]


def reaches(process: int, address: str, port: int) -> bool:
    """Tries a TCP connection from inside a process's network namespace; -1 is the host's own."""
    probe = f"exec 3<>/dev/tcp/{address}/{port}"
    enter = ["nsenter", "-t", str(process), "-n"] if process > 0 else []
    done = subprocess.run([*enter, "timeout", "1", "bash", "-c", probe], capture_output=True, check=False)
    return done.returncode == 0


def test_between_containers_only_the_pictures_arrows_are_open(fortress: Deployment):
    targets = [
        (place, address, port)
        for place in PLACES
        for address in addresses(fortress, place)
        for port in LISTENING[place]
    ]
    found = set()
    for place in PLACES:
        process = int(docker("inspect", "-f", "{{.State.Pid}}", fortress.container(place)))
        own = addresses(fortress, place)
        found |= {
            (place, to, port) for to, address, port in targets if address not in own and reaches(process, address, port)
        }
    # The firewall of the VpnNode lets its relay out to one port only.
    assert found == OPEN - {("vpn-node", "gateway", 8444)}


def test_the_host_reaches_no_container(fortress: Deployment):
    open_ports = [
        (place, address, port)
        for place in PLACES
        for address in addresses(fortress, place)
        for port in LISTENING[place]
        if reaches(-1, address, port)
    ]
    assert open_ports == []


def test_a_peer_reaches_the_relay_and_nothing_else(fortress: Deployment, bob: Client, ada: Client):
    assert bob.can_connect("10.66.0.1", 443), "the tunnel is down, so the next lines would prove nothing"
    assert bob.can_connect("fd66:66:66:66::1", 443)
    other = ada.run("sed", "-n", "s/^Address = \\([0-9.]*\\).*/\\1/p", "/tmp/bundle/wireguard-laptop.conf").strip()
    for address in ("10.66.0.1", "fd66:66:66:66::1", other):
        bob.run(
            "sh",
            "-c",
            f"ip route replace {address} dev wgclient 2>/dev/null || ip -6 route replace {address} dev wgclient",
        )
    for address, port in [
        ("10.66.0.1", 8443),
        ("10.66.0.1", 22),
        ("fd66:66:66:66::1", 8443),
        (other, 443),
        (other, 22),
    ]:
        assert not bob.can_connect(address, port), f"{address}:{port} is open to a peer"
    for place in ("gateway", "ollama-sidecar", "ollama"):
        for address in addresses(fortress, place):
            bob.run("ip", "route", "replace", f"{address}/32", "dev", "wgclient")
            for port in LISTENING[place]:
                assert not bob.can_connect(address, port), f"a peer reached {place} around the gateway"


def test_without_the_tunnel_only_the_tunnels_own_port_is_published(fortress: Deployment):
    for component, id_ in fortress.containers().items():
        ports = json.loads(docker("inspect", id_))[0]["HostConfig"]["PortBindings"] or {}
        assert list(ports) == (["51820/udp"] if component == "vpn-node" else [])


def test_ollama_has_no_way_out(fortress: Deployment):
    process = int(docker("inspect", "-f", "{{.State.Pid}}", fortress.container("ollama")))
    routes = subprocess.run(
        ["nsenter", "-t", str(process), "-n", "ip", "route"], capture_output=True, text=True, check=True
    )
    assert "default" not in routes.stdout


def test_containers_are_hardened_as_seen_from_inside(fortress: Deployment):
    for component, id_ in fortress.containers().items():
        inspected = json.loads(docker("inspect", id_))[0]
        status = docker("exec", id_, "cat", "/proc/1/status")
        seen = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
        net_admin = f"{1 << 12:016x}"
        assert seen["CapEff"] == (net_admin if component == "vpn-node" else "0" * 16), component
        assert seen["NoNewPrivs"] == "1", component
        assert (seen["Uid"].split()[0] == "0") == (component == "vpn-node"), component
        assert inspected["HostConfig"]["ReadonlyRootfs"], component
        assert inspected["HostConfig"]["PidsLimit"] > 0, component
        assert inspected["HostConfig"]["Memory"] == inspected["HostConfig"]["MemorySwap"] > 0, component
        assert not any("docker.sock" in mount["Source"] for mount in inspected["Mounts"]), component
