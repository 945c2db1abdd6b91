"""The Gateway's nginx as a bare proxy: what the policy is compared with.

The same image, certificates, number of workers and TLS settings, kept-alive mTLS to the same sidecar, a buffered
access log. No njs, no policy, no audit.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from bench import scene
from render.nginx import HOP_PORT, OLLAMA_PORT, SIDECAR_NAME
from tests.deployment import Deployment

_CONF = """\
worker_processes 1;
pid /tmp/nginx.pid;
error_log stderr error;
events {{
    worker_connections 4096;
}}
http {{
    client_body_temp_path /tmp/body;
    proxy_temp_path /tmp/proxy;
    fastcgi_temp_path /tmp/fastcgi;
    uwsgi_temp_path /tmp/uwsgi;
    scgi_temp_path /tmp/scgi;
    access_log /tmp/access.log combined buffer=64k flush=1s;
    client_max_body_size 20m;
    client_body_buffer_size 256k;
    keepalive_requests 1000;
    ssl_protocols TLSv1.3;
    ssl_ecdh_curve ?X25519MLKEM768:X25519:prime256v1:secp384r1;
    ssl_session_tickets off;
    ssl_session_cache off;
    upstream ollama {{
        server {sidecar}:{hop};
        keepalive 32;
        keepalive_requests 100000;
    }}
    server {{
        listen {address}:{port} ssl;
        server_name {domain};
        ssl_certificate /config/current/tls/server.pem;
        ssl_certificate_key /config/current/tls/server.key;
        location / {{
            proxy_pass https://ollama;
            proxy_http_version 1.1;
            proxy_buffering off;
            proxy_set_header Host localhost:{ollama};
            proxy_set_header Connection "";
            proxy_ssl_protocols TLSv1.3;
            proxy_ssl_certificate /config/current/hop/client.pem;
            proxy_ssl_certificate_key /config/current/hop/client.key;
            proxy_ssl_trusted_certificate /config/current/hop/ca.pem;
            proxy_ssl_verify on;
            proxy_ssl_verify_depth 1;
            proxy_ssl_name {sidecar_name};
            proxy_ssl_server_name on;
        }}
    }}
}}
"""


@contextmanager
def proxy(deployment: Deployment, user: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """A bare proxy that runs. Yields: its container, and the way to it, which is the Gateway's but for the address."""
    own = scene.config(deployment)
    conf = _CONF.format(
        sidecar=own.plan.model.sidecar,
        hop=HOP_PORT,
        sidecar_name=SIDECAR_NAME,
        ollama=OLLAMA_PORT,
        address=own.plan.edge.cidr.network_address + scene.BARE_ADDRESS,
        port=scene.GATEWAY_PORT,
        domain=own.domain,
    )
    script = 'printf %s "$0" >/tmp/nginx.conf && exec nginx -c /tmp/nginx.conf -g "daemon off;"'
    more = ("--tmpfs", "/var/log/nginx")
    made = scene.beside_the_gateway(deployment, scene.BARE_ADDRESS, "sh", "-c", script, conf, more=more)
    with made as (container, address):
        yield container, scene.through(deployment, user) | {"address": address}
