"""`fortress logs` and `fortress usage`: what is made of the lines of the trail."""

from types import SimpleNamespace
from typing import Any, cast

import pytest
from rich.console import Console

from fortress import logs, usage
from fortress.errors import Stop
from fortress.trail import REQUESTS, Reader
from tests.audit_line import LINE

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


class Engine:
    """An engine whose commands say what the test wants, one after the other."""

    def __init__(self, *said: bytes) -> None:
        self.said = [*said]
        self.asked: list[list[str]] = []

    def exec_create(self, _: str, words: list[str], **__: Any) -> dict[str, str]:
        self.asked.append(words[-3:])
        return {"Id": "x"}

    def exec_start(self, _: str, **__: Any) -> Any:
        said = self.said.pop(0)
        return (said[at : at + 7] for at in range(0, len(said), 7))

    def exec_inspect(self, _: str) -> dict[str, int]:
        return {"ExitCode": 0}


def reader(engine: Engine) -> Reader:
    return Reader(cast(Any, SimpleNamespace(id="x", client=SimpleNamespace(api=engine))), REQUESTS)


WHOLE = (
    b'\n#audit-20261126T080000Z.json\n{"time":"2026-11-26","n":1}\n\n#audit.json\n{"time":"2026-11-26","n":2}\n\n#\n'
)
TORN = b'\n#audit.json\n{"time":"2026-11-26","n":3}\n{"time":"20\n#\n'


def test_a_reader_goes_on_behind_the_last_whole_line():
    engine = Engine(WHOLE, TORN, WHOLE)
    trail = reader(engine)
    assert [line["n"] for line in trail.lines()] == [1, 2]
    assert [line["n"] for line in trail.lines()] == [3]
    list(trail.lines(5))
    assert engine.asked == [
        ["", "0", "0"],
        ["audit-20261126T080000Z.json", "28", "0"],
        ["audit-20261126T080000Z.json", "56", "5"],
    ]


def test_an_engine_that_loses_what_a_command_said_is_asked_again():
    assert [line["n"] for line in reader(Engine(b"", b"", WHOLE)).lines()] == [1, 2]
    with pytest.raises(Stop, match="cannot be read; `fortress status` says"):
        list(reader(Engine(b"", b"", b"")).lines())


def test_a_read_that_was_cut_off_is_no_whole_trail():
    with pytest.raises(Stop, match="cut off in the middle of a read; run this again"):
        list(reader(Engine(WHOLE[:-3])).lines())
