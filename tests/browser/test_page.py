"""The chat page in a real Chromium, before a stand-in for the gateway: what is seen, read aloud, and sent."""

import re
import threading
from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import Dialog, Locator, Page, expect

from render.page import files
from tests.browser.chromium import DESK, PHONE, Watched, picture
from tests.browser.stand_in import StandIn

NARROW = {"width": 360, "height": 640}
HANDHELD: dict[str, Any] = {"viewport": NARROW, "is_mobile": True, "has_touch": True}
CONTRASTS = """() => {
    const parts = text => {
        const numbers = text.match(/[\\d.]+/g).map(Number);
        return numbers.length < 4 ? [...numbers, 1] : numbers;
    };
    const linear = v => v <= 0.04045 * 255 ? v / 255 / 12.92 : ((v / 255 + 0.055) / 1.055) ** 2.4;
    const light = text => {
        const [r, g, b] = parts(text).map(linear);
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const found = [], exempt = ':disabled, :disabled *, .unseen, noscript, option';
    for (const each of (document.querySelector('dialog[open]') || document.body).querySelectorAll('*')) {
        const own = [...each.childNodes].some(node => node.nodeType === 3 && node.data.trim());
        if (!own || each.matches(exempt) || !each.getClientRects().length) continue;
        let behind = each;
        while (parts(getComputedStyle(behind).backgroundColor)[3] < 1) behind = behind.parentElement;
        const a = light(getComputedStyle(each).color), b = light(getComputedStyle(behind).backgroundColor);
        found.push([(Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05), each.tagName, each.textContent.trim()]);
    }
    return found;
}"""
"""[contrast, tag, words] of every text that is seen."""
HOSTILE = (
    "<img src=x onerror=alert(1)> <script>alert(2)</script> ![x](https://evil.example/?q=1) "
    "[here](javascript:alert(3)) <svg onload=alert(4)> <style>*{display:none}</style>\n\n"
    '```html"><img src=x onerror=alert(5)>\n<iframe srcdoc="<script>alert(6)</script>">\n```\n\n'
    "- <a href=javascript:alert(7)>x</a>\n\n# <base href=//evil.example>"
)


def say(page: Page, words: str) -> None:
    page.get_by_label("Your message").fill(words)
    page.keyboard.press("Enter")


def answer(page: Page, nth: int = -1) -> Locator:
    """The words of an answer; the last one's, unless another is asked for."""
    return page.locator(".answer .prose").nth(nth)


def done(page: Page, nth: int = -1) -> Locator:
    """What stands below an answer that has ended well."""
    return page.locator(".answer .note").nth(nth)


def heard(page: Page) -> Locator:
    """What a screen reader is told without being asked."""
    return page.get_by_role("status")


def fits(page: Page) -> bool:
    """Nothing sticks out to the right, neither of the page nor of what scrolls in it."""
    return page.evaluate(
        "() => [document.documentElement, ...document.querySelectorAll('main, dialog[open]')]"
        ".every(each => each.scrollWidth <= each.clientWidth)"
    )


def test_the_first_words_are_there_before_the_answer_has_ended(page: Page, gateway: StandIn):
    rest = threading.Event()
    gateway.answer = ["It is ", "because", rest, " of the air."]
    say(page, "Why is the sky blue?")
    expect(answer(page)).to_have_text("It is because")
    assert not gateway.ended.is_set(), "the whole answer had come already, so this shows nothing"
    expect(heard(page)).not_to_contain_text("because")
    rest.set()
    expect(answer(page)).to_have_text("It is because of the air.")
    expect(done(page)).to_contain_text(re.compile(r"4 tokens · \d+\.\d s"))
    expect(heard(page)).to_have_text("llama3.2:3b: It is because of the air.")


def test_what_was_said_before_goes_along_and_a_new_chat_forgets_it(page: Page, gateway: StandIn):
    page.get_by_label("Model").select_option("tiny:latest")
    say(page, "My name is Ada.")
    expect(done(page)).to_be_visible()
    say(page, "Who am I?")
    expect(done(page, 1)).to_be_visible()
    assert gateway.chats[1] == {
        "model": "tiny:latest",
        "stream": True,
        "messages": [
            {"role": "user", "content": "My name is Ada."},
            {"role": "assistant", "content": "Hello there."},
            {"role": "user", "content": "Who am I?"},
        ],
    }
    page.get_by_role("button", name="New chat").click()
    expect(page.locator(".answer")).to_have_count(0)
    say(page, "Who am I?")
    expect(done(page)).to_be_visible()
    assert [each["content"] for each in gateway.chats[2]["messages"]] == ["Who am I?"]


def test_nothing_of_a_conversation_outlives_its_tab(page: Page, gateway: StandIn):
    say(page, "A secret.")
    expect(done(page)).to_be_visible()
    kept = page.evaluate(
        "async () => [localStorage.length, sessionStorage.length, document.cookie,"
        " (await indexedDB.databases()).length, (await caches.keys()).length]"
    )
    assert kept == [0, 0, "", 0, 0]
    page.reload()
    expect(page.get_by_role("heading", name="Hello, alice.")).to_be_visible()
    expect(page.locator("body")).not_to_contain_text("A secret.")
    expect(page.locator("#welcome")).to_contain_text("kept in this tab only")


@pytest.mark.parametrize("way", ["button", "escape", "new chat"])
def test_stop_leaves_the_server_at_once(way: str, page: Page, gateway: StandIn):
    gateway.answer = ["Once upon a time", threading.Event()]
    say(page, "A story, please.")
    expect(answer(page)).to_have_text("Once upon a time")
    if way == "escape":
        page.keyboard.press("Escape")
    else:
        page.get_by_role("button", name="Stop" if way == "button" else "New chat").click()
    assert gateway.left.wait(2), "the server still writes an answer that nobody wants"
    if way == "new chat":
        expect(page.locator(".answer")).to_have_count(0)
    else:
        expect(done(page)).to_contain_text("Stopped after")
    gateway.answer = ["What then?"]
    say(page, "Go on.")
    expect(answer(page)).to_have_text("What then?")
    kept = [each["content"] for each in gateway.chats[-1]["messages"]]
    assert kept == (["Go on."] if way == "new chat" else ["A story, please.", "Once upon a time", "Go on."])


def test_an_answer_can_be_stopped_while_it_waits(page: Page, gateway: StandIn):
    gateway.before = threading.Event()
    say(page, "Hello")
    expect(page.locator(".waits")).to_contain_text("Waiting for the first word")
    page.get_by_role("button", name="Stop").click()
    assert gateway.left.wait(2)
    expect(page.locator(".waits")).to_have_count(0)
    expect(page.get_by_label("Your message")).to_be_focused()
    gateway.before = None
    say(page, "Are you there?")
    expect(done(page, 1)).to_contain_text("tokens")
    assert [each["content"] for each in gateway.chats[1]["messages"]] == ["Hello", "Are you there?"]


def test_waiting_in_the_queue_is_seen_and_heard(page: Page, gateway: StandIn):
    gateway.before = threading.Event()
    gateway.me["waiting"] = 1
    say(page, "Hello")
    waits = page.locator(".waits")
    patient = 20_000
    expect(waits).to_contain_text(
        re.compile(r"All places are taken: waiting for a free one, \d+ of at most 30 s"), timeout=patient
    )
    expect(heard(page)).to_contain_text("All places are taken")
    gateway.me["waiting"] = 0
    expect(waits).to_contain_text("Waiting for the first word", timeout=patient)
    gateway.before.set()
    expect(answer(page)).to_have_text("Hello there.")
    expect(waits).to_have_count(0)


def test_a_reached_limit_is_named_and_counted_down_until_it_may_be_tried_again(page: Page, gateway: StandIn):
    gateway.refuse("/api/chat", 429, "limit requests_per_minute (2) reached; try again in 3 s", Retry_After="3")
    page.evaluate(
        "() => { window.left = []; new MutationObserver(() => {"
        " const found = /possible in (\\d+) s/.exec(document.body.textContent);"
        " if (found && window.left.at(-1) !== found[1]) window.left.push(found[1]);"
        " }).observe(document.body, {subtree: true, childList: true, characterData: true}); }"
    )
    say(page, "Hello")
    told = page.locator(".failure")
    expect(told).to_contain_text("Your limit is reached: 2 messages a minute")
    expect(told).to_contain_text("requests_per_minute")
    again = told.get_by_role("button", name="Try again")
    expect(again).to_be_disabled()
    gateway.refusals.clear()
    expect(again).to_be_enabled()
    assert page.evaluate("window.left") == ["3", "2", "1"]
    again.click()
    expect(answer(page)).to_have_text("Hello there.")
    expect(told).to_have_count(0)
    assert [chat["messages"] for chat in gateway.chats] == [[{"role": "user", "content": "Hello"}]] * 2


@pytest.mark.parametrize(
    ("says", "wait", "title", "more"),
    [
        (
            "limit tokens_per_day (20000): 12 left, and this request may take 300; ask for a shorter answer, or try "
            "again in 4000 s",
            "4000",
            "Your limit is reached: 20,000 tokens a day",
            "12 left, and this request may take 300; ask for a shorter answer.",
        ),
        (
            "limit queue_wait_s (30) reached: no inference slot became free; try again in 1 s",
            "90",
            "The server is busy",
            "No inference slot became free.",
        ),
        (
            "limit failed_auth_per_minute (30) reached: too many requests without a valid key from this address; try "
            "again in 2 s",
            "2",
            "Too many requests",
            "Too many requests without a valid key from this address.",
        ),
        ("too many requests at once; slow down", "", "Too many requests", "Too many requests at once; slow down."),
    ],
)
def test_each_limit_has_words_of_its_own(says: str, wait: str, title: str, more: str, page: Page, gateway: StandIn):
    gateway.refuse("/api/chat", 429, says, Retry_After=wait)
    say(page, "Hello")
    told = page.locator(".failure")
    expect(told).to_contain_text(title)
    expect(told).to_contain_text(more)
    if int(wait or 0) > 60:
        expect(told).to_contain_text({"4000": "possible in 1 h 6 min", "90": "possible in 1 min 30 s"}[wait])


@pytest.mark.parametrize(
    ("status", "says", "seen"),
    [
        (403, "this model is not among those you may use", "This model is not among those you may use"),
        (413, "the body is larger than this route allows", "Begin a new chat"),
        (404, "model 'gone' not found", "Model 'gone' not found."),
        (502, "the model server is not there right now", "The model server is not there right now"),
        (500, "", "It says 500."),
    ],
)
def test_what_the_server_refuses_is_said_in_words(status: int, says: str, seen: str, page: Page, gateway: StandIn):
    gateway.refuse("/api/chat", status, says)
    say(page, "Hello")
    expect(page.locator(".failure")).to_contain_text(seen)
    expect(heard(page)).to_contain_text(seen)
    expect(page.locator(".failure").get_by_role("button", name="Try again")).to_be_enabled()


def test_whoever_is_signed_out_meanwhile_keeps_the_conversation(page: Page, gateway: StandIn):
    say(page, "Hello")
    expect(done(page)).to_be_visible()
    gateway.refuse("/api/chat", 401, "no valid API key")
    say(page, "Still there?")
    link = page.get_by_role("link", name="Sign in again")
    expect(link).to_have_attribute("href", "/")
    expect(link).to_have_attribute("target", "_blank")
    gateway.refusals.clear()
    page.get_by_role("button", name="Try again").click()
    expect(done(page, 1)).to_be_visible()
    assert len(gateway.chats[-1]["messages"]) == 3


@pytest.mark.parametrize(
    ("status", "path", "seen"),
    [
        (401, "/fortress/me", "You are signed out"),
        (403, "/fortress/me", "Blocked here"),
        (502, "/api/tags", "not there"),
    ],
)
def test_a_page_that_cannot_begin_says_why_and_begins_later(
    status: int, path: str, seen: str, gateway: StandIn, opened: Any
):
    gateway.refuse(path, status, {403: "blocked here; ask", 502: "the model server is not there"}.get(status, ""))
    page = opened().page
    expect(page.locator(".failure")).to_contain_text(seen)
    expect(page.get_by_label("Your message")).to_be_disabled()
    gateway.refusals.clear()
    page.get_by_role("button", name="Try again").click()
    expect(page.get_by_role("heading", name="Hello, alice.")).to_be_visible()
    expect(page.locator(".failure")).to_have_count(0)


def test_a_server_out_of_reach_is_no_riddle(opened: Any):
    seen: Watched = opened()
    expect(seen.page.get_by_label("Your message")).to_be_enabled()
    seen.page.context.set_offline(True)
    say(seen.page, "Hello")
    expect(seen.page.locator(".failure")).to_contain_text("Is this device connected, and its tunnel up?")
    seen.page.context.set_offline(False)
    seen.page.get_by_role("button", name="Try again").click()
    expect(answer(seen.page)).to_have_text("Hello there.")
    assert all("ERR_INTERNET_DISCONNECTED" in error for error in seen.errors)
    seen.errors.clear()


@pytest.mark.parametrize(
    ("piece", "why"),
    [
        ({"error": "the runner has stopped"}, "The runner has stopped."),
        (b'{"message": {"content": "hal', "not all of it"),
        (b"", "not all of it"),
    ],
)
def test_half_an_answer_is_never_shown_as_a_whole_one(piece: Any, why: str, page: Page, gateway: StandIn):
    gateway.answer = ["So far so good"]
    gateway.last = piece
    say(page, "Hello")
    expect(answer(page)).to_have_text("So far so good")
    expect(page.locator(".failure")).to_contain_text("The answer was cut off")
    expect(page.locator(".failure")).to_contain_text(why)


def test_hostile_words_stay_words(page: Page, gateway: StandIn):
    asked: list[str] = []

    def dismiss(dialog: Dialog) -> None:
        asked.append(dialog.message)
        dialog.dismiss()

    page.on("dialog", dismiss)
    gateway.models = ["<b>bold</b>"]
    gateway.me["user"] = "<i>eve</i>"
    page.reload()
    gateway.answer = [{"message": {"content": "", "thinking": "<img src=x onerror=alert(9)>"}}, *HOSTILE]
    say(page, HOSTILE)
    expect(done(page)).to_be_visible()
    page.locator("summary").click()
    for shown in (answer(page), page.locator(".question")):
        expect(shown).to_contain_text("<img src=x onerror=alert(1)> <script>alert(2)</script>")
    expect(page.locator(".thought")).to_contain_text("<img src=x onerror=alert(9)>")
    expect(page.locator("pre")).to_contain_text('<iframe srcdoc="<script>alert(6)</script>">')
    expect(page.locator("#turns :is(img, script, style, iframe, base, a, b, i:not(.dots i))")).to_have_count(0)
    expect(page.locator("#turns [onerror], #turns [onload], #turns [style]")).to_have_count(0)
    page.wait_for_timeout(300)  # what an `onerror` would need
    assert asked == []


def test_the_watch_over_the_page_sees_what_it_is_there_for(opened: Any):
    """Without this, a test bench that notices nothing would look like a page that does nothing wrong."""
    seen: Watched = opened()
    seen.page.evaluate(
        "() => { const inline = document.createElement('script'); inline.textContent = 'window.ran = true';"
        " const image = new Image(); image.src = 'http://127.0.0.1:9/x.png';"
        " document.body.append(inline, image); setTimeout(() => { throw new Error('loose'); }); }"
    )
    for _ in range(50):
        if len(seen.violations) >= 2 and any("loose" in error for error in seen.errors):
            break
        seen.page.wait_for_timeout(100)
    assert sorted(each.split()[0] for each in seen.violations) == ["img-src", "script-src-elem"]
    assert seen.page.evaluate("window.ran") is None
    with pytest.raises(AssertionError):
        seen.is_clean()
    seen.errors.clear()
    seen.violations.clear()
    seen.foreign.clear()


def test_what_a_model_writes_is_set_as_it_is_meant(page: Page, gateway: StandIn):
    gateway.answer = [
        "## Plan\n\nUse `a*b` and **do *it* now**, 2 * 3 * 4.\nNext line\n\n1. one\n   - deep\n2. two\n\n",
        "> said\n\n---\n\n```py\nprint('**no**')\n\nx = 1\n```\n\n| a | b |\n|---|---|\n\nunpaired ** and ` stay",
    ]
    say(page, "Hello")
    expect(done(page)).to_be_visible()
    words = answer(page)
    expect(words.locator("> h4")).to_have_text("Plan")
    expect(words.locator("> p > code")).to_have_text("a*b")
    expect(words.locator("> p > strong")).to_have_text("do it now")
    expect(words.locator("> p > strong > em")).to_have_text("it")
    expect(words.locator("> p").first).to_contain_text("2 * 3 * 4.")
    expect(words.locator("> ol > li")).to_have_count(2)
    expect(words.locator("> ol > li > ul > li")).to_have_text("deep")
    expect(words.locator("> blockquote")).to_have_text("said")
    expect(words.locator("> hr")).to_have_count(1)
    expect(words.locator("> figure code")).to_have_text("print('**no**')\n\nx = 1", use_inner_text=True)
    expect(words.locator("> pre")).to_contain_text("| a | b |")
    expect(words.locator("> p").last).to_have_text("unpaired ** and ` stay")


def test_text_that_is_already_there_is_not_made_anew(page: Page, gateway: StandIn):
    rest = threading.Event()
    gateway.answer = ["First.\n\nSecond", rest, " half.\n\nThird."]
    say(page, "Hello")
    expect(answer(page).locator("p")).to_have_count(2)
    answer(page).locator("p").first.evaluate("first => { first.marked = true; }")
    rest.set()
    expect(answer(page).locator("p")).to_have_count(3)
    assert answer(page).locator("p").first.evaluate("first => first.marked"), "what is being read or marked was lost"


@pytest.mark.parametrize("marks", ["`` ` ", "**a*b", ">", "- ", "#", "```\n~~~\n", "*", "`" * 7, "  - x\n"])
def test_no_answer_can_hold_up_the_page(marks: str, page: Page, gateway: StandIn):
    gateway.answer = [marks * (30_000 // len(marks))]
    say(page, "Hello")
    expect(done(page)).to_be_visible()


def test_thoughts_are_folded_away(page: Page, gateway: StandIn):
    rest = threading.Event()
    gateway.answer = [{"message": {"content": "", "thinking": "Hm. "}}, rest, "42"]
    say(page, "What is it?")
    expect(page.locator(".waits")).to_contain_text("Thinking")
    rest.set()
    expect(answer(page)).to_have_text("42")
    expect(page.locator(".thought p")).to_be_hidden()
    page.locator("summary").click()
    expect(page.locator(".thought p")).to_have_text("Hm. ")
    say(page, "Sure?")
    expect(done(page, 1)).to_be_visible()
    assert gateway.chats[1]["messages"][1] == {"role": "assistant", "content": "42"}


def test_whoever_reads_further_up_is_left_in_peace(page: Page, gateway: StandIn):
    rest = threading.Event()
    gateway.answer = ["word\n\n" * 200, rest, "more\n\n" * 50]
    say(page, "Hello")
    place = page.locator("main")
    expect(answer(page).locator("p")).to_have_count(200)
    assert place.evaluate("main => main.scrollHeight - main.scrollTop - main.clientHeight") < 50, "it does not follow"
    place.evaluate("main => { main.scrollTop = 100; }")
    latest = page.get_by_role("button", name="Latest words")
    expect(latest).to_be_visible()
    rest.set()
    expect(done(page)).to_be_attached()
    assert place.evaluate("main => main.scrollTop") == 100
    latest.click()
    expect(latest).to_be_hidden()
    expect(done(page)).to_be_in_viewport()


def test_all_of_it_can_be_done_with_the_keyboard(page: Page, gateway: StandIn):
    box = page.get_by_label("Your message")
    expect(box).to_be_focused()
    page.keyboard.type("one")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("two")
    assert gateway.chats == [], "Shift+Enter has sent"
    page.keyboard.press("Enter")
    expect(done(page)).to_be_visible()
    assert gateway.chats[0]["messages"] == [{"role": "user", "content": "one\ntwo"}]
    expect(box).to_be_focused()
    expect(box).to_have_value("")

    names: list[str] = []
    for _ in range(8):
        page.keyboard.press("Shift+Tab")
        outline = page.evaluate("() => getComputedStyle(document.activeElement).outlineStyle")
        names.append(page.evaluate("() => document.activeElement.id"))
        assert outline == "solid", f"{names[-1]} has the focus, and nobody sees it"
        if names[-1] == "account":
            break
    page.keyboard.press("Enter")
    panel = page.get_by_role("dialog", name="Usage and devices")
    expect(panel).to_contain_text("alice")
    for _ in range(6):
        page.keyboard.press("Tab")
        inside = page.evaluate("() => !document.activeElement.matches('main *, footer *, header *')")
        assert inside, "the focus has left the open panel"
    page.keyboard.press("Escape")
    expect(panel).to_be_hidden()
    expect(page.get_by_role("button", name="Usage and devices")).to_be_focused()


def test_enter_that_an_input_method_needs_does_not_send(page: Page, gateway: StandIn):
    page.get_by_label("Your message").fill("にほん")
    page.get_by_label("Your message").evaluate(
        "box => box.dispatchEvent(new KeyboardEvent('keydown', {key: 'Enter', isComposing: true, bubbles: true,"
        " cancelable: true}))"
    )
    page.wait_for_timeout(200)
    assert gateway.chats == []
    page.keyboard.press("Enter")
    expect(done(page)).to_be_visible()


def test_every_control_has_a_name(page: Page, gateway: StandIn):
    gateway.answer = ["```\ncode\n```"]
    say(page, "Hello")
    expect(done(page)).to_be_visible()
    page.get_by_role("button", name="Usage and devices").click()
    expect(page.locator(".budget").first).to_be_visible()
    for control in page.locator("button:visible, select:visible, textarea:visible, a:visible, progress").all():
        tree = control.aria_snapshot()
        assert re.match(r'- \w+ "[^"]+', tree), f"a control without a name: {control.evaluate('it => it.outerHTML')}"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_stands_out_from_what_is_behind_it(scheme: str, opened: Any, gateway: StandIn):
    """WCAG 2.2, 1.4.3: 4.5 to 1; what cannot be pressed right now is exempt there."""
    page = opened(color_scheme=scheme).page
    gateway.me["budgets"] = {
        "tokens_per_day": {"limit": 9, "used": 1, "reserved": 1, "left": 7, "renews": "2026-11-24T23:00:00Z"}
    }
    gateway.answer = ["A `word`.\n\n> quoted\n\n```\ncode\n```"]
    say(page, "Hello")
    expect(done(page)).to_be_visible()
    gateway.refuse("/api/chat", 401)
    say(page, "Hello")
    expect(page.locator(".failure")).to_be_visible()
    found = page.evaluate(CONTRASTS)
    page.get_by_role("button", name="Usage and devices").click()
    expect(page.locator(".budget").first).to_be_visible()
    page.wait_for_timeout(300)  # the panel slides in
    found += page.evaluate(CONTRASTS)
    assert len(found) > 25
    assert [each for each in found if each[0] < 4.5] == []


def test_a_phone_shows_all_of_it_without_scrolling_sideways(opened: Any, gateway: StandIn):
    gateway.models = ["a-model-with-a-rather-long-name-of-its-own:70b-instruct-q4_K_M"]
    gateway.me |= {"role": "admin", "proof": "session"}
    gateway.users = {
        "somebody-with-a-long-name-here": {
            "today": {"in": 9**9, "out": 9},
            "month": {"in": 9**10, "out": 9},
            "budgets": {},
        }
    }
    page = opened(**HANDHELD).page
    expect(page.get_by_role("heading", name="Hello, alice.")).to_be_visible()
    assert fits(page)
    gateway.answer = ["w" * 300 + "\n\n```\n" + "c" * 300 + "\n```\n\n| " + "t" * 300 + " |\n\n- " + "l" * 300]
    say(page, "q" * 300)
    expect(done(page)).to_be_visible()
    assert fits(page)
    gateway.refuse("/api/chat", 502, "e" * 300)
    say(page, "Hello")
    expect(page.locator(".failure")).to_be_visible()
    assert fits(page)
    expect(page.get_by_label("Your message")).to_be_in_viewport(ratio=1)
    sizes = page.locator("header button, header select, footer button").evaluate_all(
        "all => all.map(each => each.getBoundingClientRect()).map(box => [box.width, box.height])"
    )
    assert all(min(size) >= 40 for size in sizes), f"too small for a thumb: {sizes}"
    # Below 16 px, a phone zooms in when the keyboard comes, and stays there.
    assert page.get_by_label("Your message").evaluate("box => getComputedStyle(box).fontSize") == "16px"
    page.get_by_role("button", name="Usage and devices").click()
    expect(page.get_by_role("table")).to_be_visible()
    assert fits(page)


def test_a_long_message_leaves_room_for_the_answer(opened: Any):
    page = opened(**HANDHELD).page
    page.get_by_label("Your message").fill("line\n" * 60)
    expect(page.get_by_role("button", name="Send")).to_be_in_viewport(ratio=1)
    assert page.locator("main").evaluate("main => main.clientHeight") > 200


def test_no_models_are_explained(gateway: StandIn, opened: Any):
    gateway.models = []
    gateway.me["models"] = ["llama3.2:*", "other"]
    page = opened().page
    expect(page.locator("#welcome")).to_contain_text(
        "There is no model for you here yet. You may use: llama3.2:*, other."
    )
    expect(page.get_by_label("Your message")).to_be_disabled()
    expect(page.get_by_role("button", name="Send")).to_be_disabled()


def test_the_panel_shows_what_is_used_and_left_and_on_which_devices(page: Page, gateway: StandIn):
    gateway.me["budgets"] = {
        "tokens_per_day": {
            "limit": 20000,
            "used": 5000,
            "reserved": 300,
            "left": 14700,
            "renews": "2026-11-24T23:00:00Z",
        }
    }
    gateway.me |= {"today": {"in": 4000, "out": 1000}, "month": {"in": 9000, "out": 3345}, "streams": 1}
    page.get_by_role("button", name="Usage and devices").click()
    panel = page.get_by_role("dialog", name="Usage and devices")
    expect(panel.locator(".budget")).to_have_count(2)
    day, month = panel.locator(".budget").all()
    expect(day).to_contain_text("5,000 of 20,000 tokens")
    expect(day).to_contain_text("14,700 left, 300 held by what runs")
    expect(day).to_contain_text("Renews Wed 25 Nov, 00:00 (Europe/Berlin)")
    bar = day.get_by_role("progressbar", name="Today: tokens used")
    assert bar.evaluate("bar => bar.position") == 0.25
    expect(month).to_contain_text("12,345 tokens")
    expect(month).to_contain_text("no budget")
    for name, value in {"Messages a minute": "30", "Answers at once": "1 of 2 now", "Models": "all"}.items():
        expect(panel.locator("dt", has_text=name).locator("+ dd")).to_have_text(value)
    devices = panel.locator(".devices li")
    expect(devices).to_have_count(2)
    assert devices.all_inner_texts() == ["laptop\nthis one", "phone"]
    expect(panel.get_by_role("table")).to_have_count(0)
    expect(panel.get_by_role("link", name="Sign out")).to_have_count(0)
    page.mouse.click(200, 400)  # beside it
    expect(panel).to_be_hidden()


def test_admins_see_everybody_and_whoever_signed_in_can_sign_out(page: Page, gateway: StandIn):
    gateway.me |= {"role": "admin", "proof": "session", "device": None}
    gateway.users = {
        "alice": {"today": {"in": 1, "out": 1}, "month": {"in": 100, "out": 20}, "budgets": {}},
        "bob": {
            "today": {"in": 10, "out": 5},
            "month": {"in": 4000, "out": 1000},
            "budgets": {"tokens_per_month": {"limit": 20000}},
        },
    }
    page.get_by_role("button", name="Usage and devices").click()
    expect(page.get_by_role("table")).to_be_visible()
    rows = page.get_by_role("table").get_by_role("row").all_inner_texts()
    assert [row.split("\t") for row in rows[1:]] == [["bob", "15", "5,000", "25 %"], ["alice", "2", "120", "none"]]
    expect(page.get_by_role("link", name="Sign out")).to_have_attribute("href", "/oauth2/sign_out?rd=%2F")


def test_a_panel_without_an_answer_says_why(page: Page, gateway: StandIn):
    panel = page.get_by_role("button", name="Usage and devices")
    expect(panel).to_be_enabled()  # the page has asked who it is, which is the same question
    gateway.refuse("/fortress/me", 503, "the model server is busy")
    panel.click()
    expect(page.get_by_role("dialog")).to_contain_text("The model server is busy.")


def test_a_small_rest_of_a_budget_still_buys_a_short_answer(gateway: StandIn, opened: Any):
    """The gateway holds the longest answer of a request; without a bound it would refuse what the rest could pay."""
    gateway.me["budgets"] = {
        "tokens_per_day": {"limit": 9000, "used": 0, "reserved": 0, "left": 1000, "renews": "2026-11-24T23:00:00Z"}
    }
    page = opened().page
    say(page, "Hello")
    expect(done(page)).to_be_visible()
    asked = gateway.chats[0]["options"]["num_predict"]
    assert 500 < asked < 1000 - 256
    gateway.me["budgets"]["tokens_per_day"]["left"] = 8000
    say(page, "Hello")
    expect(done(page, 1)).to_be_visible()
    assert "options" not in gateway.chats[1], "where enough is left, the server's own bound is the right one"


def test_it_is_small():
    """What a phone fetches before anything is seen, as text that is not compressed."""
    sizes = {name: len(text.encode()) for name, text in files().items()}
    assert sum(sizes.values()) < 45_000, sizes


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [DESK, PHONE], ids=["desk", "phone"])
def test_pictures_of_it(size: dict[str, int], scheme: str, opened: Callable[..., Watched], gateway: StandIn):
    handheld = {"is_mobile": True, "has_touch": True} if size is PHONE else {}
    gateway.me |= {
        "today": {"in": 41000, "out": 23210},
        "month": {"in": 641000, "out": 323210},
        "budgets": {
            "tokens_per_day": {
                "limit": 200000,
                "used": 64210,
                "reserved": 0,
                "left": 135790,
                "renews": "2026-11-24T23:00:00Z",
            }
        },
    }
    words = (
        "Air scatters short waves of light far more than long ones. This is *Rayleigh scattering*; it grows with the "
        "**fourth power** of the frequency.\n\n"
        "- Blue light at 450 nm is scattered four times as much as red at 650 nm.\n"
        "- At dusk, light has come through some 300 km of air, and most of its blue is gone.\n\n"
        "```python\ndef scattered(nm: float) -> float:\n    return (550 / nm) ** 4\n```\n\n"
        "Violet is scattered even more, but the sun sends less of it, and our eyes hardly see it."
    )
    gateway.answer = re.findall(r"\s*\S+", words)
    page = opened(viewport=size, color_scheme=scheme, **handheld).page
    name = f"{'phone' if size is PHONE else 'desk'}-{scheme}"
    expect(page.get_by_role("heading", name="Hello, alice.")).to_be_visible()
    picture(page, f"{name}-welcome")
    say(page, "Why is the sky blue?")
    expect(done(page)).to_be_visible()
    picture(page, f"{name}-chat")
    page.get_by_role("button", name="Usage and devices").click()
    expect(page.locator(".devices")).to_be_visible()
    picture(page, f"{name}-panel")
