"""The VpnNode's firewall: a table of its own, loaded before the tunnel exists."""

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address

from render.syntax import template
from render.wireguard import LISTEN_PORT, tunnel_name
from settings import StackSettings

_TABLE = template("""\
# {{ generated }}
# Loaded in one transaction: there is no moment without rules.
table inet fortress
delete table inet fortress
table inet fortress {
    set peers4 {
        type ipv4_addr
{% if peers4 %}
        elements = { {% for a in peers4 %}{{ a | address }}, {% endfor %}}
{% endif %}
    }
    set peers6 {
        type ipv6_addr
{% if peers6 %}
        elements = { {% for a in peers6 %}{{ a | address }}, {% endfor %}}
{% endif %}
    }

    chain prerouting {
        type filter hook prerouting priority raw; policy accept;
        iifname "{{ tunnel | name }}" ip saddr != @peers4 drop
        iifname "{{ tunnel | name }}" ip6 saddr != @peers6 drop
    }

    chain input {
        type filter hook input priority filter; policy drop;
        iifname "lo" accept
        ct state invalid drop
        # Before "established": a removed device must not live on by an open connection.
        iifname "{{ tunnel | name }}" ip daddr {{ server4 | address }} tcp dport {{ ports | ports }} accept
        iifname "{{ tunnel | name }}" ip6 daddr {{ server6 | address }} tcp dport {{ ports | ports }} accept
        iifname "{{ tunnel | name }}" counter drop
        ct state established,related accept
        ip daddr {{ wan | address }} udp dport {{ listen_port | number }} accept
        counter drop
    }

    chain forward {
        type filter hook forward priority filter; policy drop;
        counter drop
    }

    chain output {
        type filter hook output priority filter; policy drop;
        oifname "lo" accept
        # The relay's way to the gateway, and nothing else of its own accord.
        ip daddr {{ gateway | address }} tcp dport {{ gateway_ports | ports }} accept
        oifname "{{ tunnel | name }}" tcp sport {{ ports | ports }} accept
        ip saddr {{ wan | address }} udp sport {{ listen_port | number }} accept
        icmp type { destination-unreachable, time-exceeded } accept
        icmpv6 type { destination-unreachable, packet-too-big } accept
        counter reject
    }
}
""")


def vpn_node(settings: StackSettings, peers4: Sequence[IPv4Address], peers6: Sequence[IPv6Address]) -> str:
    """Rules for IPv4 and IPv6: a device reaches the relay's port and the page's, nobody reaches anything else."""
    own, plan = settings.wireguard, settings.plan
    assert own is not None, "settings without a wireguard section never get here"
    page = [settings.browser.port] if settings.browser else []
    return _TABLE.render(
        tunnel=tunnel_name(settings),
        peers4=sorted(peers4),
        peers6=sorted(peers6),
        server4=own.server4,
        server6=own.server6,
        ports=[own.relay_port, *page],
        wan=plan.wan.vpn_node,
        listen_port=LISTEN_PORT,
        gateway=plan.edge.gateway,
        gateway_ports=[8443, *([8445] if page else [])],
    )
