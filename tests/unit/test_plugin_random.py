"""The random plugin answers what the official plugin answered, and no id tells a secret."""

import re
from typing import Any

import bcrypt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from offline.plugins.provider import UNKNOWN, Refused
from offline.plugins.random.__main__ import NO_ID, SPECIAL, RandomPassword, draw
from tests.unit.replay import UNCHANGED, Replay, bare, secrets_in, shape, verdict

OFFICIAL = Replay("random", RandomPassword())
SEED = {"length": 64, "lower": False, "upper": False, "numeric": False, "overrideSpecial": "0123456789abcdef"}
"""What the program asks for."""


@pytest.mark.parametrize("call", OFFICIAL.params("Check"))
def test_check_gives_the_recorded_inputs(call: Any) -> None:
    assert OFFICIAL.answer("Check", call["request"]) == call["response"]


@pytest.mark.parametrize("call", OFFICIAL.params("Diff"))
def test_diff_gives_the_recorded_verdict(call: Any) -> None:
    assert OFFICIAL.verdict(call["request"]) == verdict(call["response"])


@pytest.mark.parametrize("call", OFFICIAL.params("Create", preview=True))
def test_a_previewed_creation_equals_the_recorded_one(call: Any) -> None:
    assert OFFICIAL.answer("Create", call["request"]) == call["response"]


@pytest.mark.parametrize("call", OFFICIAL.params("Create", preview=False))
def test_created_outputs_have_the_recorded_names_types_and_marks(call: Any) -> None:
    found, wanted = OFFICIAL.answer("Create", call["request"]), call["response"]
    assert found["id"] == wanted["id"] == NO_ID
    assert shape(found["properties"]) == shape(wanted["properties"])
    drawn = ("result", "bcryptHash")
    assert {k: v for k, v in found["properties"].items() if k not in drawn} == {
        k: v for k, v in wanted["properties"].items() if k not in drawn
    }


@pytest.mark.parametrize("call", OFFICIAL.params("Read"))
def test_read_gives_the_recorded_state(call: Any) -> None:
    assert OFFICIAL.answer("Read", call["request"]) == call["response"]


@pytest.mark.parametrize("preview", [False, True])
def test_no_secret_is_in_an_id(preview: bool) -> None:
    answer = OFFICIAL.answer("Create", OFFICIAL.made("RandomPassword")["request"] | {"preview": preview})
    secret = secrets_in(answer["properties"])
    assert len(secret) == (0 if preview else 2)
    assert answer.get("id") == (None if preview else NO_ID)


def test_a_seed_is_64_hex_digits_and_its_hash_is_bcrypts() -> None:
    request = {"type": RandomPassword.token, "name": "seed", "properties": SEED}
    one, other = (bare(OFFICIAL.answer("Create", request)["properties"]) for _ in range(2))
    assert re.fullmatch("[0-9a-f]{64}", one["result"])
    assert one["result"] != other["result"]
    assert bcrypt.checkpw(one["result"].encode(), one["bcryptHash"].encode())
    known = {"type": RandomPassword.token, "name": "seed", "id": NO_ID}
    assert bare(OFFICIAL.answer("Read", known | {"inputs": SEED, "properties": one})["properties"]) == one
    assert OFFICIAL.verdict(known | {"oldInputs": SEED, "news": SEED, "olds": one}) == UNCHANGED


@given(
    st.integers(8, 80),
    *[st.integers(0, 2)] * 4,
    st.sets(st.sampled_from(["lower", "upper", "numeric", "special"]), max_size=3),
)
def test_every_kind_that_is_on_comes_as_often_as_asked_and_no_other_comes(
    length: int, lower: int, upper: int, numeric: int, special: int, off: set[str]
) -> None:
    least = {"lower": lower, "upper": upper, "numeric": numeric, "special": special}
    asked = {f"min{kind.capitalize()}": 0 if kind in off else count for kind, count in least.items()}
    result = draw({"length": length, **asked, **dict.fromkeys(off, False)})
    found = {
        "lower": sum(c.islower() for c in result),
        "upper": sum(c.isupper() for c in result),
        "numeric": sum(c.isdigit() for c in result),
        "special": sum(c in SPECIAL for c in result),
    }
    assert sum(found.values()) == len(result) == length
    for kind, count in found.items():
        assert count == 0 if kind in off else count >= least[kind]


@pytest.mark.parametrize("change", [{"length": 65}, {"keepers": {"epoch": "2"}}, {"upper": True}])
def test_a_change_makes_a_new_one(change: Any) -> None:
    request = {"type": RandomPassword.token, "name": "x", "id": NO_ID, "oldInputs": SEED, "olds": {}}
    found = OFFICIAL.verdict(request | {"news": SEED | change})
    assert found["changes"] == "DIFF_SOME"
    assert found["diffs"] == found["replaces"] == list(change)


@pytest.mark.parametrize(
    ("given", "prop"),
    [
        ({"length": 1, "byteLength": 2}, "byteLength"),
        ({}, "length"),
        ({"length": 0}, "length"),
        ({"length": 2, "minLower": 3}, "length"),
        ({"length": 2, "lower": False, "upper": False, "numeric": False, "special": False}, "special"),
        ({"length": 2, "number": True}, "number"),
    ],
)
def test_an_input_that_cannot_be_is_refused_by_name(given: Any, prop: str) -> None:
    with pytest.raises(Refused) as refused:
        RandomPassword().check("x", {}, given, b"")
    assert refused.value.prop == prop
    RandomPassword().check("x", {}, {"length": UNKNOWN}, b"")
