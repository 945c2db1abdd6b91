"""The page's plain functions, under the engine that runs them for real."""

from typing import Any

import pytest

from tests.unit.gateway.harness import Bench

KNOWN: dict[str, Any] = {
    "browser": {"provider": True, "files": ["/", "/chat.js"], "epoch": "1"},
    "emails": {"bob@example.com": "bob"},
    "users": {"bob": {"service": False}, "ci": {"service": True}},
}
KEYLESS = KNOWN | {"browser": {"provider": False, "files": ["/"]}, "emails": {}}
ROWS = [{"path": "/api/chat", "page": True}, {"path": "/api/generate"}, {"path": "/v1/models/", "tail": "model"}]


@pytest.mark.parametrize(
    ("header", "left"),
    [
        (None, ""), ("", ""), ("a=1; b=2", ""), ("__Host-fortress=x", "__Host-fortress=x"),
        ("a=1;__Host-fortress=x;b", "__Host-fortress=x"), ("__Host-fortress_1=x; __Host-fortress_ab_csrf=y; z",
            "__Host-fortress_1=x; __Host-fortress_ab_csrf=y"),
        ("__Host-fortressed=x; __host-fortress=x; _oauth2_proxy=x; x__Host-fortress=x", ""),
        ("a=__Host-fortress=x", ""), ("__Host-fortress=a=b", "__Host-fortress=a=b"),
    ],
)  # fmt: skip
def test_of_all_cookies_only_the_login_services_own_are_left(header: str | None, left: str, bench: Bench):
    assert bench.call("cookies", header) == left


@pytest.mark.parametrize(
    ("known", "cookie", "authorization", "asks"),
    [
        (KNOWN, "__Host-fortress=x", None, True), (KNOWN, "__Host-fortress_0=x", None, True),
        (KNOWN, "__Host-fortress=x", "Bearer y", False), (KNOWN, "__Host-fortress=x", "", False),
        (KNOWN, "__Host-fortress_a_csrf=x", None, False), (KNOWN, "", None, False), (KNOWN, None, None, False),
        (KEYLESS, "__Host-fortress=x", None, False), (KNOWN | {"browser": None}, "__Host-fortress=x", None, False),
    ],
)  # fmt: skip
def test_the_login_service_is_asked_only_about_a_session_and_only_beside_no_key(
    known: dict[str, Any], cookie: str | None, authorization: str | None, asks: bool, bench: Bench
):
    rest = [] if authorization is None else [authorization]
    assert bench.call("asks", known, cookie, *rest) is asks


@pytest.mark.parametrize(
    ("path", "raw", "found"),
    [
        ("/", "/?x=1", {"path": "/", "file": True}), ("/chat.js", "/chat.js", {"path": "/chat.js", "file": True}),
        ("/chat.js", "/%63hat.js", None), ("/api/chat", "/api/chat", {"path": "/api/chat"}),
        ("/api/generate", "/api/generate", None), ("/v1/models/tiny", "/v1/models/tiny", None),
    ],
)  # fmt: skip
def test_the_pages_own_routes_are_its_files_and_the_marked_ones(
    path: str, raw: str, found: dict[str, Any] | None, bench: Bench
):
    row = bench.call("pageRouteOf", ROWS, KNOWN, path, raw)
    assert (row is None) == (found is None)
    assert found is None or found.items() <= row.items()
    assert bench.call("pageRouteOf", ROWS, KNOWN | {"browser": None}, "/", "/") is None


@pytest.mark.parametrize(
    ("path", "raw", "there"),
    [
        ("/grafana/", "/grafana/", True), ("/grafana/d/x", "/grafana/d/x?from=now-1h", True),
        ("/grafana", "/grafana", False), ("/grafana/d", "/x/../grafana/d", False),
        ("/grafana/d", "/%67rafana/d", False),
        ("/grafana/d", "/grafana/x/../d", False), ("/grafana/d", "/grafana/x/%2e%2e/d", False),
        ("/grafana/ä", "/grafana/%C3%A4", True), ("/grafana/d", "/grafana/%", False),
        ("/grafana/api", "/grafana/../grafana/api", False),
    ],
)  # fmt: skip
def test_grafana_is_what_is_below_its_folder_as_the_client_wrote_it(path: str, raw: str, there: bool, bench: Bench):
    browser = {**KNOWN["browser"], "dashboards": True}
    row = bench.call("pageRouteOf", ROWS, KNOWN | {"browser": browser}, path, raw)
    assert (row is not None) == there
    assert not there or (row["path"], row["role"]) == ("/grafana/", "admin")
    assert bench.call("pageRouteOf", ROWS, KNOWN, path, raw) is None


FLAGS = "/grafana/apis/features.grafana.app/v0alpha1/namespaces/default/ofrep/v1/evaluate/flags"


@pytest.mark.parametrize(
    ("path", "methods"),
    [
        ("/grafana/api/ds/query", ["POST"]), (FLAGS, ["POST"]), ("/grafana/d/x", ["GET", "HEAD"]),
        ("/grafana/api/frontend-metrics", ["POST"]),
        ("/grafana/api/datasources/uid/loki/resources/labels", ["GET", "HEAD"]),
        ("/grafana/api/ds/query/x", ["GET", "HEAD"]), ("/grafana/x/api/ds/query", ["GET", "HEAD"]),
        ("/grafana/api/datasources/uid/loki/resources/label/%2e%2e/push", None),
        ("/grafana/api/datasources/proxy/uid/loki/loki/api/v1/push", None),
        ("/grafana/api/datasources/proxy/2/ingester/shutdown", None),
        ("/grafana/api/plugin-proxy/x/y", None), ("/grafana/apis/loki.datasource.grafana.app/v0/x/proxy", None),
    ],
)  # fmt: skip
def test_grafana_is_asked_for_what_changes_nothing(path: str, methods: list[str] | None, bench: Bench):
    browser = {**KNOWN["browser"], "dashboards": True}
    row = bench.call("pageRouteOf", ROWS, KNOWN | {"browser": browser}, path, path.replace("%", "%25"))
    assert (row and row["methods"]) == methods


@pytest.mark.parametrize(
    ("status", "email", "row", "expected"),
    [
        (202, "bob@example.com", None, {"user": "bob", "ticket": "s:1|bob|bob@example.com", "device": ""}),
        (202, "BOB@example.com", {"user": "bob", "device": "laptop"}, {"user": "bob", "device": "laptop"}),
        (202, "bob@example.com", {"user": "ci", "device": "laptop"}, {"user": "bob", "device": ""}),
        (401, "bob@example.com", None, None), (202, "eve@example.com", None, {"status": 403}),
        (202, None, None, {"status": 403}), (202, "constructor", None, {"status": 403}),
        (200, "bob@example.com", None, {"status": 503}), (500, None, None, {"status": 503}),
    ],
)  # fmt: skip
def test_who_asks_is_who_the_login_service_says_and_the_config_has(
    status: int, email: str | None, row: dict[str, str] | None, expected: dict[str, Any] | None, bench: Bench
):
    found = bench.call("caller", KNOWN, status, email, row)
    assert (found is None) == (expected is None)
    assert expected is None or expected.items() <= found.items()


def test_a_service_has_no_page(bench: Bench):
    assert bench.call("service", KNOWN, {"user": "ci"})["status"] == 403
    assert bench.call("service", KNOWN, {"user": "bob"}) is None
    assert bench.call("service", KNOWN, None) is None


@pytest.mark.parametrize(
    ("path", "method", "site", "status"),
    [
        ("/oauth2/start", "GET", "cross-site", None), ("/oauth2/callback", "GET", "cross-site", None),
        ("/oauth2/sign_out", "GET", "cross-site", 403), ("/oauth2/sign_out", "GET", "same-site", 403),
        ("/oauth2/sign_out", "GET", "same-origin", None), ("/oauth2/sign_out", "GET", "none", None),
        ("/oauth2/sign_out", "GET", None, None), ("/oauth2/start", "POST", None, 405),
    ],
)  # fmt: skip
def test_which_steps_of_a_login_may_be_made(path: str, method: str, site: str | None, status: int | None, bench: Bench):
    refusal = bench.call("step", path, method, site)
    assert (refusal and refusal["status"]) == status


@pytest.mark.parametrize(
    ("path", "status", "shown"),
    [
        ("/oauth2/callback", 401, (403, "login-failed")), ("/oauth2/callback", 403, (403, "login-failed")),
        ("/oauth2/callback", 500, (500, "login-failed")), ("/oauth2/start", 502, (503, "login-away")),
        ("/oauth2/start", 504, (503, "login-away")), ("/oauth2/start", 429, None), ("/api/chat", 502, None),
    ],
)  # fmt: skip
def test_what_a_refusal_of_the_login_service_means(path: str, status: int, shown: tuple[int, str] | None, bench: Bench):
    refusal = bench.call("failed", path, status)
    assert (refusal and (refusal["status"], refusal["reason"])) == shown


@pytest.mark.parametrize(
    ("path", "status", "reason", "provider", "says"),
    [
        ("/", 401, "no-identity", True, "/oauth2/start?rd=%2F"), ("/", 401, "no-identity", False, "Who are you?"),
        ("/", 403, "not-in-the-list", True, "You may not come in"), ("/", 403, "blocked", True, "This did not work"),
        ("/", 429, "flood", True, "Slow down"), ("/", 503, "login-away", True, "Not right now"),
        ("/oauth2/callback", 403, "login-failed", True, "The sign-in did not work"),
        ("/oauth2/nothing", 404, "unknown-route", True, "This did not work"),
    ],
)  # fmt: skip
def test_what_a_person_is_shown(path: str, status: int, reason: str, provider: bool, says: str, bench: Bench):
    refusal = {"status": status, "reason": reason, "says": "words", "headers": {"Retry-After": "1"}}
    shown = bench.call("shown", path, refusal, provider)
    if says.startswith("/"):
        assert shown == {"status": 302, "headers": {}, "body": says}
        return
    assert says in shown["body"]
    assert shown["status"] == status
    assert shown["headers"] == {"Content-Type": "text/html", "Retry-After": "1"}


def test_a_program_is_shown_no_page(bench: Bench):
    assert bench.call("shown", "/api/chat", {"status": 401, "reason": "no-identity", "headers": {}}, True) is None
