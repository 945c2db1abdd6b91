"""`fortress logs` and `fortress usage`: what is made of the lines of the trail."""

from typing import Any

import pytest
from rich.console import Console

from fortress import logs, usage

LINE: dict[str, Any] = {
    "time": "2026-11-26T08:00:01.250Z",
    "request_id": "ab" * 16,
    "principal": "bob",
    "proof": "key",
    "device": "desk",
    "relay": "wireguard",
    "address": "10.66.5.6",
    "route": "/api/chat",
    "method": "POST",
    "status": 200,
    "verdict": "allowed",
    "reason": "",
    "model": "tiny",
    "agent": "ollama",
    "tokens_in": 26,
    "tokens_out": 298,
    "first_token_s": 0.5,
    "duration_s": 2.5,
    "queued_s": 0,
    "bytes": 1234,
    "completion": "finished",
    "tls": "TLSv1.3",
}
STRANGER = LINE | {"principal": "", "device": "", "verdict": "refused", "reason": "no-identity", "status": 401}
STRANGER |= {"model": "", "tokens_in": 0, "tokens_out": 0}
GAP = {"time": "2026-11-26T09:00:00.000Z", "event": "audit-lost", "lines": 7}


def test_a_line_for_a_person_says_who_what_and_how_it_ended():
    assert logs.shown(LINE).plain == (
        "2026-11-26 08:00:01  bob/desk             10.66.5.6        allowed  200  POST /api/chat  tiny"
        "  26 in, 298 out  2.50 s"
    )
    assert logs.shown(STRANGER).plain.endswith("refused  401  POST /api/chat  2.50 s  no-identity")
    assert "  ?  " in logs.shown(STRANGER).plain
    assert logs.shown(LINE | {"verdict": "cut", "reason": "blocked", "completion": "cut"}).plain.endswith("blocked cut")
    assert logs.shown(GAP).plain == "2026-11-26 09:00:00  event=audit-lost lines=7"


def test_lines_are_chosen_by_user_and_verdict():
    assert logs.matches(LINE, None, None)
    assert logs.matches(LINE, "bob", "allowed")
    assert not logs.matches(LINE, "alice", None)
    assert not logs.matches(LINE, None, "refused")
    assert not logs.matches(GAP, "bob", None)


def test_usage_counts_by_user_and_what_is_missing():
    other = LINE | {"model": "llama3.2:3b", "tokens_out": 2, "time": "2026-11-26T08:00:00.000Z"}
    found = usage.count([LINE, LINE, other, STRANGER, GAP], {"alice", "bob"})
    assert found["lost_lines"] == 7
    assert list(found["users"]) == ["", "alice", "bob"]
    assert found["users"]["alice"]["requests"] == 0
    assert found["users"]["bob"] == {
        "requests": 3,
        "refused": 0,
        "tokens_in": 78,
        "tokens_out": 598,
        "models": {"tiny": 2, "llama3.2:3b": 1},
        "last": LINE["time"],
    }
    assert (found["users"][""]["requests"], found["users"][""]["refused"]) == (1, 1)


def test_the_table_names_everybody_and_says_what_is_missing(capsys: pytest.CaptureFixture[str]):
    found = {"stack": "dev", "since": "2026-10-27T08:00:00Z", **usage.count([LINE, STRANGER, GAP], {"alice", "bob"})}
    usage.show(Console(width=140, color_system=None), found)
    said = capsys.readouterr().out
    assert "dev  since 2026-10-27 08:00 UTC" in said
    assert "nobody known" in said
    assert "7 lines are missing" in said
    [bob] = [line for line in said.splitlines() if line.startswith("bob")]
    assert bob.split() == ["bob", "1", "0", "26", "298", "tiny", "2026-11-26", "08:00"]
