"""Pages of listed sites may call with a key and read every answer; no other page may read any."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from render import nginx
from tests.unit.gateway.harness import DOMAIN, KEYS, Bench, settings
from tests.unit.gateway.test_deployed_policy import CHAT, generate

PAGE, OTHER_PAGE = "https://chat.example.com", "http://localhost:3000"
LAPTOP = "10.66.3.4"
BOB = KEYS["bob"]
ASKS = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization,content-type"}
FOREIGN = [
    "https://evil.example", "null", "*", "", "https://chat.example.com.evil.example", "http://chat.example.com",
    "https://chat.example.com:8443", "https://CHAT.example.com", "https://chat.example.com/",
    f"{PAGE}, https://evil.example", f"https://{DOMAIN}",
]  # fmt: skip


@pytest.fixture(scope="module")
def listing(bench: Bench) -> Iterator[Bench]:
    bench.reload(settings(model_upload=True, cors_origins=[PAGE, OTHER_PAGE]))
    yield bench
    bench.reload(settings(model_upload=True))


def cors(reply: Any) -> dict[str, str]:
    return {name: value for name, value in reply.headers.items() if name.startswith("access-control") or name == "vary"}


READABLE = {
    "access-control-allow-origin": PAGE,
    "access-control-expose-headers": "X-Request-Id, Retry-After",
    "vary": "Origin",
}


@pytest.mark.parametrize("route", json.loads(nginx.ROUTES.read_text())["routes"], ids=lambda route: route["path"])
def test_a_listed_page_may_ask_before_it_sends_on_every_route(route: dict[str, Any], listing: Bench):
    listing.forget()
    path = route["path"] + {"model": "tiny", "digest": "sha256:" + "a" * 64}.get(route.get("tail", ""), "")
    reply = listing.ask("OPTIONS", path, headers={"Origin": PAGE, **ASKS})
    assert (reply.status, reply.body) == (204, b"")
    assert cors(reply) == READABLE | {
        "access-control-allow-methods": ", ".join(route["methods"]),
        "access-control-allow-headers": "Authorization, Content-Type, X-Api-Key, *",
        "access-control-max-age": "600",
    }
    line = listing.audit()[-1]
    assert (line["verdict"], line["reason"], line["route"]) == ("allowed", "preflight", route["path"])
    assert listing.heard() == []


@pytest.mark.parametrize("origin", FOREIGN)
def test_any_other_origin_gets_no_header_and_options_stays_a_wrong_method(origin: str, listing: Bench):
    headers = {"Origin": origin, **ASKS}
    for key, wanted in ((None, 401), (BOB, 405)):
        reply = listing.ask("OPTIONS", "/api/chat", headers=headers, key=key)
        assert (reply.status, cors(reply)) == (wanted, {})
    reply = listing.ask("POST", "/api/chat", headers=headers, key=BOB, body=CHAT)
    assert (reply.status, cors(reply)) == (200, {})


def test_without_an_origin_nothing_of_it_is_seen(listing: Bench):
    assert listing.ask("OPTIONS", "/api/chat", headers=ASKS).status == 401
    reply = listing.ask("POST", "/api/chat", key=BOB, body=CHAT)
    assert (reply.status, cors(reply)) == (200, {})


def test_two_origins_are_none(listing: Bench):
    for second in (PAGE, OTHER_PAGE, "https://evil.example"):
        reply = listing.ask("OPTIONS", "/api/chat", headers=[("Origin", PAGE), ("Origin", second)])
        assert (reply.status in (400, 401), cors(reply)) == (True, {})


@pytest.mark.parametrize("path", ["/api/pull", "/nothing", "/api/x/../chat", "/api/chat/", "/-/error/404"])
def test_what_is_no_route_has_no_preflight(path: str, listing: Bench):
    reply = listing.ask("OPTIONS", path, headers={"Origin": PAGE, **ASKS})
    assert (reply.status, cors(reply)) == (404, READABLE)


def test_a_listed_page_reads_answers_and_refusals_alike(listing: Bench):
    def seen(method: str, path: str, **how: Any) -> int:
        reply = listing.ask(method, path, headers={"Origin": PAGE}, **how)
        assert cors(reply) == READABLE, (method, path, reply)
        return reply.status

    assert seen("POST", "/api/generate", key=BOB, body=generate("3 10")) == 200
    assert seen("GET", "/v1/models", key=BOB) == 200
    assert seen("GET", "/v1/models/tiny", key=BOB) == 200
    assert seen("GET", "/api/tags") == 401
    assert seen("POST", "/api/chat", key=BOB, body={"model": "evil"}) == 403
    assert seen("GET", "/nothing", key=BOB) == 404
    assert seen("GET", "/api/chat", key=BOB) == 405
    assert seen("POST", "/api/show", key=BOB, body=b"x" * 100_000) == 413
    limited = [seen("GET", "/api/version", key=KEYS["slow"]) for _ in range(12)]
    assert limited[-1] == 429


def test_each_listed_page_is_named_exactly(listing: Bench):
    reply = listing.ask("GET", "/api/tags", key=BOB, headers={"Origin": OTHER_PAGE})
    assert reply.headers["access-control-allow-origin"] == OTHER_PAGE


def test_a_listed_page_still_cannot_act_through_the_tunnel_of_a_keyless_user(listing: Bench):
    listing.forget()
    for headers in ({"Origin": PAGE}, {"Origin": PAGE, "Sec-Fetch-Site": "same-origin"}):
        reply = listing.ask("POST", "/api/chat", address=LAPTOP, headers=headers, body=CHAT)
        assert (reply.status, listing.audit()[-1]["reason"]) == (403, "cross-site")
    assert listing.heard() == []
    assert listing.ask("POST", "/api/chat", address=LAPTOP, headers={"Origin": PAGE}, key=BOB, body=CHAT).status == 200


def test_nothing_allows_credentials(listing: Bench):
    text = nginx.gateway(settings(cors_origins=[PAGE]), listing.plan)
    assert "Allow-Credentials" not in text
    reply = listing.ask("OPTIONS", "/api/chat", headers={"Origin": PAGE, "Cookie": "a=b", **ASKS})
    assert "access-control-allow-credentials" not in reply.headers


def test_where_no_origin_is_listed_nginx_has_no_such_header():
    assert "Access-Control" not in nginx.gateway(settings(), settings().plan)
