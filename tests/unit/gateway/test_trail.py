"""When the audit file is set aside, and which old ones go."""

from typing import Any

import pytest

from tests.unit.gateway.harness import Bench

NOW = 1_800_000_000_000  # 2027-01-15 08:00:00 UTC
DAY = 86_400_000
LIMITS = {"file": 100, "files": 300, "days": 10}
TODAY, YESTERDAY, TOMORROW = ('{"time":"2027-01-%02dT23:59:59.000Z"' % day for day in (15, 14, 16))  # noqa: UP031


def name(day: int, second: int = 0) -> str:
    return f"audit-202701{day:02}T0800{second:02}Z.json"


def files(*sizes: int, first: int = 10) -> list[dict[str, Any]]:
    return [{"name": name(first + at), "size": size} for at, size in enumerate(sizes)]


@pytest.mark.parametrize(
    ("size", "first", "due"),
    [
        (99, TODAY, False),
        (100, TODAY, True),
        (1, YESTERDAY, True),
        (1, TOMORROW, False),  # the clock has jumped back
        (0, "", False),
        (1, '{"time":"yesterday"', False),
    ],
)
def test_a_file_is_set_aside_when_it_is_large_or_of_yesterday(size: int, first: str, due: bool, bench: Bench):
    assert bench.call("due", size, first, LIMITS, NOW) is due


def test_a_file_takes_the_name_of_its_last_second_and_never_one_that_is_there(bench: Bench):
    assert bench.call("freeName", ["audit.json", "commands.json"], NOW) == name(15)
    assert bench.call("freeName", [name(14), "audit.json"], NOW) == name(15)
    assert bench.call("freeName", [name(15), name(14)], NOW) == name(15, 1)


def test_names_are_in_order_though_the_clock_jumps_back(bench: Bench):
    assert bench.call("freeName", [name(15)], NOW - 5 * DAY) == name(15, 1)


def test_what_is_no_audit_file_is_never_counted_or_deleted(bench: Bench):
    others = ["audit.json", "commands.json", "audit-x.json", name(12) + ".gz"]
    assert bench.call("aside", [*others, name(15), name(14)]) == [name(14), name(15)]


def test_the_oldest_go_until_all_together_have_room(bench: Bench):
    assert bench.call("surplus", files(100, 100), LIMITS, NOW) == []
    assert bench.call("surplus", files(100, 100, 1), LIMITS, NOW) == [name(10)]
    assert bench.call("surplus", files(50, 50, 100, 100), LIMITS, NOW) == [name(10), name(11)]
    assert bench.call("surplus", [], LIMITS, NOW) == []


def test_the_old_go_two_at_a_time_so_that_a_jump_of_the_clock_deletes_little(bench: Bench):
    old = files(1, 1, 1, 1)
    assert bench.call("surplus", old, LIMITS, NOW) == []
    assert bench.call("surplus", old, LIMITS, NOW + 7 * DAY) == [name(10), name(11)]
    assert bench.call("surplus", old, LIMITS, NOW + 5 * DAY) == [name(10)]
    assert bench.call("surplus", old, LIMITS, NOW + 3650 * DAY) == [name(10), name(11)]
