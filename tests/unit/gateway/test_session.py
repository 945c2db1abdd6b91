"""The browser's page: who may open it, what its server answers, and how little it believes.

The login service is a stand-in that says what a test tells it to: the real one says less (test_login.py).
"""

import itertools
import json
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from html.parser import HTMLParser
from typing import Any

import pytest

from fortress import blocklist
from render import page
from render.nginx import ROUTES
from tests.unit.gateway.harness import (
    DOMAIN,
    KEYS,
    PAGE,
    STRANGER,
    TUNNEL4,
    TUNNEL6,
    USERS,
    WIDE,
    Bench,
    Reply,
    settings,
)
from tests.unit.gateway.login_stand_in import LoginStandIn, login_stand_in
from tests.unit.gateway.test_deployed_policy import read_until, request

COOKIE = "__Host-fortress=a-session"
LAPTOP, BOBS = "10.66.3.4", "10.66.5.6"
MAIL = "bob@example.com"
PROVIDER = {
    "provider": "oidc", "issuer_url": "https://login.example.com", "client_id": "fortress", "client_secret": "secret",
}  # fmt: skip
PEOPLE = {
    **USERS,
    "bob": {**USERS["bob"], "email": MAIL},
    "robot": {"service": True, "email": "robot@example.com", "limits": WIDE},
    "dave": {"email": "dave@example.com", "limits": WIDE},
}
POLICY = {
    "default-src 'none'", "script-src 'self'", "style-src 'self'", "connect-src 'self'", "img-src 'self' data:",
    "form-action 'self'", "frame-ancestors 'none'", "base-uri 'none'",
}  # fmt: skip
CHAT = {"model": "tiny", "messages": [{"role": "user", "content": "hello"}]}
OPEN = [row["path"] for row in json.loads(ROUTES.read_text())["routes"] if row.get("page")]
HOSTS = [PAGE, TUNNEL4]
NUMBERS = itertools.cycle(range(1, 250))
ABOVE_THE_ROOT = {"/../nginx.conf", "/..%2fnginx.conf", "/%2e%2e/nginx.conf"}


def signing(people: dict[str, Any] = PEOPLE, **browser: Any) -> Any:
    return settings(people, {"browser": {**PROVIDER, **browser}})


@pytest.fixture(scope="module")
def login(bench: Bench) -> Iterator[LoginStandIn]:
    with login_stand_in(bench.host(1)) as told:
        bench.reload(signing())
        yield told
    bench.reload(settings(model_upload=True))


@pytest.fixture
def browser(bench: Bench, login: LoginStandIn) -> "Browser":
    bench.forget()
    login.says(202, MAIL)
    return Browser(bench)


class Browser:
    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        # One of its own: on a quick machine the tests of strangers together are a flood from one address.
        self.address = f"10.66.98.{next(NUMBERS)}"

    def ask(self, method: str, path: str, host: str = PAGE, cookie: str | None = COOKIE, **how: Any) -> Reply:
        headers = dict(how.pop("headers", {}))
        if cookie is not None:
            headers["Cookie"] = cookie
        by_name = host == PAGE
        how = {"sni": PAGE if by_name else None, "port": 8443 if by_name else 8445, "address": self.address} | how
        return self.bench.ask(method, path, host=host, headers=headers, **how)

    def last(self) -> dict[str, Any]:
        return self.bench.audit()[-1]


def within(seconds: float, condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not {what} within {seconds} s"
        time.sleep(0.05)


@pytest.mark.parametrize("host", [PAGE, TUNNEL4, f"[{TUNNEL6}]"])
def test_somebody_with_a_session_gets_the_page_and_its_routes_by_name_and_by_address(host: str, browser: Browser):
    for path, name in page.paths().items():
        reply = browser.ask("GET", path, host)
        assert (reply.status, reply.body.decode()) == (200, page.files()[name])
        assert reply.headers["content-type"] == page.TYPES[name[name.rindex(".") :]]
    me = browser.ask("GET", "/fortress/me", host).json
    assert (me["user"], me["proof"], me["device"]) == ("bob", "session", None)
    assert [each["name"] for each in browser.ask("GET", "/api/tags", host).json["models"]] == [
        "tiny:latest",
        "llama3.2:3b",
    ]
    chat = browser.ask("POST", "/api/chat", host, body=CHAT)
    assert (chat.status, b'"done":true' in chat.body) == (200, True)
    line = browser.last()
    assert (line["principal"], line["proof"], line["route"], line["verdict"]) == (
        "bob",
        "session",
        "/api/chat",
        "allowed",
    )


def test_the_login_service_is_asked_one_fixed_question_and_gets_nothing_but_its_own_cookies(
    browser: Browser, login: LoginStandIn
):
    evil = {
        "X-Forwarded-Uri": "/ping", "X-Forwarded-Host": "evil.example", "X-Forwarded-Proto": "http",
        "X-Real-IP": "127.0.0.1",
        "X-Forwarded-For": "127.0.0.1", "X-Auth-Request-Redirect": "https://evil.example/",
        "User-Agent": "GoogleHC/1.0",
        "X-Auth-Request-Email": "alice@example.com", "Forwarded": "for=127.0.0.1",
    }  # fmt: skip
    cookie = f"a=1; {COOKIE}; __Host-fortress_0=p; __Host-fortressed=x; __Host-fortress_ab_csrf=c; _oauth2_proxy=other"
    for host, named in ((PAGE, PAGE), (TUNNEL4, f"{TUNNEL4}:8443")):
        login.asked.clear()
        assert browser.ask("POST", "/api/chat?x=1", host, cookie, headers=evil, body=CHAT).status == 200
        [(method, path, headers)] = login.asked
        assert (method, path) == ("GET", "/oauth2/auth")
        assert headers == {
            "host": named, "cookie": f"{COOKIE}; __Host-fortress_0=p; __Host-fortress_ab_csrf=c",
            "x-real-ip": browser.address, "x-forwarded-for": browser.address,
            "x-forwarded-host": named, "x-forwarded-proto": "https",
            "x-forwarded-uri": "/oauth2/auth",
        }  # fmt: skip
    heard = browser.bench.heard()[-1]
    assert not [
        name for name, _ in heard["headers"] if name.lower() in {"cookie", "authorization", *map(str.lower, evil)}
    ]


NOBODY = [
    (401, None, b"", 0, 401), (401, MAIL, b"", 0, 401), (403, MAIL, b"", 0, 503), (200, MAIL, b"welcome", 0, 503),
    (204, MAIL, b"", 0, 503), (302, MAIL, b"", 0, 503), (500, MAIL, b"broken", 0, 503), (503, MAIL, b"", 0, 503),
    (202, MAIL, b"", 6, 503), (202, MAIL, b"x" * 100_000, 0, 0), (202, None, b"", 0, 403), (202, "", b"", 0, 403),
    (202, f"{MAIL}, alice@example.com", b"", 0, 403), (202, "__proto__", b"", 0, 403),
    (202, "robot@example.com", b"", 0, 403),
    (202, "stranger@example.com", b"", 0, 403), (202, f"x@y@{MAIL}", b"", 0, 403),
]  # fmt: skip


@pytest.mark.parametrize(("status", "email", "body", "delay_s", "expected"), NOBODY)
def test_anything_but_the_one_yes_with_a_known_address_is_a_no(
    browser: Browser, login: LoginStandIn, status: int, email: str | None, body: bytes, delay_s: float, expected: int
):
    login.says(status, email, body=body, delay_s=delay_s)
    reply = browser.ask("POST", "/api/chat", body=CHAT)
    assert reply.status == expected
    assert not expected or sorted(reply.json) == ["error"]
    assert browser.bench.heard() == []
    assert browser.last()["principal"] == ""


def test_a_login_service_that_is_not_there_lets_nobody_in_and_keyless_users_go_on(bench: Bench, login: LoginStandIn):
    browser = Browser(bench)
    bench.login_host = 77
    bench.reload(signing())
    try:
        assert browser.ask("GET", "/fortress/me").status == 503
        reply = browser.ask("GET", "/")
        assert (reply.status, b"does not answer" in reply.body) == (503, True)
        assert browser.ask("GET", "/oauth2/start").status in (503, 504)
        assert browser.ask("GET", "/", address=LAPTOP).status == 200
        assert browser.ask("GET", "/oauth2/callback?code=s3cret&state=s3cret").status in (502, 503, 504)
        assert "s3cret" not in bench.logs("gateway")
    finally:
        bench.login_host = 1
        bench.reload(signing())


def test_without_a_cookie_or_with_a_key_the_login_service_is_not_asked(browser: Browser, login: LoginStandIn):
    assert browser.ask("GET", "/fortress/me", cookie=None).status == 401
    assert browser.ask("GET", "/fortress/me", cookie="session=x; __Host-fortressed=x").status == 401
    assert browser.ask("GET", "/fortress/me", cookie="__Host-fortress_ab_csrf=x").status == 401
    assert browser.ask("GET", "/fortress/me", key=KEYS["bob"]).json["proof"] == "key"
    assert browser.ask("GET", "/fortress/me", address=LAPTOP).json["user"] == "alice"
    # A wrong key's sender believes to be somebody else.
    assert browser.ask("GET", "/fortress/me", key="f" * 64).status == 401
    assert login.asked == []


def test_the_address_is_compared_without_case_and_the_device_is_named_where_it_is_the_users_own(
    browser: Browser, login: LoginStandIn
):
    login.says(202, "Bob@Example.COM")
    assert browser.ask("GET", "/fortress/me", address=BOBS).json["device"] == "default"
    assert browser.ask("GET", "/fortress/me").json["user"] == "bob"


def test_a_cookie_on_the_apis_own_names_proves_nothing(browser: Browser, login: LoginStandIn):
    for how in ({}, {"host": TUNNEL4, "sni": None}):
        for method, path in (("GET", "/fortress/me"), ("POST", "/api/chat"), ("GET", "/api/tags")):
            reply = browser.bench.ask(method, path, headers={"Cookie": COOKIE}, **how)
            assert reply.status == 401
    assert login.asked == []


def test_the_page_serves_nothing_but_its_own_routes(browser: Browser):
    rows = json.loads(ROUTES.read_text())
    closed = {row["path"] for row in rows["routes"]} - set(OPEN) - {"/"} | set(rows["never"])
    elsewhere = {
        "/index.html", "/page/index.html", "/principals.js", "/gateway.js", "/nginx.conf", "/tls/server.key",
        *ABOVE_THE_ROOT, "//", "/chat.js/", "/oauth2/auth", "/oauth2/userinfo", "/oauth2/sign_in",
        "/oauth2/static/x",
        "/oauth2", "/oauth2/", "/oauth2/start/", "/ping", "/ready", "/metrics", "/robots.txt", "/-/session",
        "/%2d/session",
        "/-/api/tags", "/-/error/404", "/oauth2/%61uth", "/oauth2//auth", "/OAUTH2/auth", "/favicon.ico",
    }  # fmt: skip
    for host in HOSTS:
        for path in sorted(closed | elsewhere):
            reply = browser.ask("GET", path, host)
            assert reply.status == (400 if path in ABOVE_THE_ROOT else 404), path
            assert b"nginx" not in reply.body
    assert browser.bench.heard() == []


@pytest.mark.parametrize("path", ["/", "/chat.js", "/fortress/me", "/api/tags", "/nothing", "/oauth2/start"])
@pytest.mark.parametrize("cookie", [COOKIE, None])
def test_every_answer_has_the_headers_that_keep_a_page_at_home(path: str, cookie: str | None, browser: Browser):
    headers = browser.ask("GET", path, cookie=cookie).headers
    assert {part.strip() for part in headers["content-security-policy"].split(";")} == POLICY
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cross-origin-opener-policy"] == headers["cross-origin-resource-policy"] == "same-origin"
    assert headers["strict-transport-security"] == "max-age=31536000"
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cache-control"] == "no-store"
    assert "access-control-allow-origin" not in headers


def test_a_person_without_a_session_is_sent_to_the_provider_and_a_program_is_told_401(
    browser: Browser, login: LoginStandIn
):
    login.says(401)
    for cookie in (None, COOKIE):
        for host in HOSTS:
            reply = browser.ask("GET", "/", host, cookie)
            assert (reply.status, reply.headers["location"]) == (302, "/oauth2/start?rd=%2F")
        for path in OPEN:
            method = "POST" if path == "/api/chat" else "GET"
            reply = browser.ask(method, path, cookie=cookie, body=CHAT if method == "POST" else None)
            assert (reply.status, list(reply.json)) == (401, ["error"])
        assert browser.ask("GET", "/chat.js", cookie=cookie).status == 401


class _Parts(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str | None] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value for name, value in attrs if name in ("href", "src", "action")]
        assert not [name for name, _ in attrs if name.startswith("on") or name == "style"]


def test_a_stranger_is_told_so_on_a_page_that_needs_nothing_from_elsewhere(browser: Browser, login: LoginStandIn):
    login.says(202, "stranger@example.com")
    reply = browser.ask("GET", "/")
    assert (reply.status, reply.headers["content-type"]) == (403, "text/html")
    parts = _Parts()
    parts.feed(reply.body.decode())
    assert parts.links == ["/oauth2/sign_out?rd=%2F"]
    assert not {"script", "style", "img", "form", "iframe"} & set(parts.tags)
    assert b"stranger@" not in reply.body
    assert browser.ask("GET", "/fortress/me").status == 403
    assert browser.last()["reason"] == "not-in-the-list"


def test_strangers_are_counted_as_failed_proofs(bench: Bench, login: LoginStandIn):
    bench.reload(settings(PEOPLE, {"browser": PROVIDER}, failed_auth_per_minute=3))
    browser = Browser(bench)
    login.says(202, "stranger@example.com")
    said = [browser.ask("GET", "/fortress/me", address="10.66.88.1").status for _ in range(5)]
    assert (said[0], said[-1]) == (403, 429)
    login.says(202, MAIL)
    assert browser.ask("GET", "/fortress/me", address="10.66.88.1").status == 200
    bench.reload(signing())


@pytest.mark.parametrize("path", ["/oauth2/start", "/oauth2/sign_out", "/oauth2/callback"])
@pytest.mark.parametrize(
    "rd", ["https://evil.example/", "//evil.example", "/%5Cevil.example", "javascript:alert(1)", "/x"]
)
def test_no_step_of_a_login_leads_anywhere_but_to_the_provider_or_the_page(
    path: str, rd: str, browser: Browser, login: LoginStandIn
):
    login.says(302, Location="https://login.example.com/authorize" if path == "/oauth2/start" else rd)
    reply = browser.ask(
        "GET", f"{path}?rd={rd}", headers={"X-Auth-Request-Redirect": rd, "X-Forwarded-Host": "evil.example"}
    )
    [(_, asked, headers)] = login.asked
    assert asked == (f"{path}?rd={rd}" if path == "/oauth2/callback" else path)
    assert headers["x-auth-request-redirect"] == "/"
    assert (headers["x-forwarded-uri"], headers["x-forwarded-host"], headers["host"]) == (path, PAGE, PAGE)
    wanted = "https://login.example.com/authorize" if path == "/oauth2/start" else "/"
    assert (reply.status, reply.headers["location"]) == (302, wanted)


def test_a_failed_login_is_said_in_our_own_words(browser: Browser, login: LoginStandIn):
    for status, expected in ((400, 400), (401, 403), (403, 403), (500, 500)):
        login.says(status, body=b"<link rel=stylesheet href=https://cdn.example.com/x.css>secret detail")
        reply = browser.ask("GET", "/oauth2/callback?code=x&state=y")
        assert (reply.status, reply.headers["content-type"]) == (expected, "text/html")
        assert b"cdn" not in reply.body
        assert b"secret" not in reply.body
        line = browser.last()
        assert line["route"] == "/oauth2/callback"
        assert "code" not in json.dumps(line)


def test_a_login_takes_only_get_and_no_body(browser: Browser, login: LoginStandIn):
    for path in ("/oauth2/start", "/oauth2/callback", "/oauth2/sign_out"):
        for method in ("POST", "HEAD", "PUT", "DELETE", "OPTIONS"):
            reply = browser.ask(method, path)
            assert (reply.status, reply.headers["allow"]) == (405, "GET")
    assert login.asked == []


FOREIGN = [
    {"Origin": "https://evil.example"}, {"Origin": "null"}, {"Origin": f"https://{DOMAIN}"}, {"Origin": f"http://{PAGE}"},
    {"Origin": f"https://{PAGE}:8443"}, {"Origin": f"https://{TUNNEL4}:8443"}, {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"}, {"Origin": f"https://{PAGE}", "Sec-Fetch-Site": "cross-site"},
]  # fmt: skip


@pytest.mark.parametrize("headers", FOREIGN)
@pytest.mark.parametrize("address", [STRANGER, LAPTOP], ids=["session", "keyless"])
def test_a_page_of_another_site_acts_for_nobody(headers: dict[str, str], address: str, browser: Browser):
    for path, body in (("/api/chat", CHAT), ("/fortress/me", None)):
        reply = browser.ask("POST" if body else "GET", path, headers=headers, body=body, address=address)
        assert reply.status == 403
        assert browser.last()["reason"] == "cross-site"
    assert browser.bench.heard() == []


@pytest.mark.parametrize("host", [PAGE, f"{TUNNEL4}:8443"])
def test_the_pages_own_requests_pass(host: str, browser: Browser):
    headers = {"Origin": f"https://{host}", "Sec-Fetch-Site": "same-origin"}
    assert browser.ask("POST", "/api/chat", host.split(":")[0], headers=headers, body=CHAT).status == 200


def test_the_page_itself_may_be_opened_from_a_link_anywhere_and_signing_out_may_not(browser: Browser):
    foreign = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
    assert browser.ask("GET", "/", headers=foreign).status == 200
    assert browser.ask("GET", "/oauth2/sign_out", headers=foreign).status == 403


def test_listed_sites_get_nothing_here(bench: Bench, login: LoginStandIn):
    site = "https://app.example.com"
    bench.reload(settings(PEOPLE, {"browser": PROVIDER}, cors_origins=[site]))
    browser = Browser(bench)
    login.says(202, MAIL)
    assert browser.ask("OPTIONS", "/api/chat", headers={"Origin": site}).status == 405
    reply = browser.ask("POST", "/api/chat", headers={"Origin": site}, body=CHAT)
    assert (reply.status, "access-control-allow-origin" in reply.headers) == (403, False)
    bench.reload(signing())


def test_an_unproven_body_is_small(browser: Browser, login: LoginStandIn):
    large = {**CHAT, "messages": [{"role": "user", "content": "x" * (1024 * 1024)}]}
    assert browser.ask("POST", "/api/chat", body=large).status == 413
    login.says(401)
    chunked = [("Cookie", COOKIE), ("Transfer-Encoding", "chunked")]
    data = b"".join(b"10000\r\n" + b"x" * 65536 + b"\r\n" for _ in range(20)) + b"0\r\n\r\n"
    reply = browser.bench.ask("POST", "/api/chat", host=PAGE, sni=PAGE, headers=chunked, body=data)
    assert reply.status in (401, 413)
    fits = {**CHAT, "messages": [{"role": "user", "content": "x" * (900 * 1024)}]}
    login.says(202, MAIL)
    assert browser.ask("POST", "/api/chat", body=fits).status == 200


def test_names_and_ports_do_not_mix(browser: Browser):
    bench = browser.bench
    for how in (
        {"host": DOMAIN, "sni": PAGE}, {"host": PAGE, "sni": DOMAIN}, {"host": "evil.example", "sni": PAGE},
        {"host": PAGE, "sni": None}, {"host": PAGE, "sni": None, "port": 8445},
        {"host": "evil.example", "sni": None, "port": 8445},
    ):  # fmt: skip
        reply = bench.ask("GET", "/fortress/me", headers={"Cookie": COOKIE}, **how)
        assert reply.status in (0, 421), how
    for name in (PAGE, DOMAIN, "evil.example"):
        with pytest.raises(OSError, match=r"(?i)unrecognized|reset|eof|internal"):
            bench.connect(sni=name, port=8445)


def test_a_removed_user_or_address_ends_the_session_and_its_open_streams_within_5_s(bench: Bench, login: LoginStandIn):
    browser = Browser(bench)
    gone = (
        (signing({name: user for name, user in PEOPLE.items() if name != "bob"}), 403),
        (signing({**PEOPLE, "bob": USERS["bob"]}), 403),
        (signing({**PEOPLE, "bob": {**USERS["bob"], "email": "robert@example.com"}}), 403),
        (signing(epoch="2"), 200),  # of old cookies the login service, which is another one here, makes nothing
    )
    for without, status in gone:
        login.says(202, MAIL)
        bench.reload(signing())
        slow = {**CHAT, "messages": [{"role": "user", "content": "1000 50"}]}
        body = json.dumps(slow).encode()
        head = ("POST /api/chat HTTP/1.1", f"Cookie: {COOKIE}", f"Content-Length: {len(body)}")
        data = request(*head, key=None, body=body, host=PAGE)
        with bench.connect(sni=PAGE) as stream:
            stream.sendall(data)
            assert b'"n":3' in read_until(stream, b'"n":3')
            since = time.monotonic()
            bench.reload(without)
            while stream.recv(65536):
                assert time.monotonic() - since < 5
        assert browser.ask("GET", "/fortress/me").status == status
    bench.reload(signing())


def test_a_blocked_user_is_out_of_the_page_too(browser: Browser):
    bench = browser.bench
    blocklist.block(bench.engine, bench.name, "bob", None)
    try:
        within(2, lambda: browser.ask("GET", "/fortress/me").status == 403, "blocked")
        assert browser.last()["reason"] == "blocked"
        assert browser.ask("GET", "/").status == 403
    finally:
        blocklist.unblock_all(bench.engine, bench.name)
    within(2, lambda: browser.ask("GET", "/fortress/me").status == 200, "in again")
    blocklist.block(bench.engine, bench.name, browser.address, None)
    try:
        within(2, lambda: browser.ask("GET", "/oauth2/start").status == 403, "blocked")
    finally:
        blocklist.unblock_all(bench.engine, bench.name)
    within(2, lambda: browser.ask("GET", "/fortress/me").status == 200, "in again")


def test_a_service_has_no_page_whatever_proves_it(browser: Browser):
    assert browser.ask("GET", "/", key=KEYS["robot"], cookie=None).status == 403


def test_without_a_provider_keyless_users_get_in_and_the_others_are_told_what_to_do(bench: Bench, login: LoginStandIn):
    bench.reload(settings(PEOPLE, {"browser": {}}))
    browser = Browser(bench)
    login.says(202, MAIL)
    for host in HOSTS:
        assert browser.ask("GET", "/", host, address=LAPTOP).status == 200
        reply = browser.ask("GET", "/", host)
        assert (reply.status, reply.headers["content-type"]) == (401, "text/html")
        for path in ("/oauth2/start", "/oauth2/callback", "/oauth2/sign_out", "/-/session"):
            assert browser.ask("GET", path, host).status == 404
    assert browser.ask("GET", "/fortress/me").status == 401
    assert login.asked == []
    bench.reload(signing())


def test_without_a_browser_section_there_is_no_page(bench: Bench, login: LoginStandIn):
    bench.reload(settings(PEOPLE))
    with pytest.raises(OSError, match=r"(?i)unrecognized|reset|eof|internal"):
        bench.connect(sni=PAGE)
    with pytest.raises(OSError, match=r"(?i)refused"):
        bench.plain(port=8445)
    bench.reload(signing())


def test_limits_of_the_user_hold_for_sessions(bench: Bench, login: LoginStandIn):
    people = {**PEOPLE, "bob": {"email": MAIL, "limits": {"requests_per_minute": 2, "burst": 2, "concurrent": 1}}}
    bench.reload(signing(people))
    browser = Browser(bench)
    login.says(202, MAIL)
    said = [browser.ask("POST", "/api/chat", body=CHAT).status for _ in range(3)]
    assert said == [200, 200, 429]
    bench.reload(signing())


def test_the_pages_own_files_are_no_look_ups_of_the_user(bench: Bench, login: LoginStandIn):
    bench.reload(signing({**PEOPLE, "bob": {"email": MAIL, "limits": {"reads_per_minute": 2}}}))
    browser = Browser(bench)
    login.says(202, MAIL)
    assert {browser.ask("GET", path).status for path in page.paths() for _ in range(4)} == {200}
    assert browser.ask("GET", "/fortress/me").status == 200
    bench.reload(signing())


def test_a_device_without_a_proof_begins_few_bodies_at_once(bench: Bench, login: LoginStandIn):
    """Each waits in memory until the login service has said who it is."""
    few = {"email": MAIL, "limits": {"concurrent": 2}}
    bench.reload(signing({"bob": few, "alice": USERS["alice"] | {"limits": {"concurrent": 2}}}))
    browser = Browser(bench)
    login.says(401)
    head = ("POST /api/chat HTTP/1.1", "Cookie: __Host-fortress=x", "Content-Length: 1000")
    most = 2 + settings().gateway.queue_per_user
    with ExitStack() as open_ones:
        begun = [open_ones.enter_context(bench.connect(browser.address, sni=PAGE)) for _ in range(most + 1)]
        for connection in begun:
            connection.sendall(request(*head, key=None, body=b"{", host=PAGE))
            time.sleep(0.05)
        begun[-1].settimeout(5)
        assert begun[-1].recv(65536).startswith(b"HTTP/1.1 429")
        assert browser.ask("POST", "/api/chat", body=CHAT).status == 429
        # Whoever comes from elsewhere, or is known, is served.
        assert Browser(bench).ask("POST", "/api/chat", body=CHAT).status == 401
        assert browser.ask("POST", "/api/chat", body=CHAT, address=LAPTOP, cookie=None).status == 200
    bench.reload(signing())
