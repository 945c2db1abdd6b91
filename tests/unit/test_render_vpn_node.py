"""The VpnNode's files: reviewed, accepted by wg, nft and haproxy themselves, and closed to every hostile value."""

import re
from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from render import haproxy, nftables, wireguard
from render.wireguard import Peer
from settings import ConfigRefused, StackSettings, load
from tests.unit.conftest import GOLDEN

KEY = "sMacC3PLvAkSfjo0u4jjW05IwQBx1lbHLDWk51Qq0Vk="
PUBLIC = "2lPbPSl3l2E4Li0JAJNgdbk3lIhaRlgCSi2RKlIVSkA="
OTHER = "oF0NiqnBSqn8f4Y0BHHHDvZmSTjAIVwVKGBhqDGWNHM="
PSK = "iN4xaOPQvTfkGRc0rByn/ljUzABJZwlK8i0bxDuyLFk="

ALICE = Peer("alice", "laptop", PUBLIC, PSK, IPv4Address("10.66.124.207"), IPv6Address("fd66:66:66:66::a1"))
ALICE_BEFORE = Peer(
    "alice", "laptop", KEY, PSK, IPv4Address("10.66.124.206"), IPv6Address("fd66:66:66:66::a0"), previous=True
)
BOB = Peer("bob", "default", OTHER, PSK, IPv4Address("10.66.211.253"), IPv6Address("fd66:66:66:66::b1"))

WIREGUARD: dict[str, Any] = {"endpoint": "vpn.example.com:51820"}
MOVED: dict[str, Any] = {
    "endpoint": "192.0.2.1:443",
    "port": 443,
    "relay_port": 8443,
    "mtu": 1280,
    "subnet4": "10.80.0.0/12",
    "subnet6": "fd00:1:2:3::/64",
}
MOVED_PEER = Peer("alice", "laptop", PUBLIC, PSK, IPv4Address("10.81.2.3"), IPv6Address("fd00:1:2:3::a1"))


def settings(stack: str = "test", wireguard: dict[str, Any] = WIREGUARD, **values: Any) -> StackSettings:
    config = {"users": {"alice": {}}, "wireguard": wireguard} | values
    return load(stack, {f"ollama-fortress:{key}": value for key, value in config.items()})


CASES: dict[str, tuple[StackSettings, list[Peer]]] = {
    "nobody": (settings(), []),
    "two-users": (settings(), [ALICE, BOB]),
    "rotating": (settings(), [ALICE, ALICE_BEFORE, BOB]),
    "page": (settings(users={"alice": {"keyless": True}}, browser={"port": 9443}), [ALICE]),
    "moved": (
        settings(
            "other",
            MOVED,
            network={"base": "192.168.16.0/20"},
            gateway={"read_timeout_s": 1800, "connect_timeout_s": 9},
        ),
        [MOVED_PEER],
    ),
}


def server_files(of: StackSettings, peers: list[Peer]) -> dict[str, str]:
    """Golden file -> text."""
    return {
        "wireguard/{}.server.conf": wireguard.server(of, KEY, peers),
        "wireguard/{}.devices": wireguard.devices(peers),
        "wireguard/{}.addresses": wireguard.addresses(of),
        "wireguard/{}.interface": wireguard.interface(of),
        "nftables/{}.nft": nftables.vpn_node(of, [peer.ip4 for peer in peers], [peer.ip6 for peer in peers]),
        "haproxy/{}.cfg": haproxy.relay(of, of.plan),
    }


def client_file(of: StackSettings, peer: Peer, private_key: str | None = KEY) -> str:
    return wireguard.client(
        of, private_key=private_key, psk=peer.psk, server_public_key=OTHER, ip4=peer.ip4, ip6=peer.ip6
    )


@pytest.mark.parametrize("case", CASES)
def test_the_golden_files_of_the_server_are_the_reviewed_ones(case: str, golden):
    for name, text in server_files(*CASES[case]).items():
        golden.check(name.format(case), text)


@pytest.mark.parametrize(("case", "private_key"), [("two-users", KEY), ("moved", KEY), ("own-key", None)])
def test_the_golden_files_of_the_client_are_the_reviewed_ones(case: str, private_key: str | None, golden):
    of, peers = CASES.get(case, CASES["two-users"])
    golden.check(f"wireguard/{case}.client.conf", client_file(of, peers[0], private_key))


@pytest.mark.parametrize("case", CASES)
def test_wg_nft_and_haproxy_themselves_accept_every_golden_file(case: str, vpn_node, tmp_path: Path):
    """By the check that the container of this image runs before any switch."""
    revision = {
        "wg0.conf": f"wireguard/{case}.server.conf",
        "devices": f"wireguard/{case}.devices",
        "addresses": f"wireguard/{case}.addresses",
        "interface": f"wireguard/{case}.interface",
        "nftables.nft": f"nftables/{case}.nft",
        "haproxy.cfg": f"haproxy/{case}.cfg",
    }
    for name, file in revision.items():
        (tmp_path / name).write_text((GOLDEN / file).read_text())
    tmp_path.chmod(0o755)
    vpn_node.run("exec vpn-node check /config", mount=tmp_path)


@pytest.mark.parametrize("case", CASES)
def test_a_second_load_leaves_one_table_with_the_same_rules(case: str, vpn_node):
    # Counters are left out: the packets of the two loads differ.
    script = "cat > /tmp/t; nft -f /tmp/t && nft -s list ruleset > /tmp/a && nft -f /tmp/t && nft -s list ruleset"
    again = vpn_node.run(f"{script} | diff - /tmp/a && cat /tmp/a", stdin=(GOLDEN / f"nftables/{case}.nft").read_text())
    assert again.count("table ") == 1
    assert re.findall(r"hook (\w+) .*policy (\w+);", again) == [
        ("prerouting", "accept"),
        ("input", "drop"),
        ("forward", "drop"),
        ("output", "drop"),
    ]


def test_a_broken_table_leaves_the_old_one_in_force(vpn_node):
    good = (GOLDEN / "nftables/two-users.nft").read_text()
    bad = good.replace("policy drop;\n        counter drop", "policy drop;\n        no such word", 1)
    assert bad != good
    script = 'printf %s "$1" | nft -f - && ! printf %s "$2" | nft -f - 2> /dev/null && nft list table inet fortress'
    assert "10.66.124.207" in vpn_node.run(script, good, bad)


@pytest.mark.parametrize("case", ["two-users", "moved"])
def test_wg_accepts_what_wg_quick_makes_of_every_client_file(case: str, vpn_node):
    script = (
        "umask 077; cat > /tmp/fortress.conf; wg-quick strip /tmp/fortress.conf > /tmp/stripped;"
        "wireguard-go wgx && wg setconf wgx /tmp/stripped && wg show wgx allowed-ips"
    )
    # wg-quick resolves nothing when it strips, wg does: there is no network here, so the name becomes an address.
    text = (GOLDEN / f"wireguard/{case}.client.conf").read_text().replace("vpn.example.com", "192.0.2.1")
    allowed = vpn_node.run(script, stdin=text).split("\t", 1)[1].split()
    own = CASES[case][0].wireguard
    assert own and allowed == [f"{own.server4}/32", f"{own.server6}/128"]


def test_a_new_peer_changes_no_line_of_another():
    of = settings()
    before, after = wireguard.server(of, KEY, [BOB]), wireguard.server(of, KEY, [BOB, ALICE])
    assert set(before.splitlines()) < set(after.splitlines())
    assert wireguard.server(of, KEY, [ALICE, BOB]) == after


def test_users_and_limits_never_touch_what_only_a_restart_takes_over():
    """vpn-node takes over peers and rules by a reload; relay, addresses and interface only by a restart."""
    few, many = settings(), settings(users={"alice": {}, "bob": {"limits": {"concurrent": 900}}}, limits={"burst": 99})
    for restart in ("haproxy/{}.cfg", "wireguard/{}.addresses", "wireguard/{}.interface"):
        assert server_files(few, [])[restart] == server_files(many, [ALICE, BOB])[restart]


def test_the_relay_waits_longer_than_the_gateway_and_never_restarts_for_its_times():
    slowest = settings(gateway={"connect_timeout_s": 60, "read_timeout_s": 7200, "queue_wait_s": 600})
    told = haproxy.relay(slowest, slowest.plan)
    idle = re.findall(r"timeout (?:client|server) (\d+)s", told)
    assert [int(seconds) > slowest.gateway.longest_silence_s for seconds in idle] == [True, True]
    assert haproxy.relay(settings(), settings().plan) == told


@given(st.sets(st.from_regex(r"[a-z0-9][a-z0-9-]{0,30}", fullmatch=True), min_size=2, max_size=6))
@example({"a-b", "ab"})
@example({"customer-berlin-one", "customer-berlin-two"})
def test_two_stacks_never_have_one_interface_name(stacks: set[str]):
    names = {wireguard.tunnel_name(settings(stack)) for stack in stacks}
    assert len(names) == len(stacks)
    assert all(len(name) <= 15 for name in names)


# From here on: values that would be something else in the file. Settings refuse them; so does render, on its own.

HOSTILE = st.one_of(
    st.text(max_size=40),
    st.sampled_from(
        [
            "x\nPostUp = id",
            'x" accept; } table inet y { "',
            "x; policy accept;",
            "x # comment",
            "a\\\nb",
            "x\r\n[Peer]",
            "${IFS}`id`$(id)",
            "{{ 7 * 7 }}",
            "{% raw %}",
            "x' || 'y",
            "\x00",
            "\u2028[Interface]",
            f"{KEY}\n",
            f"{KEY}\nListenPort = 1",
            "vpn.example.com:51820\nAllowedIPs = 0.0.0.0/0",
            "vpn.example.com:51820\n",
        ]
    ),
    st.builds(lambda a, b, c: a + b + c, st.text(max_size=5), st.sampled_from(list("\n\r;{}#\"'\\ =,[]/")), st.text()),
)


def stays_in_its_place(render: Callable[[str], str], harmless: str, hostile: str) -> None:
    """Either a refusal, or a text that differs in nothing but that one value."""
    try:
        text = render(hostile)
    except ValueError as refused:
        assert KEY not in str(refused)
        return
    assert len(text.splitlines()) == len(render(harmless).splitlines())
    assert text == render(harmless).replace(harmless, hostile)


def forced(**wireguard_values: Any) -> StackSettings:
    """Settings that nobody has checked."""
    good = settings()
    assert good.wireguard is not None
    return good.model_copy(update={"wireguard": good.wireguard.model_copy(update=wireguard_values)})


@given(HOSTILE)
def test_no_user_or_device_name_leaves_its_place(value: str):
    for field in ("user", "device"):
        stays_in_its_place(
            lambda text, field=field: wireguard.server(settings(), KEY, [Peer(**{**ALICE.__dict__, field: text})]),
            "harmless",
            value,
        )


@given(HOSTILE)
def test_no_key_leaves_its_place(value: str):
    of = settings()
    for field in ("public_key", "psk"):
        stays_in_its_place(
            lambda text, field=field: wireguard.server(of, KEY, [Peer(**{**ALICE.__dict__, field: text})]), OTHER, value
        )
    stays_in_its_place(lambda text: wireguard.server(of, text, []), OTHER, value)
    for field in ("private_key", "psk", "server_public_key"):
        good: dict[str, Any] = {"private_key": KEY, "psk": PSK, "server_public_key": PUBLIC}
        if value or field != "private_key":  # none at all is the device that keeps its own
            stays_in_its_place(
                lambda text, field=field, good=good: wireguard.client(
                    of, **{**good, field: text}, ip4=ALICE.ip4, ip6=ALICE.ip6
                ),
                OTHER,
                value,
            )


@given(HOSTILE)
def test_no_endpoint_leaves_its_place(value: str):
    stays_in_its_place(lambda text: client_file(forced(endpoint=text), ALICE), "harmless:1", value)


@given(HOSTILE)
def test_no_stack_name_leaves_its_place(value: str):
    def rules(text: str) -> str:
        # Long names are hashed, and say nothing of themselves.
        of = settings().model_copy(update={"stack": text[:13]})
        return nftables.vpn_node(of, [ALICE.ip4], [ALICE.ip6]) + wireguard.interface(of)

    stays_in_its_place(rules, "harmless", value[:13])


@given(HOSTILE)
def test_no_number_or_address_that_is_text_leaves_its_place(value: str):
    for field in ("mtu", "relay_port"):
        with pytest.raises(ValueError):
            of = forced(**{field: value})
            server_files(of, [ALICE])
    with pytest.raises(ValueError):
        wireguard.server(settings(), KEY, [Peer(**{**ALICE.__dict__, "ip4": value})])
    with pytest.raises(ValueError):
        nftables.vpn_node(settings(), [value], [])  # pyright: ignore[reportArgumentType]


@given(st.dictionaries(st.sampled_from(["endpoint", "subnet4", "subnet6", "mtu", "relay_port", "port"]), HOSTILE))
@example({"subnet6": "fd66:66:66:66::%x\n}/64"})  # Python's IPv6 networks may carry any text as their zone
@example({"endpoint": "vpn.example.com:51820\n"})
def test_no_config_text_reaches_a_file_but_as_what_it_is(values: dict[str, str]):
    """The whole way from the stack file; what is accepted gives as many lines as the harmless config."""
    try:
        of = settings("test", WIREGUARD | values)
    except ConfigRefused:
        return
    harmless = server_files(settings(), [ALICE]) | {"client": client_file(settings(), ALICE)}
    for name, text in (server_files(of, [ALICE]) | {"client": client_file(of, ALICE)}).items():
        assert len(text.splitlines()) == len(harmless[name].splitlines()), name
        assert text.count("}") == harmless[name].count("}"), name
