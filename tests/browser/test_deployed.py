"""The chat page of a deployed fortress, in a Chromium whose only way to it is a WireGuard tunnel."""

import re
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Page, Playwright, expect

from render.page import files as page_files
from tests import oidc
from tests.browser.chromium import PHONE, Watched, believe, executable, launched, picture, watched
from tests.browser.namespace import Namespace
from tests.browser.test_page import answer, done, say
from tests.deployment import PAGE, Client, Deployment, docker

BUDGET = 700
"""Tokens a day of `lee`: less than one answer may have."""
BY_NAME, BY_ADDRESS = f"https://{PAGE}", "https://10.66.0.1:8443"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Deployment, oidc.Provider]]:
    executable()  # before the long part: it may have to be installed
    folder = tmp_path_factory.mktemp("dex")
    folder.chmod(0o755)
    people = {
        "kim": {"keyless": True, "devices": ["tablet", "desk"]},
        "lee": {"keyless": True, "limits": {"tokens_per_day": BUDGET, "requests_per_minute": 600, "burst": 600}},
    }
    with oidc.deployed_with_login(folder, **people) as made:
        yield made


@contextmanager
def behind(client: Client, provider: oidc.Provider, playwright: Playwright, home: Path) -> Iterator[Browser]:
    """A Chromium in the client's network, which believes what its owner has installed there."""
    believe(home, "fortress", client.deployment.bundle(client.user)["ca.pem"])
    believe(home, "provider", provider.ca_file.read_text())
    # IPv6 takes a second or two until an address counts; a page that is being opened then would be broken off.
    client.wait_until(lambda: not client.run("ip", "address", "show", "tentative"), "address that counts")
    network = Namespace(int(docker("inspect", "-f", "{{.State.Pid}}", client.id)))
    with launched(playwright, network, home, f"--host-resolver-rules=MAP {PAGE} 10.66.0.1") as browser:
        yield browser


@pytest.fixture(scope="module")
def devices(
    place: tuple[Deployment, oidc.Provider], playwright: Playwright, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[str], Browser]]:
    """A Chromium on a device of a user, one for each."""
    with ExitStack() as open_ones:
        made: dict[str, Browser] = {}

        def of(user: str) -> Browser:
            if user not in made:
                client = Client(place[0], user)
                open_ones.callback(client.close)
                home = tmp_path_factory.mktemp(f"home-{user}")
                made[user] = open_ones.enter_context(behind(client, place[1], playwright, home))
            return made[user]

        yield of


@contextmanager
def visit(browser: Browser, origin: str, provider: oidc.Provider | None = None, **options: Any) -> Iterator[Watched]:
    """The page, which at the end has done nothing that it should not; on the way there may be a provider."""
    issuer = f"https://{urlsplit(provider.issuer).netloc}" if provider else origin
    with watched(browser, origin, issuer, **options) as seen:
        seen.page.goto(origin)
        yield seen


def sign_in(page: Page, provider: oidc.Provider, email: str) -> None:
    page.wait_for_url(re.compile(re.escape(provider.issuer)))
    page.locator("#login").fill(email)
    page.locator("#password").fill(oidc.PASSWORD)
    page.locator("#submit-login").click()


def last_chat(deployment: Deployment, user: str) -> dict[str, Any]:
    """The audit line of a user's last message."""
    lines = [line for line in deployment.audit() if line["route"] == "/api/chat" and line["principal"] == user]
    return lines[-1]


@pytest.mark.parametrize("origin", [BY_NAME, BY_ADDRESS])
def test_a_keyless_device_chats_without_any_login(origin: str, place: Any, devices: Any):
    with visit(devices("kim"), origin) as seen:
        page = seen.page
        expect(page.get_by_role("heading", name="Hello, kim.")).to_be_visible()
        say(page, "Why is the sky blue?")
        page.get_by_role("button", name="Stop").click(trial=True)
        expect(answer(page)).to_have_text(re.compile(r"\w"), timeout=120_000)
        page.get_by_role("button", name="Stop").click()
        expect(done(page)).to_contain_text("Stopped after")
        words = answer(page).inner_text()
        page.get_by_role("button", name="Usage and devices").click()
        panel = page.get_by_role("dialog")
        expect(panel.locator(".devices li")).to_have_count(2)
        assert panel.locator(".devices li").all_inner_texts() == ["tablet", "desk\nthis one"]
        expect(panel).to_contain_text("known by the tunnel")
        expect(panel.get_by_role("link", name="Sign out")).to_have_count(0)
        expect(panel.locator(".budget").first).not_to_contain_text(re.compile(r"\b0 tokens"))
        seen.is_clean()
    assert words
    line = last_chat(place[0], "kim")
    assert (line["proof"], line["device"], line["verdict"], line["completion"]) == ("address", "desk", "allowed", "cut")


def test_it_is_a_small_download(devices: Any):
    with visit(devices("kim"), BY_NAME) as seen:
        expect(seen.page.get_by_role("heading", name="Hello, kim.")).to_be_visible()
        sizes = seen.page.evaluate(
            "() => Object.fromEntries(performance.getEntries().filter(each => each.transferSize !== undefined)"
            ".map(each => [each.name, each.transferSize]))"
        )
        assert len(sizes) == len(page_files()) + 2, f"each file once, and two questions to the gateway: {sizes}"
        assert sum(sizes.values()) < 30_000, sizes
        seen.is_clean()


def test_the_first_words_are_seen_while_the_model_still_writes(place: Any, devices: Any):
    with visit(devices("kim"), BY_NAME) as seen:
        say(seen.page, "Tell me a long story.")
        expect(answer(seen.page)).to_have_text(re.compile(r"\w"), timeout=120_000)
        for _ in range(3):  # it grows, and grows again, and has not ended
            shown = len(answer(seen.page).inner_text())
            expect(answer(seen.page)).to_have_text(re.compile(rf"^.{{{shown + 1},}}", re.DOTALL), timeout=120_000)
            expect(seen.page.get_by_role("button", name="Stop")).to_be_visible()
        seen.page.keyboard.press("Escape")
        expect(done(seen.page)).to_contain_text("Stopped after")
        deadline = time.monotonic() + 5
        while seen.page.evaluate("async () => (await (await fetch('/fortress/me')).json()).streams"):
            assert time.monotonic() < deadline, "the stopped answer still holds its stream"
            seen.page.wait_for_timeout(200)
        seen.is_clean()


def tokens_used(deployment: Deployment, user: str) -> int:
    """Tokens of a user's messages, as the audit counts them."""
    lines = [line for line in deployment.audit() if line["principal"] == user]
    return sum(line["tokens_in"] + line["tokens_out"] for line in lines)


def test_a_budget_below_the_longest_answer_is_spent_to_its_end(place: Any, devices: Any):
    """Without a bound of the page's own, the gateway would refuse this user's first message."""
    deployment = place[0]
    assert deployment.config["limits"]["answer_tokens"] > BUDGET
    with visit(devices("lee"), BY_NAME) as seen:
        page = seen.page
        say(page, "Hello")
        expect(done(page)).to_contain_text("ended at the longest answer allowed", timeout=120_000)
        page.get_by_role("button", name="Usage and devices").click()
        expect(page.locator(".budget").first).to_contain_text(f"of {BUDGET:,} tokens")
        page.keyboard.press("Escape")
        refused = page.locator(".failure")
        for nth in range(1, 10):  # each answer spends a part of what is left
            if refused.count():
                break
            say(page, "More")
            expect(page.locator(".answer").nth(nth).locator(".note:visible, .failure")).to_be_visible(timeout=120_000)
        expect(refused).to_contain_text(f"Your limit is reached: {BUDGET:,} tokens a day")
        expect(refused).to_contain_text("possible in")
        seen.is_clean(429)
    used = tokens_used(deployment, "lee")
    assert 0 < used <= BUDGET, f"{used} tokens were used of {BUDGET}"


def test_somebody_signs_in_chats_and_signs_out(place: Any, devices: Any):
    deployment, provider = place
    with visit(devices("bob"), BY_NAME, provider) as seen:
        page = seen.page
        sign_in(page, provider, "ada@example.com")
        expect(page.get_by_role("heading", name="Hello, ada.")).to_be_visible()
        assert page.url == f"{BY_NAME}/", "the login has left something in the address"
        picture(page, "deployed-signed-in")
        say(page, "Why is the sky blue?")
        expect(answer(page)).to_have_text(re.compile(r"\w"), timeout=120_000)
        page.get_by_role("button", name="Stop").click()
        expect(done(page)).to_be_visible()
        page.get_by_role("button", name="Usage and devices").click()
        panel = page.get_by_role("dialog")
        expect(panel).to_contain_text("signed in")
        expect(panel.get_by_role("table")).to_be_visible()
        rows = panel.get_by_role("table").get_by_role("row").all_inner_texts()
        assert {row.split("\t")[0] for row in rows[1:]} == set(deployment.config["users"])
        picture(page, "deployed-panel")
        panel.get_by_role("link", name="Sign out").click()
        page.wait_for_url(re.compile(re.escape(provider.issuer)))
        expect(page.locator("#login")).to_be_visible()
        page.goto(BY_NAME)
        page.wait_for_url(re.compile(re.escape(provider.issuer)))
        seen.is_clean()
    line = last_chat(deployment, "ada")
    assert (line["proof"], line["verdict"]) == ("session", "allowed")


def test_a_phone_signs_in_at_the_tunnels_address(place: Any, devices: Any):
    with visit(devices("bob"), BY_ADDRESS, place[1], viewport=PHONE, is_mobile=True, has_touch=True) as seen:
        sign_in(seen.page, place[1], "bob@example.com")
        expect(seen.page.get_by_role("heading", name="Hello, bob.")).to_be_visible()
        seen.page.get_by_role("button", name="Usage and devices").click()
        expect(seen.page.get_by_role("dialog").get_by_role("table")).to_have_count(0)
        seen.is_clean()


def test_a_stranger_is_told_so_and_sees_nothing_else(place: Any, devices: Any):
    with visit(devices("bob"), BY_NAME, place[1]) as seen:
        sign_in(seen.page, place[1], "stranger@example.com")
        expect(seen.page.get_by_role("heading", name="You may not come in")).to_be_visible()
        expect(seen.page.get_by_label("Your message")).to_have_count(0)
        picture(seen.page, "deployed-stranger")
        statuses = seen.page.evaluate(
            "() => Promise.all(['/chat.js', '/fortress/me', '/api/tags', '/fortress/usage'].map(async path =>"
            " (await fetch(path)).status))"
        )
        assert statuses == [403] * 4
        seen.page.get_by_role("link", name="Sign out").click()
        seen.page.wait_for_url(re.compile(re.escape(place[1].issuer)))
        seen.is_clean(403, 404)  # 404: a page without an icon makes Chromium ask for /favicon.ico


def test_whoever_is_removed_while_the_page_is_open_is_told(place: Any, devices: Any):
    deployment = place[0]
    with visit(devices("kim"), BY_NAME) as seen:
        page = seen.page
        say(page, "Tell me a long story.")
        expect(answer(page)).to_have_text(re.compile(r"\w"), timeout=120_000)
        deployment.fortress("block", "kim")
        try:
            expect(page.locator(".failure")).to_contain_text("The answer was cut off", timeout=10_000)
            page.get_by_role("button", name="Try again").click()
            expect(page.locator(".failure")).to_contain_text("Blocked here; ask whoever runs this server.")
        finally:
            deployment.fortress("unblock", "kim")
        picture(page, "deployed-blocked")
        seen.errors[:] = [error for error in seen.errors if "ERR_INCOMPLETE_CHUNKED_ENCODING" not in error]
        seen.is_clean(403)
