"""nginx for the Gateway and for the sidecar before Ollama. The policy decides; these files only wire."""

import json
from functools import cache
from pathlib import Path
from typing import Any

from images import catalogue
from render.principals import RELAY
from render.syntax import template
from settings import Plan, StackSettings

ROUTES = Path(__file__).parent.parent / "gateway" / "routes.json"
HOP_PORT = 8443
OLLAMA_PORT = 11434
LOGIN_PORT = 4180
GRAFANA_PORT = 3000
METRICS_PORT = 9145
SIDECAR_NAME = "ollama-sidecar"
SMALL_BODY = 64 * 1024
MADE = (400, 404, 405, 408, 413, 414, 421, 429, 500, 501, 502, 503, 504, 505)
"""Statuses with which nginx itself refuses; the policy words them."""

_COMMON = """\
    server_tokens off;
    default_type application/octet-stream;
    client_body_temp_path /tmp/body;
    proxy_temp_path /tmp/proxy;
    fastcgi_temp_path /tmp/fastcgi;
    uwsgi_temp_path /tmp/uwsgi;
    scgi_temp_path /tmp/scgi;
    client_header_timeout 10s;
    client_body_timeout 15s;
    send_timeout 30s;
    reset_timedout_connection on;
    # The protocol of the address's first server counts for all of them, so it is set here.
    ssl_protocols TLSv1.3;
    # "?": left out by an OpenSSL that does not know it yet.
    ssl_ecdh_curve ?X25519MLKEM768:X25519:prime256v1:secp384r1;
    ssl_session_tickets off;
    ssl_session_cache off;
"""

ERRORS = """\
        # In the access phase, as every refusal: content would first be given the whole body. Subrequests have none.
        location ^~ /-/error/ {
            internal;
            js_access gateway.failed;
            js_content gateway.failed;
        }
"""

LISTS = """\
{% for path in lists %}
        location = /-{{ path | path }} {
            internal;
            proxy_pass_request_body off;
            proxy_set_header Host localhost:{{ ollama_port | number }};
            proxy_set_header Connection "";
            proxy_set_header Content-Length "";
            subrequest_output_buffer_size 1m;
            proxy_method GET;
            proxy_pass https://ollama{{ path | path }};
        }
{% endfor %}
"""
"""What a cut-down list is made from: by a path that no client can reach."""

ROUTE = """\
        location {% if not route.tail %}= {% endif %}{{ route.path | path }} {
            set $args "";
            limit_req zone=known burst={{ flood_burst | number }} nodelay;
            limit_req zone=stranger burst=100 nodelay;
            client_max_body_size {{ route.body_limit | number }};
{% if route.unproven %}
            limit_conn unproven {{ route.unproven | number }};
{% endif %}
            js_access gateway.{{ access | name }};
{% if route.tail == "model" %}
            js_content gateway.describe;
{% elif route.list %}
            js_content gateway.list;
{% elif route.own %}
            js_content gateway.own;
{% else %}
{% if route.body == "unlimited" %}
            proxy_request_buffering off;
{% elif route.body == "none" %}
            proxy_pass_request_body off;
            proxy_set_header Host localhost:{{ ollama_port | number }};
            proxy_set_header Connection "";
            proxy_set_header Content-Length "";
{% else %}
            proxy_set_body $fortress_body;
{% endif %}
{% if route.class == "inference" %}
            js_body_filter gateway.watch buffer_type=buffer;
{% endif %}
            proxy_pass https://ollama{% if route.tail %}$fortress_upstream{% else %}{{ route.path | path }}{% endif %};
{% endif %}
        }
"""
"""One open route. `access`: the policy's function that lets in."""

_GATEWAY = template(
    """\
# {{ generated }}
load_module modules/ngx_http_js_module.so;
# One worker: limits are counted without a lock between workers, and one core carries 50,000 tokens a second.
worker_processes 1;
pid /tmp/nginx.pid;
error_log stderr error;

events {
    worker_connections 4096;
}

http {
"""
    + _COMMON
    + """\
    ssl_certificate /config/current/tls/server.pem;
    ssl_certificate_key /config/current/tls/server.key;
    map_hash_bucket_size 1024;  # a domain twice in one key
    server_names_hash_bucket_size 1024;
    keepalive_timeout 30s;
    keepalive_requests 1000;
    large_client_header_buffers 4 8k;
    client_max_body_size 64k;
    client_body_buffer_size 256k;
    merge_slashes off;
    gzip off;
    max_headers 100;

    js_engine qjs;
    js_path "/config/current/";
    js_import gateway from gateway.js;
    js_shared_dict_zone zone=buckets:1m type=number timeout=3600s evict;
    js_shared_dict_zone zone=guesses:1m type=number timeout=600s evict;
    js_shared_dict_zone zone=streams:1m timeout={{ stream_timeout | number }}s;
    js_shared_dict_zone zone=usage:4m type=number;
    js_shared_dict_zone zone=held:1m type=number timeout={{ stream_timeout | number }}s;
    # What it holds outlives a reload: that is how an old worker learns whose streams to cut.
    js_shared_dict_zone zone=live:8m;
    js_shared_dict_zone zone=blocked:1m;
    js_shared_dict_zone zone=figures:8m type=number;
    js_shared_dict_zone zone=asked:256k timeout=60s;
    # Who runs and who waits for it, each with the worker that holds it: a dead worker's are given back.
    js_shared_dict_zone zone=slots:1m timeout={{ stream_timeout | number }}s;
    js_shared_dict_zone zone=queue:1m timeout={{ turn_timeout | number }}s;
    js_var $fortress_principal;
    js_var $fortress_proof;
    js_var $fortress_device;
    js_var $fortress_route unknown;
    js_var $fortress_model;
    js_var $fortress_verdict refused;
    js_var $fortress_reason unread;
    js_var $fortress_body;
    js_var $fortress_upstream;
    js_var $fortress_slot;
    js_var $fortress_waits;
    js_var $fortress_served;
    js_set $fortress_asker gateway.asker;
    js_set $fortress_completion gateway.completion;

    # A relay is known by its fixed address; only its word about the client's address is believed.
    map $realip_remote_addr $fortress_relay {
        default "";
        {{ relay_address | address }} {{ relay | name }};
    }
    set_real_ip_from {{ relay_address | address }};
    real_ip_header proxy_protocol;

    # SNI where there is one must be the Host; without SNI only a tunnel address is served.
    map "$ssl_server_name|$host" $fortress_misdirected {
        default 1;
        "{{ domain | domain }}|{{ domain | domain }}" "";
{% if page %}
        "{{ page.domain | domain }}|{{ page.domain | domain }}" "";
{% endif %}
{% for address in tunnel_addresses %}
        "|{{ address | bracketed }}" "";
        "{{ address | bracketed }}|{{ address | bracketed }}" "";
{% endfor %}
    }

{% if page %}
    # The browser's page: its host as browsers name it, by the listener and the name; nothing on the API's own name.
    map "$server_port|$host" $fortress_page {
        default "";
{% for listener in (8443, 8444) %}
        "{{ listener | number }}|{{ page.domain | domain }}" "{{ page.host | host }}";
{% endfor %}
{% for address, host in page.addresses %}
        "8445|{{ address | bracketed }}" "{{ host | host }}";
{% endfor %}
    }
    js_set $fortress_cookies gateway.cookies;
{% if page.login %}
    upstream login {
        server {{ page.login | address }}:{{ login_port | number }} max_fails=0;
        keepalive 8;
    }
{% endif %}
{% if page.grafana %}
    upstream grafana {
        server {{ page.grafana | address }}:{{ grafana_port | number }} max_fails=0;
        keepalive 8;
    }
{% endif %}

{% endif %}
    # Floods end before any policy; for whoever is known, far above the policy's own limits.
    map $fortress_asker $fortress_known {
        default $fortress_asker;
        ~^- "";
    }
    map $fortress_asker $fortress_stranger {
        default "";
        ~^- $fortress_asker;
    }
    limit_req_zone $fortress_known zone=known:1m rate={{ flood_rate | number }}r/s;
    limit_req_zone $fortress_stranger zone=stranger:1m rate=50r/s;
    limit_req_status 429;
    # Told by the audit trail: an error would show what a stranger has written, in its own letters.
    limit_req_log_level warn;
{% if page %}
    # On the page a body is read before a session is known: one device cannot begin as many as it likes.
    limit_conn_zone $fortress_stranger zone=unproven:1m;
    limit_conn_status 429;
    limit_conn_log_level warn;
{% endif %}

    # The end of every request, and of each only once: the policy writes its line, nginx none.
    access_log /dev/null combined if=$fortress_completion;

    add_header X-Content-Type-Options nosniff always;
    add_header Cache-Control no-store always;
    add_header X-Request-Id $request_id always;
{% if cors %}
    # Where the origin is not a listed one, all three are empty and nginx adds none of them.
    js_set $fortress_origin gateway.origin;
    map $fortress_origin $fortress_expose {
        default "X-Request-Id, Retry-After";
        "" "";
    }
    map $fortress_origin $fortress_vary {
        default Origin;
        "" "";
    }
    add_header Access-Control-Allow-Origin $fortress_origin always;
    add_header Access-Control-Expose-Headers $fortress_expose always;
    add_header Vary $fortress_vary always;
{% endif %}

{% for status in made %}
    error_page {{ status | number }} /-/error/{{ status | number }};
{% endfor %}
    error_page 494 =400 /-/error/494;
    error_page 497 =400 /-/error/497;

    upstream ollama {
        server {{ sidecar | address }}:{{ hop_port | number }} max_fails=0;
        keepalive 32;
        keepalive_requests 100000;
        # Shorter than the sidecar's own: a request never meets a connection that is being closed.
        keepalive_timeout 60s;
    }

    proxy_http_version 1.1;
    proxy_buffering off;
    proxy_request_buffering on;
    proxy_next_upstream off;
    proxy_connect_timeout {{ connect | number }}s;
    proxy_read_timeout {{ read | number }}s;
    proxy_send_timeout 60s;
    proxy_ignore_headers X-Accel-Redirect X-Accel-Expires X-Accel-Limit-Rate X-Accel-Buffering X-Accel-Charset;
    # Nothing of the client's goes on: no key, cookie, origin, address, type or upgrade.
    proxy_pass_request_headers off;
    proxy_set_header Host localhost:{{ ollama_port | number }};
    proxy_set_header Connection "";
    proxy_set_header Content-Type application/json;
    proxy_set_header X-Request-Id $request_id;
    proxy_ssl_protocols TLSv1.3;
    proxy_ssl_certificate /config/current/hop/client.pem;
    proxy_ssl_certificate_key /config/current/hop/client.key;
    proxy_ssl_trusted_certificate /config/current/hop/ca.pem;
    proxy_ssl_verify on;
    proxy_ssl_verify_depth 1;
    proxy_ssl_name {{ sidecar_name | name }};
    proxy_ssl_server_name on;
    proxy_ssl_session_reuse on;

    # Neither SNI nor a name that is ours.
    server {
        listen {{ gateway | address }}:8443 ssl proxy_protocol default_server;
        listen {{ gateway | address }}:8444 ssl default_server;
{% if page %}
        listen {{ gateway | address }}:8445 ssl proxy_protocol default_server;
{% endif %}
        server_name "";
        location / {
            return 444;
        }
"""
    + ERRORS
    + """\
    }

    # A foreign name: as SNI it ends the handshake, as Host the connection.
    server {
        listen {{ gateway | address }}:8443 ssl proxy_protocol;
        listen {{ gateway | address }}:8444 ssl;
{% if page %}
        listen {{ gateway | address }}:8445 ssl proxy_protocol;
{% endif %}
        server_name ~.;
        ssl_reject_handshake on;
        location / {
            return 444;
        }
"""
    + ERRORS
    + """\
    }

    server {
        listen {{ gateway | address }}:8443 ssl proxy_protocol;
        listen {{ gateway | address }}:8444 ssl;
        server_name {{ domain | domain }}{% for address in tunnel_addresses %} {{ address | bracketed }}{% endfor %};

        location @announce {
            js_periodic gateway.announce interval=1s;
        }
        location @heed {
            js_periodic gateway.heed interval=500ms;
        }

        location @keep {
            js_periodic gateway.keep interval=2s;
        }

        location / {
            limit_req zone=known burst={{ flood_burst | number }} nodelay;
            limit_req zone=stranger burst=100 nodelay;
            js_access gateway.nothing;
        }
"""
    + ERRORS
    + LISTS
    + """\
{% for route in routes %}

{% if route.tail and route.body == "unlimited" %}
        # Without this line nginx would answer the path without its last slash by itself, with a redirect.
        location = {{ route.path[:-1] | path }} {
            js_access gateway.nothing;
        }
{% endif %}
"""
    + ROUTE
    + """\
{% endfor %}
    }

{% if page %}
    # The page, by its name, and at the tunnel address on a port of its own.
    server {
        listen {{ gateway | address }}:8443 ssl proxy_protocol;
        listen {{ gateway | address }}:8444 ssl;
        server_name {{ page.domain | domain }};
        include /config/current/browser.conf;
    }

    server {
        listen {{ gateway | address }}:8445 ssl proxy_protocol;
        server_name{% for address in tunnel_addresses %} {{ address | bracketed }}{% endfor %};
        include /config/current/browser.conf;
    }

{% endif %}
    # How it is, and its figures. Here, and on `watch` where there is one; no client has a way to either.
    server {
        listen 127.0.0.1:8081;
{% if watch %}
        listen {{ watch | address }}:{{ metrics_port | number }};
{% endif %}
        access_log off;
        location = /healthz {
            return 204;
        }
        location = /metrics {
            js_import exporter from exporter.js;
            js_content exporter.scrape;
        }
        location @tend {
            js_import exporter from exporter.js;
            js_periodic exporter.tend interval=1s;
        }
{% for path in asked %}
        location = /-{{ path | path }} {
            internal;
            # A dead Ollama holds a scrape up for two seconds at most: to connect, TLS, the answer.
            proxy_connect_timeout 500ms;
            proxy_read_timeout 1s;
            subrequest_output_buffer_size 1m;
            proxy_pass https://ollama{{ path | path }};
        }
{% endfor %}
        location / {
            return 404;
        }
"""
    + ERRORS
    + """\
    }
}
"""
)

_SIDECAR = template(
    """\
# {{ generated }}
worker_processes 1;
pid /tmp/nginx.pid;
error_log stderr error;

events {
    worker_connections 4096;
}

http {
"""
    + _COMMON
    + """\
    access_log off;
    keepalive_timeout 300s;
    keepalive_requests 100000;
    client_max_body_size 0;  # the gateway has judged and written every body

    upstream ollama {
        server {{ ollama | address }}:{{ ollama_port | number }} max_fails=0;
        keepalive 32;
    }

    server {
        listen {{ sidecar | address }}:{{ hop_port | number }} ssl;
        server_name {{ sidecar_name | name }};
        ssl_certificate /config/current/tls/server.pem;
        ssl_certificate_key /config/current/tls/server.key;
        # An authority of its own that has signed one client: the gateway.
        ssl_client_certificate /config/current/client-ca.pem;
        ssl_verify_client on;
        ssl_verify_depth 1;
        # Without Ollama the connection just ends: what a caller is told, the gateway says.
        error_page 502 504 @away;
        location @away {
            return 444;
        }
        location / {
            proxy_pass http://ollama;
            proxy_http_version 1.1;
            proxy_set_header Host localhost:{{ ollama_port | number }};
            proxy_set_header Connection "";
            proxy_buffering off;
            proxy_request_buffering off;
            proxy_next_upstream off;
            proxy_connect_timeout {{ connect | number }}s;
            proxy_read_timeout {{ read | number }}s;
        }
    }

    server {
        listen 127.0.0.1:8081;
        location = /healthz {
            return 204;
        }
        location / {
            return 404;
        }
    }
}
"""
)


@cache
def _table() -> dict[str, Any]:
    return json.loads(ROUTES.read_text())


def routes(version: str, *, model_upload: bool = False) -> tuple[dict[str, Any], ...]:
    """The rows of gateway/routes.json that are open to anybody at all under this Ollama, in path order.

    Raises: ValueError naming a version whose routes nobody has read: it may have new ones.
    """
    if version not in _table()["pinned"]:
        known = ", ".join(_table()["pinned"])
        raise ValueError(f"the routes of Ollama {version} are not known; known are {known}. Read them first")
    switches = {"model_upload"} if model_upload else set()
    return tuple(
        row
        for row in sorted(_table()["routes"], key=lambda row: row["path"])
        if row.get("needs") in {None, *switches}
        and _parts(row.get("since", "0")) <= _parts(version) < _parts(row.get("until", "9999"))
    )


def _parts(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))


def location_rows(settings: StackSettings) -> list[dict[str, Any]]:
    """The open routes as their locations need them."""
    ollama_version = catalogue.load().ollama_version(settings.engine.value)
    limits = {
        "none": SMALL_BODY,
        "small": SMALL_BODY,
        "inference": settings.gateway.body_limit_mb * 1024 * 1024,
        "unlimited": 0,
    }
    return [
        {
            "path": row["path"],
            "tail": row.get("tail", ""),
            "class": row["class"],
            "list": row.get("list", False),
            "own": row.get("own", False),
            "page": row.get("page", False),
            "body": row["body"],
            "body_limit": limits[row["body"]],
            "unproven": 0,
        }
        for row in routes(ollama_version, model_upload=settings.gateway.model_upload)
    ]


def flood_burst(settings: StackSettings) -> int:
    """Requests at once that are no flood yet: far above the policy's own limits."""
    all_limits = [settings.limits_of(user) for user in settings.users]
    return max(100, *(each.burst + each.reads_per_minute for each in all_limits))


def gateway(settings: StackSettings, plan: Plan) -> str:
    """One location per open route, in path order; the upstream path is a constant, the query is dropped."""
    own = settings.wireguard
    assert own is not None, "settings without a wireguard section never get here"
    rows = location_rows(settings)
    all_limits = [settings.limits_of(user) for user in settings.users]
    per_minute = max(each.requests_per_minute + each.reads_per_minute for each in all_limits)
    return _GATEWAY.render(
        routes=rows,
        access="admit",
        page=_page(settings, plan),
        login_port=LOGIN_PORT,
        grafana_port=GRAFANA_PORT,
        cors=bool(settings.gateway.cors_origins),
        lists=[row["path"] for row in rows if row["list"]],
        flood_rate=max(50, per_minute * 2 // 60),
        flood_burst=flood_burst(settings),
        made=MADE,
        domain=settings.domain,
        tunnel_addresses=[own.server4, own.server6],
        relay=RELAY,
        relay_address=plan.edge.vpn_node,
        gateway=plan.edge.gateway,
        watch=plan.watch.gateway if settings.observability.watched else None,
        metrics_port=METRICS_PORT,
        asked=["/api/ps", "/api/version"],
        sidecar=plan.model.sidecar,
        sidecar_name=SIDECAR_NAME,
        hop_port=HOP_PORT,
        ollama_port=OLLAMA_PORT,
        connect=settings.gateway.connect_timeout_s,
        read=settings.gateway.read_timeout_s,
        stream_timeout=settings.gateway.longest_silence_s,
        turn_timeout=settings.gateway.queue_wait_s + 60,
    )


def _page(settings: StackSettings, plan: Plan) -> dict[str, Any] | None:
    own = settings.wireguard
    if settings.browser is None or own is None:
        return None
    addresses = zip((own.server4, own.server6), settings.browser_hosts[1:], strict=True)
    return {
        "domain": settings.browser_domain,
        "host": settings.browser_hosts[0],
        "addresses": list(addresses),
        "login": plan.edge.login if settings.login else None,
        "grafana": plan.watch.grafana if settings.dashboards else None,
    }


def sidecar(settings: StackSettings, plan: Plan) -> str:
    """mTLS in, plain HTTP to the one neighbour; nothing is buffered."""
    return _SIDECAR.render(
        ollama=plan.heart.ollama,
        sidecar=plan.model.sidecar,
        sidecar_name=SIDECAR_NAME,
        hop_port=HOP_PORT,
        ollama_port=OLLAMA_PORT,
        connect=settings.gateway.connect_timeout_s,
        # Never the first to give up: the gateway's own timeout decides.
        read=settings.gateway.read_timeout_s + 30,
    )
