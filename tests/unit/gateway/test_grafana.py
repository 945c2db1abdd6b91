"""Grafana behind the page: admins alone get there, and it hears of them what the gateway knows, and nothing else."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from render.nginx import GRAFANA_PORT
from tests.unit.gateway.harness import KEYS, PAGE, STRANGER, TUNNEL4, Bench, Reply, settings
from tests.unit.gateway.login_stand_in import LoginStandIn, login_stand_in
from tests.unit.gateway.test_session import COOKIE, PEOPLE, PROVIDER

ALICES, CAROLS = "10.66.3.4", "10.66.7.8"
MAIL = "root@example.com"


class GrafanaStandIn:
    def __init__(self, address: str) -> None:
        self.asked: list[tuple[str, str, dict[str, str], bytes]] = []
        told = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                headers = {name.lower(): value for name, value in self.headers.items()}
                body = self.rfile.read(int(headers.get("content-length", 0)))
                told.asked.append((self.command, self.path, headers, body))
                self.send_response(200)
                self.send_header("Set-Cookie", "grafana_session=x")
                self.send_header("Content-Security-Policy", "script-src 'nonce-1'")
                self.send_header("Content-Length", "2")
                self.end_headers()
                self.wfile.write(b"ok")

            do_POST = do_GET

            def log_message(self, format: str, *args: object) -> None:
                return

        self.server = ThreadingHTTPServer((address, GRAFANA_PORT), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture(scope="module")
def login(bench: Bench) -> Iterator[LoginStandIn]:
    with login_stand_in(bench.host(1)) as told:
        yield told


@pytest.fixture(scope="module")
def grafana(bench: Bench, login: LoginStandIn) -> Iterator[GrafanaStandIn]:
    stand_in = GrafanaStandIn(bench.host(1))
    people = {**PEOPLE, "alice": {**PEOPLE["alice"], "email": MAIL}}
    bench.reload(settings(people, {"browser": PROVIDER, "observability": "full"}))
    try:
        yield stand_in
    finally:
        bench.reload(settings(model_upload=True))
        stand_in.server.shutdown()
        stand_in.server.server_close()


def ask(bench: Bench, method: str, path: str, address: str, cookie: str = "", **how: Any) -> Reply:
    headers = {"X-Fortress-User": "somebody-else", "X-Grafana-User": "x", "Authorization-Basic": "y"}
    if cookie:
        headers["Cookie"] = cookie
    headers |= how.pop("headers", {})
    return bench.ask(method, path, host=PAGE, sni=PAGE, address=address, headers=headers, **how)


def test_an_admin_reads_and_grafana_knows_who_it_is_by_the_gateway_alone(bench: Bench, grafana: GrafanaStandIn):
    grafana.asked.clear()
    reply = ask(bench, "GET", "/grafana/d/overview?from=now-1h", ALICES, cookie="grafana_session=forged")
    assert (reply.status, reply.body) == (200, b"ok")
    [(method, path, headers, _)] = grafana.asked
    assert (method, path, headers["x-fortress-user"]) == ("GET", "/grafana/d/overview?from=now-1h", "alice")
    assert headers["host"] == PAGE
    assert not headers.keys() & {"cookie", "authorization", "authorization-basic", "x-grafana-user"}
    assert reply.headers["content-security-policy"] == "script-src 'nonce-1'", "the page's own would forbid its scripts"
    assert "set-cookie" not in reply.headers
    line = bench.audit()[-1]
    assert (line["principal"], line["route"], line["verdict"]) == ("alice", "/grafana/", "allowed")


def test_a_question_of_a_panel_arrives_whole_also_from_a_session(
    bench: Bench, grafana: GrafanaStandIn, login: LoginStandIn
):
    login.says(202, MAIL)
    for how in ({"address": ALICES}, {"address": STRANGER, "cookie": COOKIE}):
        grafana.asked.clear()
        body = {"queries": [{"expr": "up" * 20_000}]}
        reply = ask(bench, "POST", "/grafana/api/ds/query", body=body, headers={"Origin": f"https://{PAGE}"}, **how)
        assert reply.status == 200
        [(method, _, headers, got)] = grafana.asked
        assert (method, json.loads(got), headers["x-fortress-user"]) == ("POST", body, "alice")


@pytest.mark.parametrize("path", ["/grafana/", "/grafana/d/overview", "/grafana/api/ds/query"])
def test_nobody_else_gets_there(path: str, bench: Bench, grafana: GrafanaStandIn, login: LoginStandIn):
    grafana.asked.clear()
    login.says(401)
    assert ask(bench, "GET", path, CAROLS).status == 403
    assert ask(bench, "GET", path, STRANGER, headers={"Authorization": f"Bearer {KEYS['robot']}"}).status == 403
    stranger = ask(bench, "GET", path, STRANGER, cookie=COOKIE)
    assert stranger.status == (302 if path == "/grafana/" else 401)
    login.says(202, "bob@example.com")
    assert ask(bench, "GET", path, STRANGER, cookie=COOKIE).status == 403
    for method in ("PUT", "DELETE", "PATCH"):
        assert ask(bench, method, path, ALICES).status == 405
    assert not grafana.asked


def test_another_sites_page_asks_nothing(bench: Bench, grafana: GrafanaStandIn):
    grafana.asked.clear()
    headers = {"Origin": "https://evil.example"}
    forged = ask(bench, "POST", "/grafana/api/ds/query", ALICES, body={}, headers=headers)
    assert (forged.status, bench.audit()[-1]["reason"]) == (403, "cross-site")
    assert not grafana.asked


LOKI = "/grafana/api/datasources/proxy/uid/loki"


def test_nobody_writes_through_grafanas_data_sources_or_stops_them(bench: Bench, grafana: GrafanaStandIn):
    """Loki takes lines and its end from whoever reaches it; Grafana hands on what is below a data source's proxy."""
    resources = "/grafana/api/datasources/uid/loki/resources"
    for path in ("/labels?start=1", "/label/kind/values?start=1", "/series?match=x", "/index/stats?query=x"):
        assert ask(bench, "GET", resources + path, ALICES).status == 200
    assert [path for _, path, _, _ in grafana.asked if path.startswith(resources)]
    grafana.asked.clear()
    for method in ("GET", "POST"):
        for path in (f"{LOKI}/loki/api/v1/push", f"{LOKI}/ingester/shutdown", f"{LOKI}/loki/api/v1/labels"):
            assert ask(bench, method, path, ALICES).status == 404
        assert ask(bench, method, f"{resources}/label/%252e%252e/push", ALICES).status == 404
    for path in (
        f"{resources}/labels",
        "/grafana/api/alertmanager/alertmanager/api/v2/silences",
        "/grafana/api/annotations",
    ):
        assert ask(bench, "POST", path, ALICES, body={}).status == 405
    assert not grafana.asked


@pytest.mark.parametrize(
    "path",
    [
        "/grafana/api/%64atasources/proxy/uid/loki/loki/api/v1/push",
        "/grafana/api/datasources/%70roxy/uid/loki/loki/api/v1/push",
        "/grafana/api/datasources//proxy/uid/loki/loki/api/v1/push",
        "/grafana/../api/tags",
        "/x/../grafana/d",
        "/%67rafana/d",
        "/grafana/a/../b",
        "/grafana/%2e%2e/b",
        "/grafana",
    ],
)
def test_other_spellings_lead_nowhere(path: str, bench: Bench, grafana: GrafanaStandIn):
    grafana.asked.clear()
    assert ask(bench, "GET", path, ALICES).status == 404
    assert not grafana.asked


def test_the_panel_is_told_and_the_apis_own_name_has_none(bench: Bench, grafana: GrafanaStandIn):
    assert ask(bench, "GET", "/fortress/me", ALICES).json["dashboards"] is True
    assert ask(bench, "GET", "/fortress/me", CAROLS).json["dashboards"] is False
    assert bench.ask("GET", "/grafana/", key=KEYS["alice"]).status == 404
    assert bench.ask("GET", "/grafana/", host=TUNNEL4, sni=None, port=8443, address=ALICES).status == 404
