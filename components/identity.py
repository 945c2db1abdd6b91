"""Who may come in: one random seed per user; every key of that user is derived from it.

Owns the seeds. The derivations are in settings/keys.py; nothing here changes another user's keys when a user or a
device comes or goes.
"""

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

import pulumi
import pulumi_random as random
from pulumi import Output, ResourceOptions

from settings import StackSettings
from settings.keys import SEED_BYTES, Seed, api_key, key_hash, wireguard_private, wireguard_psk, wireguard_public


@dataclass(frozen=True, kw_only=True)
class DeviceIdentity:
    """One device in the tunnel. private_key is None where the device keeps its own."""

    user: str
    device: str
    ip4: IPv4Address
    ip6: IPv6Address
    private_key: Output[str] | None
    public_key: Output[str]
    psk: Output[str]
    previous: bool = False
    """Of the device's previous epoch: still let in, no longer handed out."""


@dataclass(frozen=True, kw_only=True)
class IdentityArgs:
    settings: StackSettings


class Identity(pulumi.ComponentResource):
    """Users to seeds, API keys and devices."""

    api_keys: dict[str, Output[str]]
    key_hashes: dict[str, Output[str]]
    previous_hashes: dict[str, Output[str]]
    """Of the keys that stay valid while a user's `previous_epoch` stands; no bundle holds them."""
    devices: list[DeviceIdentity]

    def __init__(self, name: str, args: IdentityArgs, opts: ResourceOptions | None = None) -> None:
        super().__init__("fortress:index:Identity", name, {}, opts)
        settings = args.settings
        addresses, earlier = settings.device_addresses(), settings.previous_addresses()
        self.api_keys, self.key_hashes, self.previous_hashes, self.devices = {}, {}, {}, []
        for user_name, user in sorted(settings.users.items()):
            own = seed(f"{name}-{user_name}", ResourceOptions(parent=self))
            key = own.apply(_deriving(api_key, user_name, user.epoch))
            self.api_keys[user_name] = Output.secret(key)
            # A hash of 256 random bits tells nothing about them; the gateway's files and the preview show it.
            self.key_hashes[user_name] = Output.unsecret(key.apply(key_hash))
            if user.previous_epoch is not None:
                before = own.apply(_deriving(api_key, user_name, user.previous_epoch))
                self.previous_hashes[user_name] = Output.unsecret(before.apply(key_hash))
            for device in user.device_list():
                where = (user_name, device.name)
                self.devices.append(_device(own, where, device.epoch, addresses[where], device.public_key))
                if device.previous_epoch is not None:
                    self.devices.append(_device(own, where, device.previous_epoch, earlier[where], previous=True))
        self.register_outputs({})


def _device(
    own: Output[str],
    where: tuple[str, str],
    epoch: str,
    addresses: tuple[IPv4Address, IPv6Address],
    public_key: str | None = None,
    *,
    previous: bool = False,
) -> DeviceIdentity:
    who = (*where, epoch)
    private = None if public_key else Output.secret(own.apply(_deriving(wireguard_private, *who)))
    public = Output.from_input(public_key) if private is None else Output.unsecret(private.apply(wireguard_public))
    return DeviceIdentity(
        user=where[0],
        device=where[1],
        ip4=addresses[0],
        ip6=addresses[1],
        private_key=private,
        public_key=public,  # type: ignore[arg-type]
        psk=Output.secret(own.apply(_deriving(wireguard_psk, *who))),
        previous=previous,
    )


def seed(name: str, opts: ResourceOptions) -> Output[str]:
    """32 random bytes as 64 hex digits, secret.

    Not a RandomBytes: that one's id is the bytes themselves, and no id is ever encrypted. Of the kinds of characters
    that a password may have, only the special ones are on, and those are the hex digits.
    """
    return random.RandomPassword(
        name,
        length=2 * SEED_BYTES,
        lower=False,
        upper=False,
        numeric=False,
        override_special="0123456789abcdef",
        opts=opts,
    ).result


def _deriving(derivation, *who: str):
    return lambda seed: derivation(Seed.from_hex(seed), *who)
