"""The bench's arithmetic: what a percentile is, what one answer took, and when a limit is kept."""

import json
import math
import socket
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as some

from bench import first_chunk, pairs, stand_in
from bench.figures import halves_differ, interval, middle_half, percentile
from bench.memory import charged
from bench.results import Result, exit_code, write

MS = 1_000_000
NUMBERS = some.lists(some.floats(-1e6, 1e6), min_size=1, max_size=50)


@pytest.mark.parametrize(("percent", "value"), [(0, 1), (50, 50), (90, 90), (99, 99), (99.1, 100), (100, 100)])
def test_a_percentile_is_the_smallest_value_that_so_many_do_not_exceed(percent: float, value: int):
    assert percentile(list(range(100, 0, -1)), percent) == value


@given(NUMBERS, some.floats(0, 100))
def test_a_percentile_is_a_value_that_was_seen(values: list[float], percent: float):
    found = percentile(values, percent)
    assert found in values
    assert sum(value <= found for value in values) >= percent / 100 * len(values)


def test_without_measurements_there_is_no_percentile():
    with pytest.raises(ValueError, match="no measurements"):
        percentile([], 50)


def test_the_spread_ignores_one_extreme_value():
    assert middle_half([1, 2, 3, 4, 5, 6, 7, 1000]) == 4


def test_the_halves_of_a_run_that_drifts_differ():
    assert halves_differ([1, 1, 1, 1], 50) == 0
    assert halves_differ([1, 1, 3, 3], 50) == 2


def test_the_interval_holds_the_figure_and_is_the_same_again():
    values = [float(number) for number in range(200)]
    low, high = interval(values, lambda some: percentile(some, 50))
    assert low < percentile(values, 50) < high
    assert (low, high) == interval(values, lambda some: percentile(some, 50))


@pytest.mark.parametrize(
    ("value", "limit", "ok"), [(1.0, 1.0, True), (1.1, 1.0, False), (9e9, None, True), (math.nan, 1.0, False)]
)
def test_a_limit_is_kept_up_to_its_own_value_and_never_by_what_is_no_number(value: float, limit: float, ok: bool):
    assert Result("figure", value, "ms", limit).ok is ok


def test_one_figure_over_its_limit_fails_the_whole_bench():
    kept, over = Result("a", 1, "ms", 2), Result("b", 3, "ms", 2)
    assert exit_code([kept]) == 0
    assert exit_code([kept, over]) == 1


def test_a_bench_that_measured_nothing_has_proven_nothing():
    assert exit_code([]) == 1


def test_the_file_says_name_value_unit_limit_and_verdict(tmp_path: Path):
    file = tmp_path / "results" / "latest.json"
    write([Result("a", 1.23456, "ms", 1.0), Result("b", 2, "MB")], file)
    assert json.loads(file.read_text()) == [
        {"name": "a", "value": 1.235, "unit": "ms", "limit": 1.0, "ok": False},
        {"name": "b", "value": 2, "unit": "MB", "limit": None, "ok": True},
    ]


@pytest.mark.parametrize(
    ("stats", "bytes_"),
    [
        ({"inactive_file": 30, "active_file": 5}, 70),  # control groups, version 2
        ({"inactive_file": 1, "total_inactive_file": 30}, 70),  # version 1, where only the total has the children
        ({}, 100),
    ],
)
def test_memory_is_what_is_charged_without_cache_that_would_be_given_back(stats: dict[str, int], bytes_: int):
    assert charged({"usage": 100, "stats": stats}) == bytes_


def test_what_the_gateway_added_is_a_difference_within_each_pair():
    slow = {"direct": {"first": 9000}, "gateway": {"first": 9500}}
    fast = {"direct": {"first": 5000}, "gateway": {"first": 5250}}
    assert first_chunk.added_ms([slow, fast], "first") == [0.5, 0.25]


def test_the_noise_is_seen_where_the_gateway_is_not():
    quiet = [{"direct": {"first": 5000}, "gateway": {"first": 5000 + number * 1000}} for number in range(100)]
    assert first_chunk.noise_ms(quiet) == 0
    busy = [{"direct": {"first": 5000 + number % 2 * 4000}, "gateway": {"first": 5500}} for number in range(100)]
    assert first_chunk.noise_ms(busy) == 4


def answer(*frames: bytes) -> bytes:
    return stand_in.HEAD + b"".join(frames) + b"0\r\n\r\n"


def test_the_first_chunk_is_the_first_one_with_text_and_gaps_are_between_arrivals():
    empty = stand_in.frame(2 * MS, 5 * MS, 5 * MS, False).replace(b"word ", b"")
    empty = b"%x%b" % (len(empty.split(b"\r\n")[1]), empty[empty.index(b"\r") :])
    one, two = stand_in.frame(2 * MS, 6 * MS, 7 * MS, False), stand_in.frame(2 * MS, 9 * MS, 9 * MS, True)
    found = pairs.sample(1 * MS, [stand_in.HEAD + empty, one, two + b"0\r\n\r\n"], [6 * MS, 8 * MS, 12 * MS])
    assert found == {"first": 7000, "way_in": 1000, "way_out": 1000, "late": 1000, "gaps": [4000]}


def test_a_chunk_in_two_reads_arrived_with_the_second_and_two_in_one_read_arrived_together():
    frames = [stand_in.frame(0, 0, 0, last) for last in (False, False, True)]
    whole = answer(*frames)
    cut = len(stand_in.HEAD) + len(frames[0]) - 10
    found = pairs.sample(0, [whole[:cut], whole[cut:]], [5 * MS, 6 * MS])
    assert found["first"] == 6000
    assert found["gaps"] == [0, 0]


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"HTTP/1.1 429 Too Many Requests\r\n\r\n0\r\n\r\n", id="refused"),
        pytest.param(answer(stand_in.frame(0, 0, 0, False))[:-1], id="cut"),
        pytest.param(b"", id="nothing"),
    ],
)
def test_an_answer_that_is_refused_or_cut_is_an_error_and_no_measurement(data: bytes):
    with pytest.raises(ValueError, match="no whole answer"):
        pairs.sample(0, [data], [1])


@pytest.mark.parametrize(
    ("data", "length"),
    [
        (b"POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc", 41),
        (b"POST / HTTP/1.1\r\nCONTENT-LENGTH: 3\r\n\r\nabcPOST", 41),
        (b"POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nab", 0),
        (b"POST / HTTP/1.1\r\nContent-Le", 0),
    ],
)
def test_the_stand_in_waits_for_the_whole_request_and_takes_no_more(data: bytes, length: int):
    assert stand_in.whole(data) == length


def test_the_stand_in_keeps_its_pace_on_a_kept_alive_connection():
    with socket.create_server(("127.0.0.1", 0)) as server:
        here = socket.create_connection(server.getsockname())
        there, _ = server.accept()
    threading.Thread(target=stand_in.serve, args=(there,), daemon=True).start()
    with here:
        here.settimeout(5)
        for _ in range(2):
            here.sendall(pairs.request("localhost", "{}"))
            data = b""
            while not data.endswith(pairs.END):
                data += here.recv(65536)
            frames = [json.loads(line) for line in pairs.FRAME.findall(data)]
            assert [frame["done"] for frame in frames] == [False] * (stand_in.CHUNKS - 1) + [True]
            assert frames[0]["due_ns"] - frames[0]["read_ns"] == stand_in.FIRST_S * 1e9
            assert all(frame["sent_ns"] >= frame["due_ns"] for frame in frames)
