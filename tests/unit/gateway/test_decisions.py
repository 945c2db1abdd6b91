"""The policy's smaller decisions, one table each: who asks, what is open, and how a refusal is said.

The deployed gateway is asked about most of them too; here each branch stands by itself.
"""

import base64
import hashlib
import json
import re
from typing import Any

import pytest

from render.principals import POLICY
from tests.unit.gateway.harness import Bench
from tests.unit.gateway.test_policy import DIGEST, NARROW, judge

KEY, OTHER = "a" * 64, "b" * 64
HASH = hashlib.sha256(KEY.encode()).hexdigest()
USERS = {"alice": {"role": "admin", "keyless": True}, "bob": {"role": "user", "keyless": False}}
KNOWN = {
    "keys": {HASH: "bob"},
    "addresses": {
        "wireguard|10.66.0.2": {"user": "alice", "device": "laptop"},
        "wireguard|10.66.0.3": {"user": "bob", "device": "phone"},
    },
    "users": USERS,
    "emails": {"bob@example.com": "bob"},
    "browser": {"epoch": "1"},
}


@pytest.mark.parametrize(
    ("header", "relay", "address", "who"),
    [
        pytest.param(f"Bearer {KEY}", "", "127.0.0.1", ("bob", "key", ""), id="key"),
        pytest.param(f"Bearer {KEY}", "wireguard", "10.66.0.3", ("bob", "key", "phone"), id="key, own device"),
        pytest.param(f"Bearer {KEY}", "wireguard", "10.66.0.2", ("bob", "key", ""), id="key, another's device"),
        pytest.param(f"Bearer {OTHER}", "wireguard", "10.66.0.2", None, id="wrong key never falls back"),
        pytest.param("Basic YTpi", "wireguard", "10.66.0.2", None, id="no key never falls back"),
        pytest.param(None, "wireguard", "10.66.0.2", ("alice", "address", "laptop"), id="keyless"),
        pytest.param(None, "wireguard", "10.66.0.3", None, id="not keyless"),
        pytest.param(None, "wireguard", "10.66.9.9", None, id="unknown address"),
        pytest.param(None, "", "10.66.0.2", None, id="not by the relay"),
    ],
)
def test_a_key_or_a_keyless_address_says_who_asks(
    header: str | None, relay: str, address: str, who: tuple[str, str, str] | None, bench: Bench
):
    caller = bench.call("identified", KNOWN, header, relay, address)
    assert (caller and (caller["user"], caller["proof"], caller["device"])) == who


def test_a_ticket_is_given_to_each_key_each_address_that_proves_and_each_e_mail(bench: Bench):
    assert bench.call("tickets", KNOWN) == [f"k:{HASH}", "a:wireguard|10.66.0.2", "s:1|bob|bob@example.com"]


ROWS = {
    "open": {"path": "/api/chat", "methods": ["POST"]},
    "admin": {"path": "/api/copy", "methods": ["POST"], "role": "admin"},
    "hides": {"path": "/api/blobs/", "methods": ["HEAD", "POST"], "hides": True},
}


@pytest.mark.parametrize(
    ("row", "method", "user", "status"),
    [
        ("open", "POST", "bob", None),
        ("open", "GET", "bob", 405),
        ("open", "GET", None, 401),
        ("admin", "POST", "bob", 403),
        ("admin", "GET", "bob", 403),
        ("admin", "POST", "alice", None),
        ("hides", "POST", "bob", None),
        ("hides", "GET", "bob", 404),
        ("hides", "GET", None, 404),
        (None, "GET", "alice", 404),
        (None, "GET", None, 404),
    ],
)
def test_whoever_may_not_have_a_route_learns_no_more_than_that(
    row: str | None, method: str, user: str | None, status: int | None, bench: Bench
):
    refusal = bench.call("open", ROWS[row] if row else None, method, {"user": user} if user else None, KNOWN)
    assert (refusal and refusal["status"]) == status
    if status == 405:
        assert refusal["headers"] == {"Allow": "POST"}


def test_reads_and_inference_are_taken_from_buckets_of_their_own(bench: Bench):
    limits = {"requests_per_minute": 10, "burst": 20, "reads_per_minute": 120}
    inference = {"name": "requests_per_minute", "perMinute": 10, "burst": 20}
    assert bench.call("bucket", {"class": "inference"}, limits) == inference
    assert bench.call("bucket", {"class": "admin"}, limits) == inference
    assert bench.call("bucket", {"class": "dashboards"}, limits)["name"] == "dashboards_per_minute"
    assert bench.call("bucket", {"class": "read"}, limits) == {
        "name": "reads_per_minute",
        "perMinute": 120,
        "burst": 60,
    }


@pytest.mark.parametrize(
    ("call", "name", "seconds"),
    [
        (("limited", "concurrent", 2), "concurrent", "1"),
        (("limited", "queue_total", 64), "queue_total", "5"),
        (("limited", "requests_per_minute", 10, 7), "requests_per_minute", "7"),
        (("limited", "failed_auth_per_minute", 10, 7), "failed_auth_per_minute", "7"),
    ],
)
def test_a_limit_says_its_name_and_when_to_come_back(call: tuple[Any, ...], name: str, seconds: str, bench: Bench):
    refusal = bench.call(*call)
    assert (refusal["status"], refusal["headers"]["Retry-After"]) == (429, seconds)
    for api in ("native", "openai", "anthropic"):
        assert f"limit {name} " in bench.call("body", api, refusal)


def test_every_refusal_of_the_policy_has_its_words_and_no_other():
    used = {name for path in POLICY.glob("*.js") for name in re.findall(r"errors\.of\('([a-z-]+)'", path.read_text())}
    assert used == set(json.loads((POLICY / "says.json").read_text())["refusals"])


def test_whoever_has_left_the_queue_is_told_nothing(bench: Bench):
    assert bench.call("of", "left-queue")["status"] == 499


def test_of_equal_places_the_oldest_is_next_wherever_it_stands(bench: Bench):
    rows = [{"id": id_, "user": id_, "tag": tag, "since": since} for id_, tag, since in (("a", 1, 1), ("b", 1, 2))]
    assert bench.call("next", rows)["id"] == "a"
    assert bench.call("next", rows[::-1])["id"] == "a"


BLOCKED = {"v": 1, "users": {"bob": {"until": 0}}, "addresses": {"10.66.0.2": {"until": 1000}}}


def test_a_list_of_the_blocked_is_read_whole(bench: Bench):
    assert bench.call("read", json.dumps(BLOCKED)) == {"u:bob": 0, "a:10.66.0.2": 1000}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "SyntaxError"),
        (json.dumps(BLOCKED | {"v": 2}), "version 1"),
        (json.dumps(BLOCKED | {"users": {"bob": {"until": -1}}}), "no time at bob"),
        (json.dumps(BLOCKED | {"users": {"bob": {"until": "0"}}}), "no time at bob"),
    ],
)
def test_half_a_list_of_the_blocked_is_none(text: str, says: str, bench: Bench):
    with pytest.raises(AssertionError, match=says):
        bench.call("read", text)


@pytest.mark.parametrize(
    ("until", "now_ms", "held"), [(None, 1, False), ("0", 1, True), ("1000", 999_999, True), ("1000", 1_000_000, False)]
)
def test_a_block_holds_until_its_time_or_for_good(until: str | None, now_ms: int, held: bool, bench: Bench):
    # JSON knows no `undefined`, which is what an absent row is: Number(null) is 0, and that is over as well.
    assert bench.call("holds", until, now_ms) is held


ORIGIN = "https://chat.example.com"


@pytest.mark.parametrize(
    ("origin", "named"), [(ORIGIN, ORIGIN), (f"{ORIGIN}.evil.example", ""), ("null", ""), (None, "")]
)
def test_only_a_listed_origin_is_named(origin: str | None, named: str, bench: Bench):
    assert bench.call("allowed", [ORIGIN], origin) == named


@pytest.mark.parametrize(
    ("row", "method", "origin", "answered"),
    [
        ("open", "OPTIONS", ORIGIN, True),
        ("open", "POST", ORIGIN, False),
        ("open", "OPTIONS", "https://evil.example", False),
        (None, "OPTIONS", ORIGIN, False),
    ],
)
def test_a_preflight_of_a_listed_origin_is_answered(
    row: str | None, method: str, origin: str, answered: bool, bench: Bench
):
    headers = bench.call("preflight", [ORIGIN], ROWS[row] if row else None, method, origin)
    assert (headers is not None) is answered
    if answered:
        assert headers["Access-Control-Allow-Methods"] == "POST"
        assert "Access-Control-Allow-Credentials" not in headers


@pytest.mark.parametrize(
    ("status", "shown", "reason"),
    [
        (404, 404, "unknown-route"),
        (494, 400, "too-large"),
        (497, 400, "plain-http"),
        (429, 429, "flood"),
        (418, 418, "bad-request"),
        (503, 503, "upstream-busy"),
        (507, 507, "failed"),
    ],
)
def test_what_nginx_refuses_itself_is_said_in_words(status: int, shown: int, reason: str, bench: Bench):
    refusal = bench.call("made", status)
    assert (refusal["status"], refusal["reason"]) == (shown, reason)
    assert ("Retry-After" in refusal["headers"]) is (status in (429, 503))


@pytest.mark.parametrize(
    ("path", "api"),
    [("/v1/messages", "anthropic"), ("/v1/chat/completions", "openai"), ("/api/chat", "native"), ("/", "native")],
)
def test_a_path_belongs_to_one_api(path: str, api: str, bench: Bench):
    assert bench.call("apiOf", path) == api


@pytest.mark.parametrize(
    ("status", "kind"),
    [(429, "rate_limit_error"), (418, "invalid_request_error"), (502, "api_error")],
)
def test_a_refusal_has_the_shape_of_each_api(status: int, kind: str, bench: Bench):
    refusal = {"status": status, "reason": "why", "says": "words"}
    assert json.loads(bench.call("body", "native", refusal)) == {"error": "words"}
    openai = {"message": "words", "type": kind, "param": None, "code": "why"}
    assert json.loads(bench.call("body", "openai", refusal)) == {"error": openai}
    anthropic = {"type": "error", "error": {"type": kind, "message": "words"}}
    assert json.loads(bench.call("body", "anthropic", refusal)) == anthropic


def test_a_pattern_of_three_parts_needs_its_middle(bench: Bench):
    assert bench.call("mayUse", ["a*b*c"], "axyc") is False


def test_lists_show_what_the_caller_may_use(bench: Bench):
    user = {"models": ["tiny"]}
    native, openai = {"models": [{"model": "tiny:latest"}, {"model": "other:1b"}]}, {"data": [{"id": "other:1b"}]}
    assert bench.call("visible", native, user) == {"models": [{"model": "tiny:latest"}]}
    assert bench.call("visible", openai, user) == {"data": []}


def test_one_model_is_found_by_ollamas_own_reading_of_its_name(bench: Bench):
    list_ = {"data": [{"id": "other:1b"}, {"id": "tiny:latest"}]}
    assert bench.call("described", list_, "Tiny") == {"id": "tiny:latest"}
    assert bench.call("described", list_, "tiny:2b") is None
    assert bench.call("described", {"data": None}, "tiny") is None
    assert bench.call("described", None, "tiny") is None


@pytest.mark.parametrize(
    ("route", "tail", "status"),
    [
        ({"path": "/v1/models/", "tail": "model"}, "tiny", None),
        ({"path": "/v1/models/", "tail": "model"}, "evil", 403),
        ({"path": "/api/blobs/", "tail": "digest"}, DIGEST, None),
        ({"path": "/api/blobs/", "tail": "digest"}, "sha256:../x", 400),
    ],
)
def test_the_end_of_a_path_is_a_model_that_is_granted_or_a_digest(
    route: dict[str, str], tail: str, status: int | None, bench: Bench
):
    refusal = bench.call("judgeTail", route, route["path"] + tail, NARROW)
    assert (refusal and refusal["status"]) == status


def test_of_stream_options_only_what_ollama_knows_goes_on(bench: Bench):
    route = {"path": "/v1/chat/completions", "class": "inference", "models": ["model"]}
    text = json.dumps({"model": "tiny", "stream_options": {"include_usage": True, "other": 1}})
    assert json.loads(judge(bench, text, route=route)["body"])["stream_options"] == {"include_usage": True}


@pytest.mark.parametrize(
    ("part", "place"),
    [({"source": "a word"}, 0), ({"source": {"data": "iVBO"}}, 1), ({"source": {"url": "https://evil.example/x"}}, 2)],
)
def test_a_source_is_a_picture_only_where_it_is_an_object(part: dict[str, Any], place: int, bench: Bench):
    assert bench.call("more", {"messages": [{"content": [part]}]}) == place


def test_a_text_that_is_never_closed_is_no_json(bench: Bench):
    assert judge(bench, '{"model":"tiny')["reason"] == "not-json"


@pytest.mark.parametrize(
    ("options", "asked"),
    [(None, False), ({}, False), ({"include_usage": False}, False), ({"include_usage": True}, True)],
)
def test_a_stream_says_its_usage_and_whether_the_caller_asked_for_it(
    options: dict[str, bool] | None, asked: bool, bench: Bench
):
    ask: dict[str, Any] = {"model": "tiny", "stream": True, "max_tokens": 1, "stream_options": options}
    limits = {"tokens_per_day": None, "tokens_per_month": None, "answer_tokens": 500}
    made = bench.call("planned", ask, "/v1/chat/completions", limits, 4096)
    assert made["ask"]["stream_options"] == {"include_usage": True}
    assert made["plan"]["drop"] is not asked


def measured(bench: Bench, pieces: list[bytes], drop: bool = False) -> dict[str, Any]:
    return bench.call("measured", drop, [base64.b64encode(piece).decode() for piece in pieces], True)


def test_a_line_that_only_looks_like_a_count_is_none(bench: Bench):
    assert measured(bench, [b'{"response":"a"}\n', b'{"done":true, and no more\n'])["tokens"] == [1000, 1]


def test_a_long_line_without_counts_costs_its_bytes(bench: Bench):
    text = b'{"embedding":[' + b"0.1," * 20_000 + b"0.1]}\n"
    assert measured(bench, [text[:70_000], text[70_000:]])["tokens"] == [1000, 500]


def test_a_beginning_that_cannot_be_that_chunk_leaves_at_once(bench: Bench):
    pieces = [b'{"error"', b':"engine"}\n']
    assert [base64.b64decode(left) for left in measured(bench, pieces, drop=True)["left"]] == pieces
