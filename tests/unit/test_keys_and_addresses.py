"""Keys and tunnel addresses: frozen, because a change would void every bundle ever handed out."""

import base64
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from settings.addresses import beside, device_address, meet, refuse_collisions
from settings.base import Epoch
from settings.keys import (
    SERVER,
    Seed,
    api_key,
    cookie_secret,
    derive,
    key_hash,
    wireguard_private,
    wireguard_psk,
    wireguard_public,
)

SEED = Seed(bytes(range(32)))
NET4, NET6 = IPv4Network("10.66.0.0/16"), IPv6Network("fd66:66:66:66::/64")
SMALL4 = IPv4Network("10.66.0.0/29")

NAMES = st.from_regex(r"[a-z0-9]([a-z0-9._-]{0,30}[a-z0-9])?", fullmatch=True)
EPOCH: TypeAdapter[str] = TypeAdapter(Epoch)
EPOCHS = st.from_regex(r"[A-Za-z0-9-]{1,32}", fullmatch=True)


# The values below were computed from RFC 5869 with hmac alone, and the public key by `wg pubkey`.
def test_the_derivations_are_frozen():
    assert api_key(SEED, "alice", "1") == "0e3a20669692f6c0d22fd5545f0538cacc9e82cf0e9acdf6dfd00d2aed326674"
    private = wireguard_private(SEED, "alice", "laptop", "1")
    assert private == "sMacC3PLvAkSfjo0u4jjW05IwQBx1lbHLDWk51Qq0Vk="
    assert wireguard_public(private) == "2lPbPSl3l2E4Li0JAJNgdbk3lIhaRlgCSi2RKlIVSkA="
    assert wireguard_psk(SEED, "alice", "laptop", "1") == "iN4xaOPQvTfkGRc0rByn/ljUzABJZwlK8i0bxDuyLFk="


def test_the_key_of_the_browser_sessions_has_32_bytes_and_an_epoch_renews_it():
    keys = [cookie_secret(SEED, epoch) for epoch in ("1", "2")]
    assert [len(base64.urlsafe_b64decode(key)) for key in keys] == [32, 32]
    assert keys[0] != keys[1]


def test_the_servers_key_is_frozen():
    private = wireguard_private(SEED, SERVER.user, SERVER.device, "1")
    assert private == "sHzLfZFGXWlxc7PUPGcwagelDAf/lMXsqj55vnb98mI="


def test_a_key_hash_is_plain_sha256():
    assert key_hash("abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_every_part_of_the_info_changes_the_key():
    keys = {
        derive(SEED, "wireguard-key", "alice", "laptop", "1"),
        derive(SEED, "wireguard-psk", "alice", "laptop", "1"),
        derive(SEED, "wireguard-key", "bob", "laptop", "1"),
        derive(SEED, "wireguard-key", "alice", "phone", "1"),
        derive(SEED, "wireguard-key", "alice", "laptop", "2"),
        derive(Seed(bytes(32)), "wireguard-key", "alice", "laptop", "1"),
    }
    assert len(keys) == 6


@pytest.mark.parametrize("parts", [("a/b", "c", "1"), ("a", "b/c", "1"), ("a", "b", "1/2")])
def test_no_two_names_meet_in_one_key(parts: tuple[str, str, str]):
    with pytest.raises(ValueError, match="would let two derivations meet"):
        derive(SEED, "wireguard-key", *parts)


@given(NAMES, NAMES, EPOCHS)
def test_private_keys_are_clamped(user: str, device: str, epoch: str):
    raw = base64.b64decode(wireguard_private(SEED, user, device, epoch))
    assert raw[0] & 7 == 0 and raw[31] & 128 == 0 and raw[31] & 64 == 64


def test_a_seed_never_shows_itself_and_has_its_full_length():
    assert repr(SEED) == f"{SEED}" == "Seed(...)"
    with pytest.raises(ValueError, match="32 bytes, this one 5"):
        Seed.from_hex("0011223344")


def test_the_real_wg_computes_the_same_public_key(vpn_node):
    private = wireguard_private(SEED, "alice", "laptop", "1")
    assert vpn_node.run("wg pubkey", stdin=f"{private}\n").strip() == wireguard_public(private)


@pytest.mark.parametrize(
    ("user", "device", "epoch", "ip4", "ip6"),
    [
        ("alice", "laptop", "1", "10.66.124.207", "fd66:66:66:66:7cce:78bf:b9df:aa15"),
        ("alice", "laptop", "2", "10.66.124.206", "fd66:66:66:66:7cce:78bf:b9df:aa14"),
        ("bob", "default", "1", "10.66.211.253", "fd66:66:66:66:d3fd:6d9:5bb4:57b"),
        ("bob", "default", "summer", "10.66.211.253", "fd66:66:66:66:d3fd:6d9:5bb4:57b"),
    ],
)
def test_the_addresses_are_frozen(user: str, device: str, epoch: str, ip4: str, ip6: str):
    assert device_address(user, device, epoch, NET4, NET6) == (IPv4Address(ip4), IPv6Address(ip6))


@given(EPOCHS, EPOCHS)
def test_two_epochs_meet_exactly_where_they_give_one_address(first: str, second: str):
    one, other = (device_address("alice", "laptop", epoch, NET4, NET6) for epoch in (first, second))
    assert meet(first, second) == (one == other)


@given(EPOCHS)
def test_beside_every_epoch_is_one_that_a_stack_file_may_hold_and_that_moves_the_address(epoch: str):
    assert EPOCH.validate_python(beside(epoch)) == beside(epoch)
    assert not meet(epoch, beside(epoch))


@given(NAMES, NAMES, EPOCHS, st.sampled_from([NET4, SMALL4]))
def test_an_address_is_in_its_range_and_never_a_reserved_one(user: str, device: str, epoch: str, net4: IPv4Network):
    ip4, ip6 = device_address(user, device, epoch, net4, NET6)
    assert ip4 in net4 and ip6 in NET6
    assert ip4 not in (net4.network_address, net4.network_address + 1, net4.broadcast_address)
    assert ip6 not in (NET6.network_address, NET6.network_address + 1)


@given(NAMES, NAMES, st.integers(0, 10**6), st.sampled_from([NET4, SMALL4]))
def test_a_rotation_changes_the_last_bit_alone(user: str, device: str, epoch: int, net4: IPv4Network):
    before = device_address(user, device, str(epoch), net4, NET6)
    after = device_address(user, device, str(epoch + 1), net4, NET6)
    assert [int(a) ^ int(b) for a, b in zip(before, after, strict=True)] == [1, 1]


def test_a_hash_that_falls_on_a_reserved_address_is_taken_again():
    # A quarter of the pairs of a /29 is left: without the counter some of these would have none.
    found = {device_address(f"u{i}", "d", "1", SMALL4, NET6)[0] for i in range(200)}
    assert found == {IPv4Address("10.66.0.3"), IPv4Address("10.66.0.5")}


def addresses(**given: str) -> dict[tuple[str, str], tuple[IPv4Address, IPv6Address]]:
    return {(user, "pc"): (IPv4Address(ip4), NET6.network_address + i) for i, (user, ip4) in enumerate(given.items())}


def test_a_collision_names_both_devices_and_the_address_to_write():
    with pytest.raises(
        ValueError, match=r'users.bob: device .pc. and alice/pc have the same .*address: "10\.66\.0\.2"'
    ):
        refuse_collisions(addresses(alice="10.66.3.4", bob="10.66.3.4"), NET4)


def test_the_address_to_write_is_free():
    taken = addresses(alice="10.66.0.3", bob="10.66.0.4", carol="10.66.9.9", dave="10.66.9.9")
    with pytest.raises(ValueError) as caught:
        refuse_collisions(taken, NET4)
    free = str(caught.value).partition('address: "')[2].partition('"')[0]
    assert free == "10.66.0.6"
    refuse_collisions(addresses(alice="10.66.0.3", bob="10.66.0.4", carol="10.66.9.9", dave=free), NET4)


def test_neighbours_that_would_meet_at_a_rotation_collide_too():
    with pytest.raises(ValueError, match=r"would share 10\.66\.3\.5 and 10\.66\.3\.4 when rotated"):
        refuse_collisions(addresses(alice="10.66.3.4", bob="10.66.3.5"), NET4)


@pytest.mark.parametrize("bad", ["10.66.0.0", "10.66.0.1", "10.66.255.255", "10.67.0.9"])
def test_a_written_address_is_refused_where_none_may_be(bad: str):
    with pytest.raises(ValueError, match=f"alice: device 'pc' has the address {bad}.*write another"):
        refuse_collisions(addresses(alice=bad), NET4)


def test_addresses_without_a_collision_pass():
    refuse_collisions(addresses(alice="10.66.3.4", bob="10.66.3.6"), NET4)
