"""What is found out about a machine: free networks and ports for a first stack file, and what a deployment meets."""

import errno
import os
import socket
from collections.abc import Iterator
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console

from fortress import preflight, stack_file, up
from fortress.errors import Stop
from settings import PROJECT, StackSettings, load


class Engine:
    """A Docker engine that has these networks and containers."""

    def __init__(self, networks: list[dict[str, Any]] | None = None, containers: list[dict[str, Any]] | None = None):
        self.api = self
        self.networks = lambda: networks or []
        self.containers = lambda: containers or []


def network(subnet: str, stack: str = "") -> dict[str, Any]:
    return {"IPAM": {"Config": [{"Subnet": subnet}]}, "Labels": {preflight.LABEL: stack}}


def container(address: str, port: int, stack: str = "") -> dict[str, Any]:
    published = {"IP": address, "PrivatePort": 51820, "PublicPort": port, "Type": "udp"}
    return {"Ports": [published], "Labels": {preflight.LABEL: stack}}


def settings(**wireguard: Any) -> StackSettings:
    own = {"endpoint": "vpn.example.com:51820"} | wireguard
    config = {"users": {"alice": {}}, "wireguard": own, "network": {"base": "172.31.64.0/20"}}
    return load("home", {f"{PROJECT}:{key}": value for key, value in config.items()})


@pytest.fixture
def routes(monkeypatch: pytest.MonkeyPatch) -> list[IPv4Network]:
    """This machine's, to which a test may add."""
    found = [IPv4Network("0.0.0.0/0")]
    monkeypatch.setattr(stack_file, "routes", lambda: found)
    return found


@pytest.fixture
def taken() -> Iterator[int]:
    """A UDP port that another program has."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(("127.0.0.1", 0))
        yield other.getsockname()[1]


def test_a_first_stack_file_takes_what_is_free(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, taken: int, routes: list[IPv4Network]
):
    used = [IPv4Network("10.66.3.0/24"), IPv4Network("172.31.240.0/24")]
    monkeypatch.setattr(stack_file, "networks_in_use", lambda: [*routes, *used])
    monkeypatch.setattr(stack_file, "PORT", taken)
    monkeypatch.setattr(stack_file, "_published_ports", lambda: {taken + 1})
    file = tmp_path / "Pulumi.dev.yaml"
    stack_file.make(file, engine="registry-only", docker_socket="/var/run/docker.sock")
    first = load("dev", stack_file.read(file))
    assert first.wireguard is not None
    assert first.wireguard.port > taken + 1
    assert first.wireguard.endpoint.endswith(f":{first.wireguard.port}")
    assert (str(first.wireguard.subnet4), str(first.network.base)) == ("10.67.0.0/16", "172.31.224.0/20")
    routes += used
    preflight.check(first, Engine())  # pyright: ignore[reportArgumentType]


def test_the_usual_network_needs_no_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr(stack_file, "networks_in_use", list)
    stack_file.make(tmp_path / "x.yaml", engine="online", docker_socket="/var/run/docker.sock")
    written = yaml.safe_load((tmp_path / "x.yaml").read_text())["config"][f"{PROJECT}:wireguard"]
    assert set(written) == {"endpoint", "port"}


@pytest.mark.parametrize(
    ("used", "expected"),
    [
        ([], "10.66.0.0/16"),
        (["10.64.0.0/13"], "10.72.0.0/16"),
        (
            ["10.66.0.0/15", "10.68.0.0/14", "10.72.0.0/13", "10.80.0.0/12", "10.96.0.0/11", "10.128.0.0/9"],
            "10.0.0.0/16",
        ),
        (["10.0.0.0/8"], "192.168.240.0/20"),
        (["10.0.0.0/8", "192.168.240.0/24"], "192.168.224.0/20"),
    ],
)
def test_a_free_network_for_the_tunnel(used: list[str], expected: str):
    everything = [IPv4Network("0.0.0.0/0"), *map(IPv4Network, used)]
    assert str(stack_file.free_subnet4(everything)) == expected
    assert settings(subnet4=expected).wireguard


def test_no_free_network_is_said():
    with pytest.raises(Stop, match=r"wireguard: \{subnet4"):
        stack_file.free_subnet4([IPv4Network("10.0.0.0/8"), IPv4Network("192.168.0.0/16")])


def test_an_overlap_names_a_free_network(routes: list[IPv4Network]):
    routes.append(IPv4Network("10.0.0.0/8"))
    with pytest.raises(Stop, match=r"wireguard.subnet4 10.66.0.0/16 overlaps 10.0.0.0/8.*for example 192.168.240.0/20"):
        preflight.check(settings(), Engine())  # pyright: ignore[reportArgumentType]
    routes[:] = [IPv4Network("172.31.64.0/24")]
    with pytest.raises(Stop, match=r"network.base 172.31.64.0/20 overlaps .*for example 172.31.240.0/20"):
        preflight.check(settings(), Engine())  # pyright: ignore[reportArgumentType]


def test_a_route_that_appears_later_stops_no_stack_that_is_there(routes: list[IPv4Network], taken: int):
    """A company's VPN on this machine, say: the tunnel's addresses live in the VpnNode alone."""
    routes.append(IPv4Network("10.0.0.0/8"))
    there = [network("172.31.64.0/24", "home")]
    own = [container("0.0.0.0", taken, "home")]
    preflight.check(settings(port=taken), Engine(there, own))  # pyright: ignore[reportArgumentType]
    with pytest.raises(Stop, match="subnet4"):
        preflight.check(settings(port=taken), Engine([network("172.30.0.0/24", "other")], own))  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    ("theirs", "ours", "refused"),
    [
        ("127.0.0.2", "127.0.0.1", False),
        ("127.0.0.1", "127.0.0.1", True),
        ("0.0.0.0", "127.0.0.1", True),
        ("127.0.0.2", "0.0.0.0", True),
        ("::", "127.0.0.1", False),
    ],
)
def test_a_port_is_taken_where_its_address_is(routes: list[IPv4Network], theirs: str, ours: str, refused: bool):
    port = stack_file.free_port()
    asked = Engine([], [container(theirs, port, "other")])
    wanted = settings(port=port, published_address=ours)
    if not refused:
        preflight.check(wanted, asked)  # pyright: ignore[reportArgumentType]
        return
    with pytest.raises(Stop, match=f"UDP port {port} is in use on this machine"):
        preflight.check(wanted, asked)  # pyright: ignore[reportArgumentType]


def test_a_port_of_another_program_is_taken_too(routes: list[IPv4Network], taken: int):
    with pytest.raises(Stop, match=f"UDP port {taken} is in use"):
        preflight.check(settings(port=taken), Engine())  # pyright: ignore[reportArgumentType]


class Labelled(Engine):
    """An engine that lists by label, as Docker's does."""

    def __init__(self, *found: tuple[str, str, str]):
        def listed(kind: str, filters: dict[str, list[str]]) -> list[dict[str, Any]]:
            stacks = [each.partition("=")[2] for each in filters["label"] if each.startswith(f"{preflight.LABEL}=")]
            return [
                {"Name": name, "Names": [f"/{name}"], "Labels": {"fortress.component": name.split("-")[-1]}}
                for what, name, stack in found
                if what == kind and stack in stacks
            ]

        self.api = self
        self.networks = lambda filters: listed("network", filters)
        self.containers = lambda all, filters: listed("container", filters) if all else []


def test_a_stack_of_this_name_that_no_state_knows_is_refused_with_both_ways_out():
    foreign = Labelled(
        ("container", "fortress-home-gateway", "home"),
        ("container", "fortress-home-client", "home"),
        ("container", "fortress-other-gateway", "other"),
        ("network", "fortress-home-wan", "home"),
        ("network", "fortress-home-edge", "home"),
    )
    with pytest.raises(Stop, match=r"rename stacks/Pulumi\.home\.yaml.*`make up STACK=`") as stop:
        preflight.refuse_unknown(settings(), foreign)  # pyright: ignore[reportArgumentType]
    assert ("`docker rm -f fortress-home-gateway && docker network rm fortress-home-edge fortress-home-wan`") in str(
        stop.value
    )
    for nobodys in (("container", "x-client", "home"), ("container", "x-gateway", "other"), ("network", "y", "other")):
        preflight.refuse_unknown(settings(), Labelled(nobodys))  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(("state", "refused"), [(None, True), ([], True), ([{"type": "pulumi:pulumi:Stack"}], False)])
@pytest.mark.parametrize("build", [True, False], ids=["up", "down"])
def test_only_a_stack_of_which_the_state_knows_nothing_is_asked_about(
    state: list[Any] | None, refused: bool, build: bool, monkeypatch: pytest.MonkeyPatch
):
    """A killed first `up` has its state: the stack is made before anything that has its label."""
    foreign = Labelled(("container", "fortress-home-gateway", "home"))
    done: list[str] = []

    class Pulumi:
        def __init__(self, *_: object) -> None:
            self.exists = lambda: state is not None
            self.deployment = lambda: {"resources": state}
            self.read = lambda *words: done.append(words[1])

    monkeypatch.setattr(up, "Pulumi", Pulumi)
    monkeypatch.setattr(up, "_engine", lambda _: "registry-only")
    monkeypatch.setattr(up, "exports", lambda *_: {})
    monkeypatch.setattr(up, "_settings_or_first_ones", lambda *_: settings())
    monkeypatch.setattr(up, "_bring_images", lambda *_: done.append("images"))
    monkeypatch.setattr(up.preflight, "check", lambda *_: None)
    monkeypatch.setattr(up.preflight, "digests", lambda _: None)
    monkeypatch.setattr(up.renewal, "renew_when_due", lambda *_: done.append("renewal"))
    monkeypatch.setattr(up.docker_engine, "reach", lambda *_: foreign)
    foreign.close = lambda: None
    if refused:
        with pytest.raises(Stop, match="does not know"):
            up.ready(Console(quiet=True), "home", build=build)
        assert done == []
    else:
        up.ready(Console(quiet=True), "home", build=build)
        assert done == (["images", "renewal"] if build else ["renewal"])


@pytest.mark.parametrize(
    ("why", "refused"),
    [
        (errno.EACCES, None),
        (errno.EPERM, None),
        (errno.EADDRINUSE, "UDP port 443 is in use on this machine"),
        (errno.EADDRNOTAVAIL, r"published_address 192\.0\.2\.1 is no address of this machine"),
    ],
    ids=errno.errorcode.get,
)
def test_a_port_that_this_account_may_not_take_is_the_engines_to_try(
    why: int, refused: str | None, routes: list[IPv4Network], monkeypatch: pytest.MonkeyPatch
):
    class Refusing(socket.socket):
        def bind(self, address: object) -> None:
            assert address == ("192.0.2.1", 443)
            raise OSError(why, os.strerror(why))

    monkeypatch.setattr(socket, "socket", Refusing)
    wanted = settings(port=443, published_address="192.0.2.1")
    if refused is None:
        preflight.check(wanted, Engine())  # pyright: ignore[reportArgumentType]
        return
    with pytest.raises(Stop, match=refused):
        preflight.check(wanted, Engine())  # pyright: ignore[reportArgumentType]
