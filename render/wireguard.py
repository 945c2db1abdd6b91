"""WireGuard: the VpnNode's interface and each device's wg-quick file."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

from render.syntax import template
from settings import StackSettings, WireguardSettings

LISTEN_PORT = 51820
"""Inside the container, always; the host's port is the published one."""


@dataclass(frozen=True)
class Peer:
    """One device, as the VpnNode knows it."""

    user: str
    device: str
    public_key: str
    psk: str
    ip4: IPv4Address
    ip6: IPv6Address
    previous: bool = False


_SERVER = template("""\
# {{ generated }}
[Interface]
PrivateKey = {{ private_key | wgkey }}
ListenPort = {{ port | number }}
{% for peer in peers %}

# {{ peer.user | name }}/{{ peer.device | name }}{% if peer.previous %}, previous epoch{% endif +%}
[Peer]
PublicKey = {{ peer.public_key | wgkey }}
PresharedKey = {{ peer.psk | wgkey }}
AllowedIPs = {{ peer.ip4 | address }}/32, {{ peer.ip6 | address }}/128
{% endfor %}
""")

_CLIENT = template("""\
# made by ollama-fortress for one device; keep it secret
[Interface]
PrivateKey = {{ private_key | wgkey }}
Address = {{ ip4 | address }}/32, {{ ip6 | address }}/128
MTU = {{ mtu | number }}

[Peer]
PublicKey = {{ server_public_key | wgkey }}
PresharedKey = {{ psk | wgkey }}
Endpoint = {{ endpoint | endpoint }}
AllowedIPs = {{ server4 | address }}/32, {{ server6 | address }}/128
PersistentKeepalive = 25
""")

_ADDRESSES = template("""\
# {{ generated }}
{{ server4 | address }}/{{ prefix4 | number }}
{{ server6 | address }}/{{ prefix6 | number }}
""")

_INTERFACE = template("""\
# {{ generated }}
{{ tunnel | name }} {{ mtu | number }}
""")

_DEVICES = template("""\
# {{ generated }}
# Whose key is whose, for what is told of them: public key, its fingerprint, user, device, tunnel address.
{% for peer, fingerprint in peers %}
{{ peer.public_key | wgkey }} {{ fingerprint | hex }} {{ peer.user | name }} {{ peer.device | name }} \
{{ peer.ip4 | address }}
{% endfor %}
""")

OWN_KEY = "# The device keeps its private key: write it into the device's own copy of this file.\nPrivateKey = "
"""What stands in a file whose device brought only its public key."""


def server(settings: StackSettings, private_key: str, peers: Sequence[Peer]) -> str:
    """Text for `wg setconf`, peers in the order of their names: adding one changes no other's lines."""
    return _SERVER.render(private_key=private_key, port=LISTEN_PORT, peers=_ordered(peers))


def devices(peers: Sequence[Peer]) -> str:
    """The names that tunnel-watch gives to keys. A fingerprint, the SHA-256 of a public key, is all it remembers."""
    return _DEVICES.render(
        peers=[(peer, hashlib.sha256(peer.public_key.encode()).hexdigest()) for peer in _ordered(peers)]
    )


def _ordered(peers: Sequence[Peer]) -> list[Peer]:
    return sorted(peers, key=lambda peer: (peer.user, peer.device, peer.previous))


def addresses(settings: StackSettings) -> str:
    own = _of(settings)
    return _ADDRESSES.render(
        server4=own.server4, prefix4=own.subnet4.prefixlen, server6=own.server6, prefix6=own.subnet6.prefixlen
    )


def tunnel_name(settings: StackSettings) -> str:
    """At most 15 characters, the kernel's bound; two stacks never have the same."""
    plain = f"wg{settings.stack}"
    return plain if len(plain) <= 15 else f"wg{hashlib.sha256(settings.stack.encode()).hexdigest()[:13]}"


def interface(settings: StackSettings) -> str:
    """Tunnel name and MTU. wireguard-go's control socket is found by name: it must be unique on a host."""
    return _INTERFACE.render(tunnel=tunnel_name(settings), mtu=_of(settings).mtu)


def client(
    settings: StackSettings,
    *,
    private_key: str | None,
    psk: str,
    server_public_key: str,
    ip4: IPv4Address,
    ip6: IPv6Address,
) -> str:
    """A wg-quick file that routes the gateway's two addresses into the tunnel and nothing else.

    private_key: None where the device keeps its own; the line is then left for its owner to fill in.
    """
    own = _of(settings)
    placeholder = "A" * 43 + "="
    text = _CLIENT.render(
        private_key=private_key or placeholder,
        ip4=ip4,
        ip6=ip6,
        mtu=own.mtu,
        server_public_key=server_public_key,
        psk=psk,
        endpoint=own.endpoint,
        server4=own.server4,
        server6=own.server6,
    )
    return text if private_key else text.replace(f"PrivateKey = {placeholder}", OWN_KEY)


def _of(settings: StackSettings) -> WireguardSettings:
    assert settings.wireguard is not None, "settings without a wireguard section never get here"
    return settings.wireguard
