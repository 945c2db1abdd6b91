"""The VpnNode's relay: a TCP port, two with a browser's page, unread, behind the peer's address (PROXY protocol)."""

from render.syntax import template
from settings import Plan, StackSettings

IDLE_S = 8000
"""Longer than any silence that settings allow of the gateway: it ends a stream, never the relay. Constants here: to
follow the gateway's times, or the users' limits, the relay would have to restart, and with it everybody's tunnel."""

_RELAY = template("""\
# {{ generated }}
# The admin socket, by which a removed device's connections are cut, is in the image's socket.cfg.
global
    maxconn 4096
    nbthread 1

defaults
    mode tcp
    # Longer than any silence of the gateway's: it ends a stream, never the relay.
    timeout connect 5s
    timeout client {{ idle | number }}s
    timeout server {{ idle | number }}s
    timeout client-fin 10s
    timeout server-fin 10s

listen relay
    # Nobody can use up the relay for all others.
    stick-table type ipv6 size 16k expire 60s store conn_cur
    tcp-request connection track-sc0 src
    tcp-request connection reject if { sc0_conn_cur gt 256 }
    bind {{ server4 | address }}:{{ port | number }}
    bind [{{ server6 | address }}]:{{ port | number }}
    server gateway {{ gateway | address }}:8443 send-proxy-v2
{% if page_port %}

# The browser's page, on a port of its own.
listen page
    tcp-request connection track-sc0 src table relay
    tcp-request connection reject if { sc0_conn_cur(relay) gt 256 }
    bind {{ server4 | address }}:{{ page_port | number }}
    bind [{{ server6 | address }}]:{{ page_port | number }}
    server gateway {{ gateway | address }}:8445 send-proxy-v2
{% endif %}
""")


def relay(settings: StackSettings, plan: Plan) -> str:
    own = settings.wireguard
    assert own is not None, "settings without a wireguard section never get here"
    return _RELAY.render(
        idle=IDLE_S,
        server4=own.server4,
        server6=own.server6,
        port=own.relay_port,
        gateway=plan.edge.gateway,
        page_port=settings.browser.port if settings.browser else None,
    )
