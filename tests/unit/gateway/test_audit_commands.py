"""`fortress logs` and `usage` read a real gateway's trail, through rotations too."""

import itertools
import json
import threading
from typing import Any

import pytest

from fortress import logs, usage
from fortress.errors import Stop
from fortress.in_gateway import gateways
from fortress.trail import REQUESTS, Reader
from tests.unit.gateway.harness import KEYS, Bench
from tests.unit.gateway.test_audit_trail import FOLDER, trail, until
from tests.unit.gateway.test_deployed_policy import CHAT

__all__ = ["trail"]
BOB = KEYS["bob"]


def shown(bench: Bench, **how: Any) -> list[dict[str, Any]]:
    chosen: dict[str, Any] = {"user": None, "verdict": None, "since": "1h", "follow": False, **how}
    return list(logs.read(bench.engine, bench.name, **chosen))


def set_aside(bench: Bench, name: str) -> None:
    bench.shell(f"mv {FOLDER}/audit.json {FOLDER}/{name}")


def numbered(bench: Bench, *numbers: int) -> None:
    """Lines of the trail that only a number tells apart, in the order of their time."""
    lines = "".join(
        json.dumps({"time": f"2099-01-01T00:00:{n % 60:02}.000Z", "event": "n", "n": n}) + "\n" for n in numbers
    )
    bench.shell(f"cat >> {FOLDER}/audit.json <<'END'\n{lines}END")


def test_logs_show_who_was_refused(trail: Bench):
    trail.ask("POST", "/api/chat", key=BOB, body=CHAT)
    trail.ask("POST", "/api/chat", body=CHAT)
    assert {line["principal"] for line in shown(trail, user="bob")} == {"bob"}
    assert {line["verdict"] for line in shown(trail, verdict="denied")} == {"refused"}
    assert shown(trail, verdict="denied")[-1]["reason"] == "no-identity"


def test_logs_name_the_way_out_of_a_wrong_word(trail: Bench):
    with pytest.raises(Stop, match="'nope' is no verdict; one of allowed, refused"):
        shown(trail, verdict="nope")
    with pytest.raises(Stop, match=r"'nobody' is no user of this deployment.*known users: alice, bob"):
        shown(trail, user="nobody")
    with pytest.raises(Stop, match="'nobody' is no user"):
        shown(trail, user="nobody", follow=True)
    with pytest.raises(Stop, match="is no duration; write it like 30s, 10m, 1h or 7d, which"):
        shown(trail, since="1 week")
    with pytest.raises(Stop, match="'nobody' is no user"):
        usage.read(trail.engine, trail.name, "nobody", "30d")


def test_usage_is_what_the_lines_say(trail: Bench):
    before = usage.read(trail.engine, trail.name, "bob", "30d")["users"]["bob"]
    trail.ask("POST", "/api/chat", key=BOB, body=CHAT)
    set_aside(trail, "audit-20990101T000000Z.json")
    trail.ask("POST", "/api/chat", key=BOB, body=CHAT)
    after = usage.read(trail.engine, trail.name, "bob", "30d")["users"]["bob"]
    assert after["requests"] - before["requests"] == 2
    assert after["models"]["tiny"] - before["models"].get("tiny", 0) == 2


def test_what_is_older_than_since_is_left_out_by_file_and_by_line(trail: Bench):
    old = json.dumps({"time": "2020-01-01T00:00:00.000Z", "event": "n", "n": -1})
    trail.shell(f"echo '{old}' > {FOLDER}/audit-20200101T000000Z.json; echo '{old}' >> {FOLDER}/audit.json")
    numbered(trail, 1)
    assert [line["n"] for line in shown(trail) if "n" in line] == [1]


def test_a_reader_loses_nothing_and_reads_nothing_twice_through_rotations(trail: Bench):
    """Rotated in the middle of a read, twice between two reads, with half a line at the end, and without any file."""
    [gateway] = gateways(trail.engine, trail.name)
    reader = Reader(gateway, REQUESTS)

    def read() -> list[int]:
        return [line["n"] for line in reader.lines() if "n" in line]

    numbered(trail, 1, 2)
    assert read() == [1, 2]
    assert read() == []
    numbered(trail, 3)
    set_aside(trail, "audit-20990101T000001Z.json")
    assert read() == [3]
    numbered(trail, 4)
    set_aside(trail, "audit-20990101T000002Z.json")
    numbered(trail, 5)
    set_aside(trail, "audit-20990101T000003Z.json")
    numbered(trail, 6)
    trail.shell(f'printf \'{{"time":"2099\' >> {FOLDER}/audit.json')
    assert read() == [4, 5, 6]
    trail.shell(f"printf '%s\\n' '-01-01T00:00:07.000Z\",\"n\":7}}' >> {FOLDER}/audit.json")
    assert read() == [7]


def test_a_follower_hears_each_line_once_while_files_are_set_aside(trail: Bench):
    heard: list[int] = []
    last = 400

    def follow() -> None:
        lines = logs.read(trail.engine, trail.name, user=None, verdict=None, since="1h", follow=True)
        for line in itertools.takewhile(lambda line: line.get("n") != last, lines):
            heard.extend([line["n"]] if "n" in line else [])

    follower = threading.Thread(target=follow, daemon=True)
    follower.start()
    for turn in range(4):
        numbered(trail, *range(turn * 100, turn * 100 + 50))
        set_aside(trail, f"audit-2099010{turn + 1}T000000Z.json")
        numbered(trail, *range(turn * 100 + 50, turn * 100 + 100))
    numbered(trail, last)
    until(lambda: not follower.is_alive(), "heard to its end", 20)
    assert heard == list(range(last))


def test_an_idle_follower_ends_by_itself_in_the_container(trail: Bench):
    [gateway] = gateways(trail.engine, trail.name)
    reader = Reader(gateway, REQUESTS)
    list(reader.lines())
    assert list(reader.lines(1)) == []
    assert [row for row in gateway.top()["Processes"] if "audit-" in row[-1]] == []
