"""The real oauth2-proxy behind the real gateway, and a real OpenID provider: rows 47 to 53 of the attack table."""

import json
import os
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from components.login import COMPONENT, UID
from images import reference
from render import oauth2_proxy
from settings.keys import Seed, cookie_secret
from tests import oidc
from tests.deployment import printed
from tests.unit.gateway.harness import PAGE, TUNNEL4, Bench, Reply, settings
from tests.unit.gateway.test_session import CHAT, HOSTS, PEOPLE, Browser

SECRET, OTHER_SECRET = (cookie_secret(Seed(b"s" * 32), epoch) for epoch in ("1", "2"))
ENGINE = os.environ.get("FORTRESS_ENGINE", "registry-only")
IMAGE = reference("login", ENGINE)


class Login:
    """One oauth2-proxy in the bench's network, as the program makes it."""

    def __init__(self, bench: Bench, provider: oidc.Provider, folder: Path) -> None:
        self.bench, self.provider, self.folder = bench, provider, folder
        self.name = f"{bench.name}-{COMPONENT}"
        self.config = settings(PEOPLE, {"browser": provider.browser()})

    def start(self, secret: str = SECRET, hours: int | None = None) -> None:
        self.stop()
        text = oauth2_proxy.config(self.config, self.bench.plan)
        # The config counts in hours; a test has seconds.
        text = text if hours is None else re.sub(r'cookie_expire = "\d+h"', f'cookie_expire = "{hours}s"', text)
        current = self.folder / "current"
        current.mkdir(exist_ok=True)
        for name, content in {
            "oauth2-proxy.cfg": text,
            "people": oauth2_proxy.people(self.config),
            "client-secret": self.provider.client_secret,
            "cookie-secret": secret,
            "provider-ca.pem": self.provider.ca_file.read_text(),
        }.items():
            (current / name).write_text(content)
        run = ["docker", "run", "-d", "--name", self.name, "--network", self.bench.name, "--ip", self.bench.host(6)]
        run += ["--read-only", "--tmpfs", "/tmp:mode=1777", "--tmpfs", f"/var/log/login:uid={UID},gid={UID}"]
        run += ["--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--user", f"{UID}:{UID}"]
        run += ["--memory", "128m", "--pids-limit", "64", "-v", f"{self.folder}:/config:ro", IMAGE]
        subprocess.run(run, capture_output=True, check=True)
        health = ["docker", "exec", self.name, "login-health"]
        for _ in range(100):
            if subprocess.run(health, capture_output=True, check=False).returncode == 0:
                return
            time.sleep(0.1)
        raise AssertionError(f"oauth2-proxy does not answer: {self.logs()}")

    def stop(self) -> None:
        subprocess.run(["docker", "rm", "-f", self.name], capture_output=True, check=False)

    def logs(self) -> str:
        return printed(self.name)

    def trail(self) -> list[dict[str, str]]:
        read = ["docker", "exec", self.name, "cat", "/var/log/login/auth.json"]
        done = subprocess.run(read, capture_output=True, text=True, check=True)
        return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.fixture(scope="module")
def login(bench: Bench, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Login]:
    folder = tmp_path_factory.mktemp("login")
    dex = tmp_path_factory.mktemp("dex")
    for each in (folder, dex):
        each.chmod(0o755)
    people = ("bob@example.com", "dave@example.com", "robot@example.com", "stranger@example.com")
    with oidc.provider(dex, [PAGE, f"{TUNNEL4}:8443"], address=bench.host(1), people=people, engine=ENGINE) as provider:
        made = Login(bench, provider, folder)
        bench.login_host = 6
        try:
            made.start()
            bench.reload(made.config)
            yield made
        finally:
            made.stop()
            bench.login_host = 1
    bench.reload(settings(model_upload=True))


@pytest.fixture
def browser(login: Login) -> "Person":
    login.bench.forget()
    return Person(login)


def cookies_of(reply: Reply) -> dict[str, str]:
    """Name -> value and attributes, as the answer's Set-Cookie lines have them."""
    found = re.findall(r"(?im)^set-cookie: ([^=\r\n]+)=([^\r\n]*)", reply.head.decode("latin-1"))
    return dict(found)


class Person(Browser):
    """A browser that keeps its cookies."""

    def __init__(self, login: Login) -> None:
        super().__init__(login.bench)
        self.login = login
        self.jar: dict[str, str] = {}

    def go(self, path: str, host: str = PAGE, **how: Any) -> Reply:
        cookie = "; ".join(f"{name}={value}" for name, value in self.jar.items()) or None
        reply = self.ask("GET", path, host, cookie, **how)
        for name, text in cookies_of(reply).items():
            value = text.partition(";")[0]
            self.jar[name] = value
            if not value:
                del self.jar[name]
        return reply

    def begin(self, host: str = PAGE) -> str:
        """From the page to the provider. Returns: where the provider is asked."""
        reply = self.go("/", host)
        assert (reply.status, reply.headers["location"]) == (302, "/oauth2/start?rd=%2F")
        reply = self.go(reply.headers["location"], host)
        assert reply.status == 302, reply
        return reply.headers["location"]

    def back(self, callback: str, host: str = PAGE) -> Reply:
        parts = urlsplit(callback)
        return self.go(f"{parts.path}?{parts.query}", host)

    def sign_in(self, email: str = "bob@example.com", host: str = PAGE) -> Reply:
        return self.back(self.login.provider.sign_in(self.begin(host), email), host)


@pytest.mark.parametrize("host", HOSTS)
def test_somebody_signs_in_chats_and_signs_out(host: str, browser: Person):
    named = host if host == PAGE else f"{host}:8443"
    asked = parse_qs(urlsplit(browser.begin(host)).query)
    assert asked["redirect_uri"] == [f"https://{named}/oauth2/callback"]
    assert (asked["code_challenge_method"], asked["scope"]) == (["S256"], ["openid email"])
    assert asked["nonce"][0]
    browser.jar.clear()

    reply = browser.sign_in(host=host)
    assert (reply.status, reply.headers["location"]) == (302, "/")
    [text] = [value for name, value in cookies_of(reply).items() if name == "__Host-fortress"]
    attributes = {part.strip().lower() for part in text.split(";")[1:]}
    assert {"path=/", "httponly", "secure", "samesite=lax"} <= attributes
    assert not [part for part in attributes if part.startswith("domain")]
    assert set(browser.jar) == {"__Host-fortress"}
    assert len(text) < 1000

    assert browser.go("/", host).status == 200
    me = browser.go("/fortress/me", host).json
    assert (me["user"], me["proof"]) == ("bob", "session")
    cookie = f"__Host-fortress={browser.jar['__Host-fortress']}"
    assert browser.ask("POST", "/api/chat", host, cookie, body=CHAT).status == 200

    reply = browser.go("/oauth2/sign_out?rd=%2F", host)
    assert (reply.status, reply.headers["location"]) == (302, "/")
    assert browser.jar == {}
    assert browser.go("/fortress/me", host).status == 401
    # A session is its cookie, kept nowhere else: a copy of it lives on until it expires. docs/login.md says so.
    assert browser.ask("GET", "/fortress/me", host, cookie).status == 200


@pytest.mark.parametrize("email", ["stranger@example.com", "robot@example.com"])
def test_a_stranger_and_a_service_sign_in_at_the_provider_and_stay_outside(email: str, browser: Person):
    assert browser.sign_in(email).status == 302
    assert browser.go("/").status == 403
    assert browser.go("/fortress/me").json["error"].startswith("you are signed in, but nobody here")
    cookie = f"__Host-fortress={browser.jar['__Host-fortress']}"
    assert browser.ask("POST", "/api/chat", cookie=cookie, body=CHAT).status == 403
    assert browser.bench.heard() == []


def test_a_wrong_password_gives_no_callback(browser: Person, login: Login):
    with pytest.raises(AssertionError, match=r"refuses this password|401"):
        login.provider.sign_in(browser.begin(), "bob@example.com", "wrong")


def _flip(text: str, place: int) -> str:
    return text[:place] + ("A" if text[place] != "A" else "B") + text[place + 1 :]


def test_a_broken_cookie_is_no_session(browser: Person, login: Login):
    browser.sign_in()
    good = browser.jar["__Host-fortress"]
    value, when, signature = good.split("|")
    later = str(int(when) + 3600)
    broken = [
        good[:-1], good[:40], good[1:], _flip(good, 5), _flip(good, len(value) - 2), _flip(good, len(good) - 3), "",
        f"{value}|{later}|{signature}", f"{value}|{when}|", f"|{when}|{signature}", value, "x", "a|b|c",
        f"{good}|{good}",
        f"{signature}|{when}|{value}", "%00", "A" * 3000,
    ]  # fmt: skip
    for each in broken:
        assert browser.ask("GET", "/fortress/me", cookie=f"__Host-fortress={each}").status == 401, each
    names = [
        "_oauth2_proxy",
        "__Host-fortress_0",
        "__host-fortress",
        "fortress",
        "__Secure-fortress",
        "__Host-fortress_csrf",
    ]
    for name in names:
        assert browser.ask("GET", "/fortress/me", cookie=f"{name}={good}").status == 401, name
    parts = f"__Host-fortress_1={good[:30]}; __Host-fortress_0={good[30:]}"
    assert browser.ask("GET", "/fortress/me", cookie=parts).status == 401
    assert browser.ask("GET", "/fortress/me", cookie=f"__Host-fortress={good}").status == 200


def test_a_cookie_of_another_secret_and_an_expired_one_are_no_session(browser: Person, login: Login):
    try:
        login.start(OTHER_SECRET)
        browser.sign_in()
        foreign = browser.jar["__Host-fortress"]
        login.start(hours=3)
        assert browser.ask("GET", "/fortress/me", cookie=f"__Host-fortress={foreign}").status == 401
        browser.jar.clear()
        browser.sign_in()
        mine = f"__Host-fortress={browser.jar['__Host-fortress']}"
        assert browser.ask("GET", "/fortress/me", cookie=mine).status == 200
        deadline = time.monotonic() + 10
        while browser.ask("GET", "/fortress/me", cookie=mine).status != 401:
            assert time.monotonic() < deadline, "a session outlives its time"
            time.sleep(0.3)
    finally:
        login.start()


def test_a_callback_that_this_browser_did_not_begin_makes_no_session(browser: Person, login: Login):
    callback = login.provider.sign_in(browser.begin(), "bob@example.com")
    query = parse_qs(urlsplit(callback).query)
    code, state = query["code"][0], query["state"][0]
    other = Person(login)
    login.provider.sign_in(other.begin(), "dave@example.com")
    mine, foreign = dict(browser.jar), dict(other.jar)
    attempts = [
        ({}, f"code={code}&state={state}"), (foreign, f"code={code}&state={state}"), (mine, f"code={code}"),
        (mine, f"code={code}&state=x"), (mine, f"code={code}&state=x:/"), (mine, f"code={code}&state={state[::-1]}"),
        (mine, ""), (mine, f"state={state}&error=access_denied"), (mine, f"code=wrong&state={state}"),
    ]  # fmt: skip
    for jar, text in attempts:
        attacker = Person(login)
        attacker.jar = dict(jar)
        reply = attacker.go(f"/oauth2/callback?{text}")
        assert reply.status in (403, 500), text
        assert "__Host-fortress" not in attacker.jar, text
        assert code not in reply.body.decode()


def test_a_code_works_once(browser: Person, login: Login):
    callback = login.provider.sign_in(browser.begin(), "bob@example.com")
    before = dict(browser.jar)
    assert browser.back(callback).status == 302
    again = Person(login)
    again.jar = before
    assert again.back(callback).status in (403, 500)
    assert "__Host-fortress" not in again.jar


def test_a_changed_redirect_in_the_state_leads_to_the_page(browser: Person, login: Login):
    callback = login.provider.sign_in(browser.begin(), "bob@example.com")
    changed = re.sub(r"(state=[^&]*%3A)[^&]*", r"\1https%3A%2F%2Fevil.example%2F", callback)
    assert changed != callback
    reply = browser.back(changed)
    assert (reply.status, reply.headers["location"]) == (302, "/")


def test_forged_headers_and_health_check_agents_prove_nobody(browser: Person):
    forged = [
        {"X-Forwarded-Uri": "/ping"}, {"X-Forwarded-Uri": "/oauth2/callback"}, {"User-Agent": "GoogleHC/1.0"},
        {"User-Agent": ""},
        {"User-Agent": "kube-probe/1.30"}, {"X-Auth-Request-Email": "bob@example.com", "X-Auth-Request-User": "bob"},
        {"X-Forwarded-Email": "bob@example.com"}, {"X-Real-IP": "127.0.0.1"}, {"X-Forwarded-For": "127.0.0.1"},
        {"Cf-Access-Authenticated-User-Email": "bob@example.com"}, {"Tailscale-User-Login": "bob@example.com"},
        {"Remote-User": "bob"}, {"X-Forwarded-User": "bob"},
    ]  # fmt: skip
    for headers in forged:
        for cookie in (None, "__Host-fortress=x"):
            for path in ("/fortress/me", "/api/tags"):
                assert browser.ask("GET", path, cookie=cookie, headers=headers).status == 401, headers
    assert browser.bench.heard() == []


def test_nobody_but_the_gateway_is_believed_by_the_login_service(browser: Person, login: Login):
    """Straight to its address from another place of its network, where the VpnNode is too."""
    import http.client

    browser.sign_in()
    connection = http.client.HTTPConnection(login.bench.host(6), 4180, timeout=10)
    for headers in (
        {"X-Forwarded-Uri": "/ping"},
        {"X-Auth-Request-Email": "bob@example.com"},
        {"X-Forwarded-User": "bob"},
    ):
        connection.request("GET", "/oauth2/auth", headers=headers)
        reply = connection.getresponse()
        reply.read()
        assert reply.status == 401
    connection.request("GET", "/oauth2/start", headers={"Host": "own.example", "X-Forwarded-Host": "evil.example"})
    reply = connection.getresponse()
    reply.read()
    assert "evil.example" not in str(reply.headers)
    connection.request("GET", "/metrics")
    reply = connection.getresponse()
    assert b"go_goroutines" not in reply.read()


def test_no_log_of_the_login_service_has_a_code_a_token_or_a_cookie(browser: Person, login: Login):
    callback = login.provider.sign_in(browser.begin(), "bob@example.com")
    assert browser.back(callback).status == 302
    browser.go("/fortress/me")
    said = login.logs() + login.bench.logs("gateway") + str(login.bench.audit())
    query = parse_qs(urlsplit(callback).query)
    secrets = [query["code"][0], browser.jar["__Host-fortress"], login.provider.client_secret, SECRET]
    for secret in secrets:
        assert secret not in said
    line = login.trail()[-1]
    assert (line["event"], line["result"], line["user"]) == ("login", "success", "bob")
    assert "@example.com" not in said + str(line)


FORGED = "%0Asigned-in%20AuthSuccess%2010.66.3.4%20%22bob@example.com%22%0A"


@pytest.mark.parametrize(
    "query",
    [
        f"state=a:/&code={FORGED}",
        f"state={FORGED}:/&code=c",
        f"state=a:{FORGED}&code=c",
        f"state={FORGED}&code=c",
        f"error={FORGED}",
        f"{FORGED}=%",
    ],
)
def test_nobody_writes_a_sign_in_and_what_it_was_sent_is_printed_nowhere(query: str, browser: Person, login: Login):
    browser.sign_in()
    before = login.trail()
    # With and without another login's cookie: it prints the whole request, each time elsewhere.
    for more in ({}, {"__Host-fortress_x_csrf": "s3cretcookie"}):
        browser.jar |= more
        assert browser.go(f"/oauth2/callback?{query}&code=s3cretcode").status in (400, 403, 500)
    assert browser.go("/oauth2/start?rd=" + FORGED).status == 302
    Person(login).sign_in("stranger@example.com")
    assert [line["user"] for line in login.trail()[len(before) :]] == ["unknown"], "a client has written a sign-in"
    said = login.logs()
    assert "\nsigned-in" not in said
    for secret in (browser.jar["__Host-fortress"], "s3cretcookie", "s3cretcode"):
        assert secret not in said


def test_sessions_cost_little(browser: Person):
    browser.sign_in()
    cookie = f"__Host-fortress={browser.jar['__Host-fortress']}"
    times: list[float] = []
    for _ in range(20):
        assert browser.ask("GET", "/fortress/me", cookie=cookie).status == 200
        times.append(browser.last()["duration_s"])
    assert sorted(times)[10] < 0.05
