"""What of a body the policy reads, and what of it goes by unread: no string's inside may pass for anything else."""

import base64
import json
import time
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.unit.gateway.harness import KEYS, Bench
from tests.unit.gateway.test_bodies import kept
from tests.unit.gateway.test_policy import ANYTHING, judge

LONG = "QUJD" * 1000


def outlined(bench: Bench, body: bytes) -> Any:
    return bench.call("outlined", base64.b64encode(body).decode())


@pytest.mark.parametrize(
    "content",
    [
        LONG,
        "é" * 3000,
        "\U0001f600" * 2000,
        "a" * 95 + "é" * 2000,
        '\\"' * 2000 + "end",
        "\n\t\\" * 2000,
        '{"model":"evil"}' * 300,
    ],
    ids=lambda text: repr(text[:12]),
)
@pytest.mark.parametrize("ascii_only", [True, False])
def test_a_long_string_goes_on_byte_for_byte_and_is_seen_by_its_head(content: str, ascii_only: bool, bench: Bench):
    body = json.dumps({"model": "tiny", "messages": [{"content": content}]}, ensure_ascii=ascii_only).encode()
    seen = outlined(bench, body)
    assert base64.b64decode(seen["whole"]) == body
    assert len(seen["text"]) < 1000
    shown = json.loads(seen["text"])["messages"][0]["content"]
    assert shown.startswith(content[:24])
    assert kept(bench, body.decode())["messages"][0]["content"] == content


@settings(max_examples=150, suppress_health_check=list(HealthCheck), derandomize=True)
@given(
    value=st.recursive(
        st.none()
        | st.integers(-(10**9), 10**9)
        | st.builds(lambda word, times: word * times, st.text(min_size=1, max_size=9), st.integers(1, 400)),
        lambda inner: (
            st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4) | st.just("k" * 400), inner, max_size=4)
        ),
        max_leaves=12,
    ),
    ascii_only=st.booleans(),
    indent=st.sampled_from([None, 1]),
)
def test_whatever_is_left_out_comes_back_where_it_was(value: Any, ascii_only: bool, indent: int | None, bench: Bench):
    body = json.dumps(value, ensure_ascii=ascii_only, indent=indent).encode("utf-8", "surrogatepass")
    seen = outlined(bench, body)
    assert base64.b64decode(seen["whole"]) == body.decode("utf-8", "surrogatepass").encode("utf-8", "replace")
    json.loads(seen["text"])


def test_the_policy_decides_of_a_long_string_as_of_the_whole(bench: Bench):
    tail = "a" * 5000
    for body, reason in (
        ({"model": "tiny" + tail}, "model-name"),
        ({"model": "tiny", "messages": [{"images": ["https://evil.example/" + tail]}]}, "image-url"),
        ({"model": "tiny", "messages": [{"images": ["\\/" + "é" + tail]}]}, "image-url"),
        ({"model": "tiny", "MODEL" + tail: 1, "model" + tail: 2}, "key-spelling"),
    ):
        assert judge(bench, json.dumps(body), user=ANYTHING)["reason"] == reason
    searching = {"type": "web_search" + tail}
    body = {"model": "tiny", "tools": [searching, {"type": "function", "description": tail}]}
    assert kept(bench, json.dumps(body), "/v1/responses")["tools"] == [{"type": "function", "description": tail}]


def test_a_slash_that_some_encoders_escape_is_no_address(bench: Bench):
    """PHP and others write \\/ for /: an image's base64 may begin with it."""
    image = "/9j/" * 2000
    body = '{"model":"tiny","messages":[{"images":["' + image.replace("/", "\\/") + '"]}]}'
    assert kept(bench, body)["messages"][0]["images"] == [image]


@pytest.mark.parametrize(
    "text",
    [
        '{"model":"tiny","prompt":"' + LONG,
        '{"model":"tiny","prompt":"' + LONG + '\\"',
        '{"model":"tiny","prompt":"' + LONG + '"',
        '{"model":"tiny","prompt":"' + LONG + '"}}',
        '{"model":"tiny","prompt":"' + LONG + '" "x"}',
        '{"model":"tiny","' + LONG + '"}',
        LONG + '{"model":"tiny"}',
    ],
    ids=lambda text: text[-12:],
)
def test_what_is_not_json_without_its_long_strings_is_not_json(text: str, bench: Bench):
    assert judge(bench, text)["reason"] == "not-json"


@pytest.mark.parametrize(
    "values",
    ["{},", "[],", "1,", "12345,", '"",', '"a":1,', " ", '"' + "\\" * 3000 + '",', '"' + '\\"' * 300 + '",'],
    ids=repr,
)
def test_a_body_of_nothing_but_values_keeps_the_worker_for_a_moment_only(values: str, bench: Bench):
    """7 MB of these took up to 20 s of the one worker that serves everybody."""
    text = '{"model":"tiny","messages":[' + values * (7_000_000 // len(values))
    began = time.monotonic()
    reply = bench.ask("POST", "/api/chat", key=KEYS["bob"], body=text.encode())
    assert reply.status == 413
    assert json.loads(reply.body)["error"].startswith(("the body holds too many ", "an object of the body has more"))
    assert time.monotonic() - began < 5, "sending it is in here"


def test_a_number_of_megabytes_is_none(bench: Bench):
    for digit in "-9":
        text = '{"model":"tiny","messages":[' + digit * 7_000_000
        assert bench.ask("POST", "/api/chat", key=KEYS["bob"], body=text.encode()).status == 400


def test_a_long_chat_and_many_texts_to_embed_are_not_too_many(bench: Bench):
    turns = [{"role": "user", "content": "x" * 500}, {"role": "assistant", "content": "y" * 500}] * 2500
    assert len(kept(bench, {"messages": turns})["messages"]) == 5000
    texts = ["x" * 40] * 20_000
    assert len(kept(bench, {"input": texts}, "/api/embed")["input"]) == 20_000


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        pytest.param(b"1," * 200_000, "too-many-values", id="values"),
        pytest.param(b'["' + b'\\"' * 300_000 + b'"]', "too-many-values", id="escaped quotes"),
        pytest.param(b'""' * 40_000, "too-many-values", id="strings to the very end"),
        pytest.param(b"[123456,1e309]", "number-size", id="infinite"),
        pytest.param(b"[123456,12345]", None, id="ordinary numbers"),
    ],
)
def test_what_is_too_dense_is_refused_before_it_is_parsed(body: bytes, reason: str | None, bench: Bench):
    assert outlined(bench, body).get("reason") == reason


def test_a_string_of_nothing_but_escapes_is_kept_whole(bench: Bench):
    body = b'["' + b"\\u0041" * 50 + b'"]'
    assert outlined(bench, body)["text"] == body.decode()


@pytest.mark.parametrize(("keys", "reason"), [(500, None), (501, "too-many-keys")])
def test_a_schema_of_very_many_properties_is_refused_which_llama_server_would_never_finish(
    keys: int, reason: str | None, bench: Bench
):
    schema = {"type": "object", "properties": {f"k{n}": {"type": "string"} for n in range(keys)}}
    verdict = judge(bench, json.dumps({"model": "tiny", "messages": [], "format": schema}))
    assert verdict.get("reason") == reason
    several = [{"a": 1, "b": 2} for _ in range(keys)]
    assert judge(bench, json.dumps({"model": "tiny", "messages": several})).get("reason") is None
