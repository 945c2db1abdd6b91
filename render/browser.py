"""The page's own server: exact locations for its files, the routes that it calls, and the steps of a login."""

from render import grafana, page
from render.nginx import ERRORS, LISTS, LOGIN_PORT, MADE, OLLAMA_PORT, ROUTE, flood_burst, location_rows
from render.syntax import template
from settings import StackSettings

__all__ = ["LOGIN_PORT", "server"]

BODY_LIMIT = 1024 * 1024
"""Bytes: a body is read before the session behind its cookie is known."""

_TOLD = """\
            proxy_set_header Content-Length "";
            proxy_set_header Connection "";
            proxy_set_header Host $fortress_page;
            proxy_set_header Cookie $fortress_cookies;
            proxy_set_header X-Real-IP $remote_addr;
            proxy_set_header X-Forwarded-For $remote_addr;
            proxy_set_header X-Forwarded-Host $fortress_page;
            proxy_set_header X-Forwarded-Proto https;
"""
"""All that the login service is told of a request: its own cookies, and what the gateway itself knows."""

_SERVER = template(
    """\
# {{ generated }}
# Included by each server of the page. Its own headers: one add_header here takes away all of the level above.
        add_header X-Content-Type-Options nosniff always;
        add_header Cache-Control no-store always;
        add_header X-Request-Id $request_id always;
        add_header Content-Security-Policy "default-src 'none'; script-src 'self'; style-src 'self'; \
connect-src 'self'; img-src 'self' data:; form-action 'self'; frame-ancestors 'none'; base-uri 'none'" always;
        add_header Referrer-Policy no-referrer always;
        add_header Cross-Origin-Opener-Policy same-origin always;
        add_header Cross-Origin-Resource-Policy same-origin always;
        add_header Strict-Transport-Security max-age=31536000 always;
        # Else nginx makes its own port, which no browser reaches, part of a redirect.
        absolute_redirect off;
        root /config/current/page;
        etag off;
        if_modified_since off;

        location / {
            limit_req zone=known burst={{ flood_burst | number }} nodelay;
            limit_req zone=stranger burst=100 nodelay;
            js_access gateway.nothing;
        }
"""
    + ERRORS
    + LISTS
    + """\
{% for file in files %}

        location = {{ file.path | path }} {
            limit_req zone=known burst={{ flood_burst | number }} nodelay;
            limit_req zone=stranger burst=100 nodelay;
            js_access gateway.enter;
            default_type {{ file.type | mediatype }};
            types { }
            # There is no secret in these files that their compressed length could tell.
            gzip on;
            gzip_types text/css text/javascript image/svg+xml;
            try_files /{{ file.name | name }} =404;
        }
{% endfor %}
{% for route in routes %}

"""
    + ROUTE
    + """\
{% endfor %}
{% if grafana %}

        # Without this line nginx would answer the path without its last slash by itself, with a redirect.
        location = {{ grafana.path[:-1] | path }} {
            js_access gateway.nothing;
        }

        # For admins. Its headers are its own: the page's would forbid its scripts. The policy says who reads.
        location ^~ {{ grafana.path | path }} {
            limit_req zone=known burst=1000 nodelay;
            # A session is a stranger to nginx, and a dashboard asks much at once.
            limit_req zone=stranger burst=1000 nodelay;
            client_max_body_size {{ body_limit | number }};
            js_access gateway.enter;
            add_header X-Request-Id $request_id always;
            add_header Referrer-Policy no-referrer always;
            add_header Strict-Transport-Security max-age=31536000 always;
            proxy_intercept_errors off;
            proxy_hide_header Set-Cookie;
            proxy_redirect off;
            proxy_read_timeout 60s;
            proxy_set_header Host $fortress_page;
            proxy_set_header Connection "";
            proxy_set_header Content-Type $content_type;
            proxy_set_header Accept-Encoding $http_accept_encoding;
            proxy_set_header Origin $http_origin;
            proxy_set_header X-Forwarded-Proto https;
            proxy_set_header {{ grafana.header | name }} $fortress_principal;
            proxy_pass http://grafana;
        }
{% endif %}
{% if login %}

        # Who is behind a session cookie? Asked by the policy alone. Slow or broken means nobody.
        location = /-/session {
            internal;
            # The body of the request that is asked about is looked at here once more, and does not go on.
            client_max_body_size {{ body_limit | number }};
            proxy_method GET;
            proxy_pass_request_body off;
            proxy_connect_timeout 2s;
            proxy_read_timeout 5s;
"""
    + _TOLD
    + """\
            proxy_set_header X-Forwarded-Uri /oauth2/auth;
            proxy_pass http://login/oauth2/auth;
        }
{% for step in steps %}

        location = {{ step.path | path }} {
            limit_req zone=known burst={{ flood_burst | number }} nodelay;
            limit_req zone=stranger burst=100 nodelay;
            js_access gateway.step;
            # Its words for a login service that is away would hold a code of the provider's; the audit line holds none.
            error_log stderr crit;
{% if step.query %}
            js_header_filter gateway.home;
{% else %}
            # Wherever the client would like to go afterwards: it goes to the page.
            set $args "";
{% if step.back %}
            js_header_filter gateway.home;
{% endif %}
{% endif %}
            # The login service's own pages are not shown: their styles and scripts come from elsewhere.
            proxy_intercept_errors on;
            error_page 401 =403 /-/error/401;
{% for status in made %}
            error_page {{ status | number }} /-/error/{{ status | number }};
{% endfor %}
            proxy_connect_timeout 2s;
            proxy_read_timeout 20s;
            proxy_pass_request_body off;
            proxy_hide_header Cache-Control;
"""
    + _TOLD
    + """\
            proxy_set_header X-Forwarded-Uri {{ step.path | path }};
            proxy_set_header X-Auth-Request-Redirect /;
            proxy_pass http://login{{ step.path | path }};
        }
{% endfor %}
{% endif %}
"""
)

_STEPS = (
    {"path": "/oauth2/callback", "query": True, "back": True},
    {"path": "/oauth2/sign_out", "query": False, "back": True},
    {"path": "/oauth2/start", "query": False, "back": False},
)
"""query: what the provider says comes in it. back: its answer leads to the page, never elsewhere."""


def server(settings: StackSettings) -> str:
    """What both servers of the page include; the steps of a login only where a provider is configured."""
    most = settings.gateway.queue_per_user + max(settings.limits_of(user).concurrent for user in settings.users)
    rows = [
        row | {"body_limit": min(row["body_limit"], BODY_LIMIT), "unproven": most if row["body"] == "inference" else 0}
        for row in location_rows(settings)
        if row["page"]
    ]
    return _SERVER.render(
        files=[
            {"path": path, "name": name, "type": page.TYPES[name[name.rindex(".") :]]}
            for path, name in page.paths().items()
        ],
        routes=rows,
        lists=[row["path"] for row in rows if row["list"]],
        access="enter",
        flood_burst=flood_burst(settings),
        login=settings.login is not None,
        grafana={"path": grafana.PATH, "header": grafana.USER_HEADER} if settings.dashboards else None,
        steps=_STEPS,
        body_limit=BODY_LIMIT,
        made=(403, *MADE),
        ollama_port=OLLAMA_PORT,
    )
