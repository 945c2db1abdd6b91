"""The audit line and what it counts: shaped by plain functions, written by the real gateway."""

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from tests.audit_line import LINE
from tests.unit.gateway.harness import KEYS, Bench

ALICE, BOB = KEYS["alice"], KEYS["bob"]
NOW = 1_800_000_000_000
KNOWN = {"tiny:latest": "tiny", "llama3.2:3b": "llama3.2:3b"}
ENDED: dict[str, Any] = {
    "request_id": "ab" * 16,
    "fortress_principal": "bob",
    "fortress_proof": "key",
    "fortress_device": "desk",
    "fortress_relay": "wireguard",
    "remote_addr": "10.66.5.6",
    "fortress_route": "/api/chat",
    "request_method": "POST",
    "status": "200",
    "fortress_verdict": "allowed",
    "fortress_reason": "",
    "fortress_model": "TINY",
    "request_time": "2.500",
    "body_bytes_sent": "1234",
    "request_completion": "OK",
    "ssl_protocol": "TLSv1.3",
}
SPENT = {"counted": [26, 298], "first": NOW - 2000}
FACTS = LINE | {"time": "2027-01-15T08:00:00.000Z", "queued_s": 1.25}


def facts(bench: Bench, spent: Any = None, queued: float = 0, **more: Any) -> dict[str, Any]:
    return bench.call("facts", {**ENDED, **more}, "ollama", KNOWN, spent, queued, NOW)


def test_a_line_says_all_of_a_request_in_its_order(bench: Bench):
    found = facts(bench, SPENT, 1250)
    assert found == FACTS
    assert list(found) == list(FACTS)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"fortress_model": "llama3.2:3B"}, {"model": "llama3.2:3b"}),
        ({"fortress_model": "my-secret-plan"}, {"model": "unknown"}),
        ({"fortress_model": "constructor"}, {"model": "unknown"}),
        ({"fortress_model": ""}, {"model": ""}),
        ({"request_method": "BREW"}, {"method": "unknown"}),
        ({"status": "000"}, {"status": 0}),
        ({"status": "009"}, {"status": 0}),
        ({"status": "500", "fortress_reason": "policy"}, {"status": 500, "verdict": "failed", "reason": "policy"}),
        ({"status": "499"}, {"status": 499, "verdict": "allowed"}),
        ({"status": "503", "fortress_verdict": "refused"}, {"status": 503, "verdict": "refused"}),
        ({"request_completion": ""}, {"completion": "cut"}),
        ({"ssl_protocol": None}, {"tls": ""}),
        ({"request_time": None, "body_bytes_sent": None}, {"duration_s": 0, "bytes": 0}),
    ],
)
def test_what_a_client_chose_is_said_only_where_it_is_known(more: Any, said: dict[str, Any], bench: Bench):
    found = facts(bench, **more)
    assert {key: found[key] for key in said} == said


def test_without_a_first_token_there_is_no_time_to_it(bench: Bench):
    assert facts(bench)["first_token_s"] is None
    assert facts(bench, {"counted": [26, 0], "first": 0})["first_token_s"] is None


def test_a_clock_that_jumps_makes_no_negative_times(bench: Bench):
    found = facts(bench, {"counted": [1, 1], "first": NOW - 3_600_000}, -3_600_000)
    assert (found["first_token_s"], found["queued_s"]) == (0, 0)


@pytest.mark.parametrize(
    ("header", "family"),
    [
        ("ollama/0.32.15 (amd64 linux) Go/go1.26", "ollama"),
        ("ollama-python/0.6.1 (x86_64 linux) Python/3.13.5", "ollama"),
        ("OpenAI/Python 2.9.0", "openai"),
        ("AsyncOpenAI/Python 2.9.0", "openai"),
        ("Anthropic/JS 0.70.0", "anthropic"),
        ("curl/8.17.0", "curl"),
        ("Mozilla/5.0 (X11; Linux x86_64)", "browser"),
        ("my company's secret project", "unknown"),
        (None, "unknown"),
    ],
)
def test_an_agent_is_one_of_a_few_families(header: str | None, family: str, bench: Bench):
    assert bench.call("agent", header) == family


def test_a_line_is_json_and_says_what_it_was_given(bench: Bench):
    for said in (FACTS, FACTS | {"first_token_s": None, "status": 0, "principal": "", "tls": ""}):
        line = bench.call("line", said)
        assert line.endswith("}\n")
        assert json.loads(line) == said
        assert list(json.loads(line)) == list(FACTS)


@given(
    st.fixed_dictionaries(
        dict.fromkeys(("fortress_model", "request_method", "status", "request_time", "body_bytes_sent"), st.text())
    ),
    st.text(),
)
@hypothesis_settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_word_of_a_client_breaks_a_line(bench: Bench, said: dict[str, str], agent: str):
    """What a client can choose at all; the rest are names of the configuration, and nginx's own words."""
    found = bench.call("facts", {**ENDED, **said}, bench.call("agent", agent), KNOWN, None, 0, NOW)
    assert json.loads(bench.call("line", found)) == found


def test_names_are_found_by_any_of_their_spellings(bench: Bench):
    assert bench.call("named", ["tiny", "Llama3.2:3B"]) == {"tiny:latest": "tiny", "llama3.2:3b": "Llama3.2:3B"}


def test_a_gap_says_how_many_lines_are_missing(bench: Bench):
    assert json.loads(bench.call("gap", 7, NOW)) == {"time": FACTS["time"], "event": "audit-lost", "lines": 7}


@pytest.mark.parametrize(("seconds", "place"), [(0, 0), (0.01, 0), (0.011, 1), (300, 13), (301, 14)])
def test_a_time_has_one_place_among_the_bounds(seconds: float, place: int, bench: Bench):
    assert bench.call("bin", seconds) == place


def tallied(bench: Bench, kind: str = "inference", **more: Any) -> list[tuple[str, float]]:
    return [(key, much) for key, much in bench.call("tallied", FACTS | more, kind)]


def test_an_answer_counts_its_request_its_tokens_and_its_times(bench: Bench):
    assert tallied(bench) == [
        ("r|bob|inference|allowed", 1),
        ("t|bob|tiny|in", 26),
        ("t|bob|tiny|out", 298),
        ("d|7", 1),
        ("d|sum", 2.5),
        ("q|7", 1),
        ("q|sum", 1.25),
        ("f|5", 1),
        ("f|sum", 0.5),
    ]


@pytest.mark.parametrize(
    ("more", "keys"),
    [
        ({"reason": "model-not-granted", "status": 403}, ["x|model-not-granted"]),
        ({"reason": "tokens_per_day", "status": 429}, ["x|tokens_per_day", "l|bob|tokens_per_day"]),
        ({"reason": "no-identity", "status": 401, "principal": ""}, ["x|no-identity", "u"]),
    ],
)
def test_a_refusal_counts_its_reason_and_no_times(more: dict[str, Any], keys: list[str], bench: Bench):
    first, *rest = tallied(bench, verdict="refused", tokens_in=0, tokens_out=0, first_token_s=None, **more)
    assert first[0].endswith("|inference|refused")
    assert [key for key, _ in rest] == keys


def test_a_stream_that_was_cut_counts_its_times_and_a_broken_one_does_not(bench: Bench):
    cut = tallied(bench, verdict="cut", tokens_in=0, tokens_out=1, first_token_s=None, queued_s=0)
    assert [key for key, _ in cut] == ["r|bob|inference|cut", "t|bob|tiny|in", "t|bob|tiny|out", "d|7", "d|sum", "q|0"]
    assert len(tallied(bench, verdict="failed", tokens_in=0, tokens_out=0)) == 1
    assert len(tallied(bench, status=404, tokens_in=0, tokens_out=0, first_token_s=None)) == 1
    assert len(tallied(bench, status=499, tokens_in=0, tokens_out=0, first_token_s=None)) == 5
    assert len(tallied(bench, "read", tokens_in=0, tokens_out=0)) == 1
