"""Budgets of tokens: never overshot, kept over a reload and a crash, begun anew with the day and the month."""

import json
import re
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as effort
from hypothesis import strategies as st

from settings.timezones import offsets, timezone
from tests.unit.gateway.harness import KEYS, USERS, WIDE, Bench, Reply, settings
from tests.unit.gateway.test_usage import JSON, NDJSON, ask, fake, line, opened, until

ALICE, BOB, SLOW = KEYS["alice"], KEYS["bob"], KEYS["slow"]
DAILY = {"tokens_per_day": 1000, "tokens_per_month": None, "answer_tokens": 500}
CONTEXT = 4096


# What a request may cost.


def planned(bench: Bench, path: str, ask: dict[str, Any], limits: dict[str, Any] = DAILY) -> tuple[dict[str, Any], Any]:
    bounded = {"max_tokens": 1, "max_output_tokens": 1} if path.startswith("/v1") else {}
    made = bench.call("planned", {"model": "tiny", **bounded, **ask}, path, limits, CONTEXT)
    return made["plan"], made["ask"]


@pytest.mark.parametrize(
    "path", ["/api/chat", "/api/generate", "/v1/chat/completions", "/v1/messages", "/v1/responses"]
)
@pytest.mark.parametrize(("said", "answer"), [(0, 500), (7, 7), (0.5, 500)])
def test_an_answer_costs_at_most_its_bound_and_0_is_none(path: str, said: float, answer: int, bench: Bench):
    key = {"/v1/responses": "max_output_tokens"}.get(path, "max_tokens")
    ask = {"options": {"num_predict": said}} if path.startswith("/api") else {key: said}
    plan, after = planned(bench, path, ask)
    assert plan["answer"] == answer
    assert (after["options"]["num_predict"] if path.startswith("/api") else after[key]) == answer


@pytest.mark.parametrize(
    ("path", "ask", "prompt"),
    [
        ("/api/generate", {"prompt": "é" * 100}, 200 + len('{"model":"tiny","prompt":""}')),
        ("/api/generate", {"prompt": "x" * 10_000}, CONTEXT),
        ("/api/generate", {"prompt": "x", "images": ["AAAA"]}, CONTEXT),
        ("/api/generate", {"prompt": "x", "template": "{{ .Prompt }}{{ .Prompt }}"}, CONTEXT),
        ("/v1/chat/completions", {"messages": [{"content": [{"type": "image_url", "image_url": "x"}]}]}, CONTEXT),
        ("/v1/responses", {"input": [{"content": [{"type": "input_image", "image_url": "x"}]}]}, CONTEXT),
        ("/v1/messages", {"messages": [{"content": [{"type": "image", "source": {"data": "x"}}]}]}, CONTEXT),
        ("/api/generate", {"prompt": "x" * 10_000, "options": {"num_ctx": 8192}}, 8192),
        ("/api/chat", {"messages": [], "tools": [{"type": "function"}]}, CONTEXT),
        ("/api/chat", {"messages": [{"tool_calls": [{"function": {"arguments": {"a": "<"}}}]}]}, CONTEXT),
        ("/v1/messages", {"messages": [{"content": [{"type": "tool_use", "input": {"a": "<"}}]}]}, CONTEXT),
        ("/v1/responses", {"input": [{"type": "function_call", "arguments": "{}"}]}, CONTEXT),
        ("/api/chat", {"messages": [{"role": "Tool", "content": "<"}]}, CONTEXT),
        (
            "/v1/messages",
            {"messages": [{"content": [{"type": "tool_use", "input": {"length": 0, "a": "<"}}]}]},
            CONTEXT,
        ),
        ("/v1/messages", {"messages": [{"content": [{"type": "tool_result", "content": "<"}]}]}, CONTEXT),
        ("/v1/responses", {"input": [{"type": "function_call_output", "output": "<"}]}, CONTEXT),
        ("/api/embed", {"input": ["x" * 10_000] * 3}, 3 * CONTEXT),
        ("/api/embed", {"input": "x" * 10_000}, CONTEXT),
    ],
)
def test_a_prompt_costs_at_most_its_bytes_or_the_context(path: str, ask: dict[str, Any], prompt: int, bench: Bench):
    assert planned(bench, path, ask)[0]["prompt"] == prompt


@pytest.mark.parametrize("calls", [None, []])
def test_an_answer_that_called_no_tool_costs_its_bytes_when_it_is_sent_back(calls: Any, bench: Bench):
    """OpenAI's library says `tool_calls` of every answer."""
    said = {"messages": [{"role": "assistant", "tool_calls": calls, "content": "x"}]}
    assert planned(bench, "/v1/chat/completions", said)[0]["prompt"] < 200


def test_a_refusal_names_the_limit_what_is_left_and_when_to_try_again(bench: Bench):
    refusal = bench.call("over", "tokens_per_day", 1000, 501, 0, 500, 60)
    assert (refusal["status"], refusal["reason"], refusal["headers"]) == (429, "tokens_per_day", {"Retry-After": "60"})
    assert "tokens_per_day (1000): 499 left" in refusal["says"]
    waiting = bench.call("over", "tokens_per_day", 1000, 0, 600, 500, 60)
    assert waiting["headers"] == {"Retry-After": "5"}, "what running streams hold may come back much sooner"


# Calendar.


def ms(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)


def rows(zone: str) -> list[list[int]]:
    return [list(row) for row in offsets(zone)]


ZONES = ["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Africa/Cairo", "America/Havana",
         "Asia/Kathmandu", "Pacific/Kiritimati", "America/St_Johns", "Asia/Beirut", "America/Santiago"]  # fmt: skip


@pytest.mark.parametrize("zone", ZONES)
def test_the_date_is_the_zones_own_over_every_change_of_its_clocks(zone: str, bench: Bench):
    changes = [row[0] for row in offsets(zone)[1:9]]
    moments = [at + step for at in changes for step in (-3_600_000, -1000, 0, 1000, 3_600_000)] + [1_800_000_000_000]
    for moment in moments:
        local = datetime.fromtimestamp(moment / 1000, timezone(zone))
        assert bench.call("date", rows(zone), moment) == local.date().isoformat()


@pytest.mark.parametrize("zone", ZONES)
def test_a_budget_renews_at_the_first_second_of_the_next_day_and_month(zone: str, bench: Bench):
    changes = [row[0] for row in offsets(zone)[1:4]] or [1_800_000_000_000]
    for moment in [at + hours * 3_600_000 for at in changes for hours in (-25, -13, -1, 1)]:
        here = datetime.fromtimestamp(moment / 1000, timezone(zone))
        for name, same in (("tokens_per_day", "%Y-%m-%d"), ("tokens_per_month", "%Y-%m")):
            at = bench.call("renews", rows(zone), name, moment) / 1000
            before, after = (datetime.fromtimestamp(each, timezone(zone)) for each in (at - 1, at))
            assert before.strftime(same) == here.strftime(same) < after.strftime(same)


@effort(max_examples=25)
@given(st.datetimes(datetime(2026, 1, 2), datetime(2045, 12, 30)), st.sampled_from(ZONES))
def test_offsets_are_those_of_the_zone(moment: datetime, zone: str):
    at = moment.replace(tzinfo=UTC)
    wanted = at.astimezone(timezone(zone)).utcoffset()
    assert timedelta(seconds=[row[1] for row in offsets(zone) if row[0] <= ms(at)][-1]) == wanted


# Deployed.


def users(**limits: Any) -> dict[str, Any]:
    return {**USERS, "bob": {**USERS["bob"], "limits": {**WIDE, **limits}}}


def end(tokens_in: int, tokens_out: int) -> str:
    return line(message={"content": ""}, done=True, prompt_eval_count=tokens_in, eval_count=tokens_out) + "\n"


def chat(bench: Bench, tokens_in: int, tokens_out: int, key: str = BOB, path: str = "/api/chat", **more: Any) -> Reply:
    body = {**fake(end(tokens_in, tokens_out)), "options": {"num_predict": 100}, "max_tokens": 100, **more}
    return ask(bench, path, body, key)


def many(times: int, *pieces: str) -> dict[str, Any]:
    """A stream of one token each 50 ms, whose request is short."""
    return fake(*pieces, first=line(message={"content": "x"}, done=False) + "\n", times=times, pause=50)


def me(bench: Bench, key: str = BOB, **how: Any) -> dict[str, Any]:
    reply = bench.ask("GET", "/fortress/me", key=key, **how)
    assert reply.status == 200, reply
    return reply.json


def kept(bench: Bench) -> dict[str, int]:
    shown = subprocess.run(
        ["docker", "exec", bench.containers["gateway"].id, "cat", "/var/lib/gateway/usage.json"],
        capture_output=True,
        check=True,
    )
    return json.loads(shown.stdout)["counters"]


def write(bench: Bench, text: str) -> None:
    file = bench.state / "usage.json"
    file.unlink(missing_ok=True)
    file.write_text(text)
    file.chmod(0o644)


def today(bench: Bench) -> str:
    return datetime.now(UTC).date().isoformat()


@pytest.fixture
def fresh(bench: Bench) -> Iterator[Bench]:
    """A gateway that begins with no counters, and afterwards is again as it was."""
    bench.kill()
    (bench.state / "usage.json").unlink(missing_ok=True)
    bench.write("gateway", bench.gateway_files(settings(users(tokens_per_day=2000, tokens_per_month=9000))))
    bench.start_again()
    yield bench
    bench.kill()
    (bench.state / "usage.json").unlink(missing_ok=True)
    bench.write("gateway", bench.gateway_files(settings(model_upload=True)))
    bench.start_again()


@pytest.mark.parametrize("path", ["/api/chat", "/v1/chat/completions", "/v1/messages"])
def test_a_spent_budget_is_429_with_the_limits_name_and_the_time_to_the_next_day(path: str, fresh: Bench):
    assert chat(fresh, 600, 100).status == 200
    assert me(fresh)["budgets"]["tokens_per_day"]["left"] == 1300
    fresh.forget()
    assert chat(fresh, 1000, 100, path=path).status == 200
    refused = chat(fresh, 1, 1, path=path)
    assert refused.status == 429
    midnight = datetime.combine(datetime.now(UTC).date() + timedelta(days=1), datetime.min.time(), UTC)
    assert abs(int(refused.headers["retry-after"]) - (midnight - datetime.now(UTC)).total_seconds()) < 30
    assert b"tokens_per_day" in refused.body
    if path.startswith("/v1"):
        assert refused.json["error"]["type"] == "rate_limit_error"
    assert len(fresh.heard()) == 1
    assert fresh.audit()[-1]["reason"] == "tokens_per_day"
    assert chat(fresh, 1000, 1000, key=ALICE).status == 200, "another's budget was spent"


def test_a_request_that_could_end_above_the_limit_is_not_begun(fresh: Bench):
    assert chat(fresh, 1, 1, options={"num_predict": 1900}).status == 429
    assert chat(fresh, 1, 1, options={}).status == 429, "an unbounded answer is as long as the context"
    assert chat(fresh, 1, 1, messages=[{"role": "user", "content": "x" * 1800}]).status == 429
    assert chat(fresh, 1, 1).status == 200


def test_parallel_requests_cannot_overshoot(fresh: Bench):
    body = fake(end(350, 100), pause=300)
    body |= {"messages": [{"role": "user", "content": "x" * 200}], "options": {"num_predict": 100}}
    begin = threading.Barrier(8)

    def one(_: int) -> int:
        begin.wait()
        return ask(fresh, "/api/chat", body).status

    with ThreadPoolExecutor(8) as pool:
        seen = list(pool.map(one, range(8)))
    assert seen.count(200) >= 1
    assert set(seen) == {200, 429}
    shown = me(fresh)
    assert shown["today"]["in"] + shown["today"]["out"] <= 2000
    assert shown["budgets"]["tokens_per_day"]["reserved"] == 0


def test_near_a_limit_only_what_still_runs_is_counted(fresh: Bench):
    """What a worker held that died: its entries end by their timeout, and its users' sums only when they rest."""
    files = fresh.gateway_files(settings(users(tokens_per_day=2000)))
    conf = re.sub(r"(?<=zone=held:1m type=number timeout=)\d+s", "1s", files["nginx.conf"])
    assert conf != files["nginx.conf"]
    fresh.write("gateway", files | {"nginx.conf": conf})
    fresh.kill()
    fresh.start_again()
    with opened(fresh, "/api/chat", fake(hang=9000) | {"options": {"num_predict": 900}}):
        time.sleep(0.2)
        assert chat(fresh, 1, 1, options={"num_predict": 800}).status == 429
        for _ in range(6):
            time.sleep(0.4)
            assert chat(fresh, 1, 1, options={"num_predict": 1}).status == 200
        assert chat(fresh, 1, 1, options={"num_predict": 800}).status == 200


def test_what_a_request_did_not_use_comes_back_however_it_ends(fresh: Bench):
    for ending in (fake(end(1, 1)), fake("{}", type_=JSON, status=500)):
        ask(fresh, "/api/chat", {**ending, "options": {"num_predict": 100}})
        assert me(fresh)["budgets"]["tokens_per_day"]["reserved"] == 0
    fresh.containers["ollama"].stop(timeout=1)
    try:
        bounded = {"model": "tiny", "messages": [], "options": {"num_predict": 100}}
        assert fresh.ask("POST", "/api/chat", key=BOB, body=bounded).status in (502, 504)
        assert me(fresh)["budgets"]["tokens_per_day"]["reserved"] == 0
    finally:
        fresh.containers["ollama"].start()
        fresh.until_ready()
    body = many(50) | {"options": {"num_predict": 100}}
    with opened(fresh, "/api/chat", body) as stream:
        until(stream, b'"content"')
        assert me(fresh)["budgets"]["tokens_per_day"]["reserved"] > 100
        assert me(fresh)["streams"] == 1
    for _ in range(40):
        if me(fresh)["budgets"]["tokens_per_day"]["reserved"] == 0:
            break
        time.sleep(0.05)
    assert me(fresh)["budgets"]["tokens_per_day"]["reserved"] == 0
    assert me(fresh)["streams"] == 0
    assert me(fresh)["today"]["out"] > 0


def test_who_leaves_before_the_first_token_pays_the_prompt(fresh: Bench):
    with opened(fresh, "/api/chat", fake(hang=1500) | {"options": {"num_predict": 100}}):
        time.sleep(0.4)
    time.sleep(0.3)
    assert me(fresh)["today"]["in"] > 0
    assert me(fresh)["today"]["out"] == 0


def test_a_reload_loses_nothing_and_a_stream_of_the_old_worker_is_counted(fresh: Bench):
    assert chat(fresh, 100, 50).status == 200
    with opened(fresh, "/api/chat", many(40, end(200, 60)) | {"options": {"num_predict": 100}}) as stream:
        until(stream, b'"content"')
        fresh.reload(settings(users(tokens_per_day=2000)))
        assert me(fresh)["budgets"]["tokens_per_day"]["reserved"] > 0, "the new worker forgot what is reserved"
        until(stream, b'"done":true')
    time.sleep(0.2)
    assert me(fresh)["today"] == {"in": 300, "out": 110}
    time.sleep(3)
    assert kept(fresh)[f"{today(fresh)}|bob|out"] == 110


def test_after_a_crash_at_most_five_seconds_are_lost_of_a_running_stream_too(fresh: Bench):
    assert chat(fresh, 100, 50).status == 200
    with opened(fresh, "/api/chat", many(400) | {"options": {"num_predict": 400}}) as stream:
        until(stream, b'"content"')
        stream.settimeout(0.2)
        received, until_ = 0, time.monotonic() + 9
        while time.monotonic() < until_:
            received += stream.recv(65536).count(b'"content"')
        fresh.kill()
    fresh.start_again()
    counted = me(fresh)["today"]
    assert counted["in"] >= 100
    assert counted["out"] >= 50 + received - 5 * 21, f"{received} tokens had come, {counted} is left of them"
    assert me(fresh)["budgets"]["tokens_per_day"]["reserved"] == 0


def test_the_budget_is_still_spent_after_a_restart_and_new_the_next_day_and_month(fresh: Bench):
    assert chat(fresh, 1800, 100).status == 200
    time.sleep(3)
    fresh.kill()
    fresh.start_again()
    assert chat(fresh, 1, 1).status == 429
    month, day = today(fresh)[:7], today(fresh)
    before = (datetime.now(UTC) - timedelta(days=1)).date().isoformat()
    for counters, status in (
        ({f"{day}|bob|in": 1950, f"{month}|bob|in": 1950}, 429),
        ({f"{before}|bob|in": 1950, f"{month}|bob|in": 1950}, 200),
        ({f"{before}|bob|in": 1950, f"{month}|bob|in": 8990}, 429),
        ({"2026-01-31|bob|in": 1950, "2026-01|bob|in": 8990}, 200),
    ):
        fresh.kill()
        write(fresh, json.dumps({"v": 1, "counters": counters}))
        fresh.start_again()
        assert chat(fresh, 1, 1).status == status, counters
    time.sleep(3)
    assert not [key for key in kept(fresh) if key.startswith("2026-01")], "what is long past is not kept"


def test_days_begin_in_the_time_zone_of_the_stack(fresh: Bench):
    assert chat(fresh, 1800, 100).status == 200
    assert chat(fresh, 1, 1).status == 429
    # These two are 26 hours apart: at any moment one of them has another date than UTC.
    here = datetime.now(UTC)
    other = next(
        zone for zone in ("Pacific/Kiritimati", "Etc/GMT+12") if here.astimezone(timezone(zone)).date() != here.date()
    )
    fresh.reload(settings(users(tokens_per_day=2000), stack={"timezone": other}))
    assert chat(fresh, 1, 1).status == 200
    assert me(fresh)["timezone"] == other
    renews = datetime.fromisoformat(me(fresh)["budgets"]["tokens_per_day"]["renews"]).astimezone(timezone(other))
    assert (renews.hour, renews.minute, renews.second) == (0, 0, 0)


@pytest.mark.parametrize(
    "text",
    ["", "{", '{"v":2,"counters":{}}', '{"v":1,"counters":{"x":1}}', '{"v":1,"counters":{"2026-01|bob|in":"x"}}'],
)
def test_a_torn_file_is_put_aside_and_said_and_stops_nothing(text: str, fresh: Bench):
    fresh.kill()
    write(fresh, text)
    fresh.start_again()
    assert chat(fresh, 1, 1).status == 200
    assert "usage.json cannot be read" in fresh.logs("gateway")
    assert (fresh.state / "usage.json.unreadable").read_text() == text


def test_me_tells_a_caller_who_it_is_and_what_is_left(fresh: Bench):
    assert chat(fresh, 10, 5).status == 200
    shown = me(fresh)
    assert (shown["user"], shown["role"], shown["proof"], shown["device"]) == ("bob", "user", "key", None)
    assert shown["models"] == ["tiny", "llama3.2:*"]
    assert shown["limits"]["tokens_per_day"] == 2000
    assert shown["today"] == shown["month"] == {"in": 10, "out": 5}
    assert {name: (row["used"], row["left"]) for name, row in shown["budgets"].items()} == {
        "tokens_per_day": (15, 1985),
        "tokens_per_month": (15, 8985),
    }
    keyless = fresh.ask("GET", "/fortress/me", address="10.66.3.4").json
    assert (keyless["user"], keyless["proof"], keyless["device"]) == ("alice", "address", "laptop")
    assert keyless["budgets"] == {}
    assert (shown["devices"], keyless["devices"]) == (["default"], ["laptop"])


def test_usage_of_all_is_for_admins(fresh: Bench):
    assert chat(fresh, 10, 5).status == 200
    assert fresh.ask("GET", "/fortress/usage", key=BOB).status == 403
    shown = fresh.ask("GET", "/fortress/usage", key=ALICE).json
    assert set(shown["users"]) == set(USERS)
    assert shown["users"]["bob"]["today"] == {"in": 10, "out": 5}
    assert shown["users"]["carol"]["month"] == {"in": 0, "out": 0}


def test_the_gateways_own_routes_are_read_like_the_others(fresh: Bench):
    fresh.forget()
    assert fresh.ask("GET", "/fortress/me").status == 401
    assert fresh.ask("POST", "/fortress/me", key=BOB).status == 405
    foreign = {"Origin": "https://evil.example"}
    assert fresh.ask("GET", "/fortress/me", address="10.66.3.4", headers=foreign).status == 403
    seen = [fresh.ask("GET", "/fortress/me", key=SLOW).status for _ in range(4)]
    assert 429 in seen, "reads of one's own account are not counted as reads"
    assert fresh.heard() == []


def test_ollama_is_told_the_bound_that_was_reserved(fresh: Bench):
    fresh.reload(settings(users(tokens_per_day=100_000)))
    fresh.forget()
    assert chat(fresh, 1, 1, options={}).status == 200
    body = {**fake(end(1, 1), type_=NDJSON), "max_completion_tokens": 50}
    assert ask(fresh, "/v1/chat/completions", body).status == 200
    native, openai = (json.loads(each["body"]) for each in fresh.heard())
    assert native["options"]["num_predict"] == CONTEXT
    assert openai["max_tokens"] == 50


def test_a_stream_that_ends_while_the_gateway_stops_is_kept(fresh: Bench):
    with opened(fresh, "/api/chat", many(60, end(20, 60)) | {"options": {"num_predict": 100}}) as stream:
        until(stream, b'"content"')
        fresh.containers["gateway"].kill("QUIT")
        assert b'"done":true' in until(stream, b'"done":true')
    fresh.containers["gateway"].wait()
    fresh.start_again()
    assert me(fresh)["today"] == {"in": 20, "out": 60}


def test_of_a_stream_that_outlives_a_stopping_gateways_patience_at_most_five_seconds_are_lost(fresh: Bench):
    with opened(fresh, "/api/chat", many(600) | {"options": {"num_predict": 600}}) as stream:
        until(stream, b'"content"')
        fresh.containers["gateway"].kill("QUIT")
        stream.settimeout(1)
        received, until_ = 0, time.monotonic() + 10
        while time.monotonic() < until_:
            received += stream.recv(65536).count(b'"content"')
        fresh.kill()
    fresh.start_again()
    assert me(fresh)["today"]["out"] >= received - 5 * 21
