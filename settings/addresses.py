"""A device's tunnel addresses: a hash of who it is, so that nobody else's arrival can move them."""

import hashlib
from collections.abc import Mapping
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network


def device_address(
    user: str, device: str, epoch: str, subnet4: IPv4Network, subnet6: IPv6Network
) -> tuple[IPv4Address, IPv6Address]:
    """The addresses of one device.

    The last bit is the parity of the epoch: before and after a rotation the device has two addresses, which may
    live side by side. The network's address, .1 (the gateway) and the broadcast address are never given.
    """
    parity = _parity(epoch)
    for attempt in range(1000):
        text = f"{user}/{device}" if attempt == 0 else f"{user}/{device}/{attempt}"
        digest = hashlib.sha256(text.encode()).digest()
        ip4 = _place(digest, subnet4.prefixlen, 32, parity)
        ip6 = _place(digest, subnet6.prefixlen, 128, parity)
        # Both parities must be free of reserved addresses, or a rotation would move the device elsewhere.
        pairs = ((ip4 | 1, 32 - subnet4.prefixlen), (ip6 | 1, 128 - subnet6.prefixlen))
        if all(1 < pair < (1 << bits) - 1 for pair, bits in pairs):
            return subnet4.network_address + ip4, subnet6.network_address + ip6
    raise AssertionError("no address after a thousand hashes")


def _place(digest: bytes, prefix: int, width: int, parity: int) -> int:
    bits = width - prefix
    return (int.from_bytes(digest, "big") >> (256 - bits)) & ~1 | parity


def meet(epoch: str, other: str) -> bool:
    """Would a device have the same address in both epochs?"""
    return _parity(epoch) == _parity(other)


def beside(epoch: str) -> str:
    """An epoch much like this one, in which a device has its other address."""
    nexts = (str(int(epoch) + n) if epoch.isdecimal() else f"{epoch[:28]}-{n}" for n in range(1, 1000))
    return next(each for each in nexts if not meet(each, epoch))


def _parity(epoch: str) -> int:
    """A number's own parity, so that '1' -> '2' changes it; of any other word, that of its hash."""
    return int(epoch) % 2 if epoch.isdecimal() else hashlib.sha256(epoch.encode()).digest()[-1] % 2


def refuse_collisions(
    addresses: Mapping[tuple[str, str], tuple[IPv4Address, IPv6Address]], subnet4: IPv4Network
) -> None:
    """Raise ValueError where two devices have one address, or one lies where none may.

    The pair of a device's address (its other parity) counts too: the neighbour would collide at a rotation.
    """
    taken: dict[int, tuple[str, IPv4Address]] = {}
    for (user, device), (ip4, _) in sorted(addresses.items()):
        where = f"ollama-fortress:users.{user}: device {device!r}"
        if ip4 not in subnet4 or int(ip4) | 1 == int(subnet4.network_address) | 1 or ip4 == subnet4.broadcast_address:
            raise ValueError(f"{where} has the address {ip4}, which is reserved or outside {subnet4}; write another")
        pair = int(ip4) >> 1
        if pair in taken:
            other, its = taken[pair]
            clash = f"have the same tunnel address {ip4}" if ip4 == its else f"would share {ip4} and {its} when rotated"
            free = _free(subnet4, {int(a4) >> 1 for a4, _ in addresses.values()})
            raise ValueError(
                f"{where} and {other} {clash}. Give the device another: write it as "
                f'{{name: "{device}", address: "{free}"}}, with what else it has'
            )
        taken[pair] = (f"{user}/{device}", ip4)


def _free(subnet4: IPv4Network, taken: set[int]) -> IPv4Address:
    first = int(subnet4.network_address) >> 1
    return next(IPv4Address(pair << 1) for pair in range(first + 1, first + len(taken) + 2) if pair not in taken)
