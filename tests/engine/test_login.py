"""A deployed fortress whose people sign in at a real OpenID provider, through the tunnel."""

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from render import trails
from tests import oidc
from tests.deployment import DOMAIN, PAGE, Client, Deployment, Reply, Stream, docker, printed
from tests.live.test_arrows import ON_THE_WAY, addresses, bystander, process_of, reaches

ADDRESS = "10.66.0.1:8443"
DEAD_WITHIN_S = 5
CHAT = {"model": "tiny", "messages": [{"role": "user", "content": "hello"}], "options": {"num_predict": 8}}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Deployment, oidc.Provider]]:
    folder = tmp_path_factory.mktemp("dex")
    folder.chmod(0o755)
    with oidc.deployed_with_login(folder, carol={"email": "carol@example.com"}) as made:
        yield made


@pytest.fixture
def browser(place: tuple[Deployment, oidc.Provider]) -> Iterator["Browser"]:
    made = Browser(*place)
    yield made
    made.close()


class Browser(Client):
    """bob's device, from which anybody may sign in; curl keeps the cookies."""

    def __init__(self, deployment: Deployment, provider: oidc.Provider) -> None:
        super().__init__(deployment, "bob")
        self.provider = provider

    def visit(self, path: str, host: str = PAGE, *options: str) -> Reply:
        return self.curl(path, "-b", "/tmp/jar", "-c", "/tmp/jar", *options, host=host, key=None)

    def sign_in(self, email: str, host: str = PAGE) -> Reply:
        first = self.visit("/", host)
        assert (first.status, first.headers["location"]) == (302, "/oauth2/start?rd=%2F")
        started = self.visit(first.headers["location"], host)
        assert started.status == 302, started.body
        callback = self.provider.sign_in(started.headers["location"], email)
        assert callback.startswith(f"https://{host}/oauth2/callback?")
        return self.visit(callback.removeprefix(f"https://{host}"), host)

    def chat(self, host: str = PAGE) -> Reply:
        return self.visit("/api/chat", host, "-d", json.dumps(CHAT))

    @contextmanager
    def long_chat(self) -> Iterator[Stream]:
        body = json.dumps({**CHAT, "options": {"num_predict": 100_000}})
        process = subprocess.Popen(
            [
                *("docker", "exec", "-i", self.id, "curl", "-sS", "-N", "--cacert", "/tmp/bundle/ca.pem"),
                *("-b", "/tmp/jar", "-d", body, f"https://{PAGE}/api/chat"),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        try:
            yield Stream(process)
        finally:
            self.end("api/chat")
            process.kill()
            process.wait()


@pytest.mark.parametrize("host", [PAGE, ADDRESS])
def test_somebody_signs_in_chats_and_signs_out_again(host: str, browser: Browser):
    assert browser.visit("/fortress/me", host).status == 401
    back = browser.sign_in("ada@example.com", host)
    assert (back.status, back.headers["location"]) == (302, "/")
    assert "<title>" in browser.visit("/", host).body
    me = json.loads(browser.visit("/fortress/me", host).body)
    assert (me["user"], me["role"], me["proof"]) == ("ada", "admin", "session")
    said = browser.chat(host)
    assert said.status == 200
    assert '"done":true' in said.body
    line = next(row for row in reversed(browser.deployment.audit()) if row["route"] == "/api/chat")
    assert (line["principal"], line["proof"], line["verdict"]) == ("ada", "session", "allowed")
    assert line["tokens_out"] > 0
    out = browser.visit("/oauth2/sign_out?rd=%2F", host)
    assert (out.status, out.headers["location"]) == (302, "/")
    assert browser.visit("/fortress/me", host).status == 401
    assert browser.visit("/", host).status == 302


def test_a_stranger_may_sign_in_at_the_provider_and_stays_outside(browser: Browser):
    browser.sign_in("stranger@example.com")
    refused = browser.visit("/")
    assert (refused.status, refused.headers["content-type"]) == (403, "text/html")
    assert browser.chat().status == 403


def test_a_session_is_nothing_on_the_apis_own_name(browser: Browser):
    browser.sign_in("ada@example.com")
    assert browser.chat().status == 200
    jar = browser.run("cat", "/tmp/jar")
    cookie = next(line.split("\t")[-1] for line in jar.splitlines() if "__Host-fortress\t" in line)
    for host in (DOMAIN, "10.66.0.1"):
        reply = browser.curl("/api/tags", "-H", f"Cookie: __Host-fortress={cookie}", host=host, key=None)
        assert reply.status == 401


def test_the_login_service_is_reached_by_the_gateway_and_reaches_nothing_inside_but_it(browser: Browser):
    fortress = browser.deployment
    listening = {**ON_THE_WAY, "login": (4180,), "gateway": (*ON_THE_WAY["gateway"], 8445)}
    inside = {place: (process_of(fortress, place), addresses(fortress, place)) for place in listening}
    found = {
        (place, to, port)
        for place, (process, _) in inside.items()
        for to, ports in listening.items()
        for port in ports
        for address in inside[to][1]
        if place != to and "login" in (place, to)
        if _stays_here(process, address) and reaches(process, address, port)
    }
    # Its neighbour on the network `edge` gives the gateway no proof of anybody: no relay speaks from there.
    assert found == {("gateway", "login", 4180), *(("login", "gateway", port) for port in (8443, 8444, 8445))}
    with bystander(fortress) as somebody:
        for address in inside["login"][1]:
            assert not (_stays_here(somebody, address) and reaches(somebody, address, 4180))
    for path in ("/oauth2/auth", "/oauth2/userinfo", "/metrics", "/ready", "/ping", "/-/session"):
        assert browser.visit(path).status == 404


def _stays_here(process: int, address: str) -> bool:
    """Is the address a neighbour, or on a bridge of this machine? Else packets to it leave the machine."""
    routes = [
        subprocess.run([*enter, "ip", "route", "get", address], capture_output=True, text=True, check=False).stdout
        for enter in (["nsenter", "-t", str(process), "-n"], [])
    ]
    return " via " not in routes[0] or " dev br-" in routes[1]


def test_no_secret_of_the_login_is_to_be_seen(browser: Browser):
    secret = browser.provider.client_secret
    shown = docker("inspect", browser.deployment.container("login")) + docker(
        "top", browser.deployment.container("login")
    )
    shown += browser.deployment.file.read_text() + browser.deployment.pulumi("stack", "export")
    assert secret not in shown
    assert "OAUTH2_PROXY" not in shown


def test_sign_ins_are_told_and_strangers_are_nobody(browser: Browser):
    told = len(logins(browser.deployment))
    browser.sign_in("ada@example.com")
    browser.run("rm", "-f", "/tmp/jar")
    browser.sign_in("stranger@example.com")
    assert browser.visit("/oauth2/callback?code=s3cretcode&state=none").status >= 400
    new = logins(browser.deployment)[told:]
    assert [(line["result"], line["user"]) for line in new[:2]] == [("success", "ada"), ("success", "unknown")]
    assert {line["event"] for line in new} == {"login"}
    assert {line["address"] for line in new} == {new[0]["address"]} != {""}
    told_text = json.dumps(new) + printed(browser.deployment.container("login"))
    for secret in ("example.com", "s3cretcode", "code="):
        assert secret not in told_text
    age = docker("exec", browser.deployment.container("login"), "cat", f"/config/current/{trails.FILE}")
    assert age.splitlines()[1:] == ["400"], "how many days it is kept"


def test_a_callback_that_nobody_began_writes_no_sign_in_and_prints_no_secret(browser: Browser):
    browser.sign_in("ada@example.com")
    cookie = next(line.split("\t")[-1] for line in browser.run("cat", "/tmp/jar").splitlines() if "fortress\t" in line)
    told = len(logins(browser.deployment))
    forged = "%0Asigned-in%20AuthSuccess%2010.66.3.4%20%22ada@example.com%22%0A"
    for jar in ("/tmp/jar", "/dev/null"):
        for query in (f"state=a:/&code={forged}", f"state={forged}:/&code=s3cretcode", "state=s3cretstate:/&code=c"):
            # Oauth2-proxy prints the whole of such a request.
            reply = browser.curl(f"/oauth2/callback?{query}", "-b", jar, host=PAGE, key=None)
            assert reply.status == 403, reply.body
    assert "10.66.3.4" not in json.dumps(logins(browser.deployment)[told:])
    browser.run("rm", "-f", "/tmp/jar")
    browser.sign_in("stranger@example.com")
    assert [line["user"] for line in logins(browser.deployment)[told:]] == ["unknown"]
    said = printed(browser.deployment.container("login"))
    for secret in (cookie, "Cookie", "s3cretcode", "s3cretstate", "signed-in", browser.provider.client_secret):
        assert secret not in said


def logins(deployment: Deployment) -> list[dict[str, str]]:
    file = docker("exec", deployment.container("login"), "cat", "/var/log/login/auth.json", check=False)
    return [json.loads(line) for line in file.splitlines()]


def test_a_new_person_restarts_no_login_service(browser: Browser):
    deployment = browser.deployment
    container = deployment.container("login")
    started = docker("inspect", "-f", "{{.State.StartedAt}}", container)
    deployment.config["users"]["dora"] = {"email": "stranger@example.com"}
    try:
        deployment.pulumi_up()
        browser.sign_in("stranger@example.com")
        assert logins(deployment)[-1]["user"] == "dora"
        assert docker("inspect", "-f", "{{.State.StartedAt}}", container) == started
    finally:
        del deployment.config["users"]["dora"]
        deployment.pulumi_up()


def test_a_changed_login_restarts_the_login_service_alone_and_a_new_epoch_ends_every_session(browser: Browser):
    deployment = browser.deployment
    container, before = deployment.container("login"), deployment.containers()
    started = {id_: docker("inspect", "-f", "{{.State.StartedAt}}", id_) for id_ in before.values()}
    browser.sign_in("ada@example.com")
    deployment.config["browser"]["epoch"] = "2"
    deployment.pulumi_up()
    browser.wait_until(lambda: browser.visit("/fortress/me").status == 401, "end of the session", 30)
    assert deployment.containers() == before
    now = {id_: docker("inspect", "-f", "{{.State.StartedAt}}", id_) for id_ in before.values()}
    assert [id_ for id_ in now if now[id_] != started[id_]] == [container]
    browser.run("rm", "-f", "/tmp/jar")
    assert browser.sign_in("ada@example.com").status == 302
    assert browser.chat().status == 200


def test_a_removed_user_loses_session_and_open_stream_within_five_seconds(browser: Browser):
    deployment = browser.deployment
    before = deployment.containers()
    browser.sign_in("ada@example.com")
    gone = deployment.config["users"].pop("ada")
    try:
        with browser.long_chat() as stream:
            assert stream.flows(), "no stream to begin with"
            with stream.read():
                deployment.pulumi_up()
            stream.bytes_for(DEAD_WITHIN_S)
            assert stream.bytes_for(2) == 0, "a removed user's stream goes on"
        assert browser.visit("/fortress/me").status == 403
        assert browser.visit("/").status == 403
    finally:
        deployment.config["users"]["ada"] = gone
        deployment.pulumi_up()
    assert browser.visit("/fortress/me").status == 200
    assert deployment.containers() == before, "a user who comes or goes replaces nothing"


def test_a_protected_login_is_not_dropped_and_nothing_else_of_that_up_is_done_either(browser: Browser):
    deployment = browser.deployment
    before = deployment.containers()
    login, bob = deployment.config["browser"], deployment.config["users"]["bob"]
    deployment.config["protect"] = True
    deployment.pulumi_up()
    try:
        del deployment.config["browser"]
        del deployment.config["users"]["bob"]
        deployment.config["protect"] = False
        said = " ".join(deployment.up(check=False).split())
        assert deployment.last_code == 1
        assert f"would delete what is protected: fortress-{deployment.stack}-login." in said
        assert deployment.containers() == before
        assert "bob" in deployment.outputs()["users"], "something was changed before the refusal"
    finally:
        deployment.config["browser"] = login
        deployment.config["users"]["bob"] = bob
        deployment.config["protect"] = False
        deployment.pulumi_up()
