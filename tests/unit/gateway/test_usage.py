"""Tokens are counted from the answers themselves, however their bytes are cut; nothing else of them changes."""

import base64
import contextlib
import json
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.unit.gateway.harness import KEYS, STRANGER, Bench, Reply

ALICE, BOB = KEYS["alice"], KEYS["bob"]
NDJSON, SSE, JSON = "application/x-ndjson", "text/event-stream", "application/json"


def line(**more: Any) -> str:
    return json.dumps({"model": "tiny", **more}, separators=(",", ":"), ensure_ascii=False)


def data(value: str) -> str:
    return f"data: {value}\n\n"


def event(**more: Any) -> str:
    return f"event: {more['type']}\ndata: {json.dumps(more, separators=(',', ':'))}\n\n"


COUNTS = {"total_duration": 9, "prompt_eval_count": 26, "prompt_eval_duration": 1, "eval_count": 298}
USAGE = {"prompt_tokens": 26, "completion_tokens": 298, "total_tokens": 324}
WORDS = ["Grüße", ' "usage":{"prompt_tokens":1}, "eval_count":7 ', "東京\n\n", '"choices":[]']


def chunk(text: str, finish: str | None = None, **more: Any) -> str:
    choice = {"index": 0, "delta": {"role": "assistant", "content": text}, "finish_reason": finish}
    return data(line(object="chat.completion.chunk", choices=[choice], **more))


NATIVE = "".join(line(message={"content": word}, done=False) + "\n" for word in WORDS)
NATIVE_END = line(message={"content": ""}, done=True, done_reason="stop", **COUNTS) + "\n"
CHAT = "".join(chunk(word) for word in WORDS) + chunk("", "stop")
CHAT_USAGE = data(line(object="chat.completion.chunk", choices=[], usage=USAGE))
DONE = data("[DONE]")
COMPLETION = "".join(
    data(line(choices=[{"text": word, "index": 0, "finish_reason": None}], usage=dict.fromkeys(USAGE, 0)))
    for word in WORDS
)
MESSAGES = (
    event(type="message_start", message={"usage": {"input_tokens": 20, "output_tokens": 0}})
    + event(type="content_block_start", index=0, content_block={"type": "text", "text": ""})
    + "".join(event(type="content_block_delta", index=0, delta={"type": "text_delta", "text": w}) for w in WORDS)
    + event(type="content_block_stop", index=0)
)
MESSAGES_END = event(type="message_delta", delta={}, usage={"input_tokens": 26, "output_tokens": 298}) + event(
    type="message_stop"
)
RESPONSE_USAGE = {"input_tokens": 26, "input_tokens_details": {"cached_tokens": 0}, "output_tokens": 298}
# The caller's own tools, said again at the beginning and at the end; keys are sorted, as Go writes a map.
ECHO = {"tools": [{"parameters": {"usage": {"input_tokens": 1}}}]}
LONG_ECHO = {"tools": [*ECHO["tools"], {"description": "x" * 70_000}]}
DELTAS = "".join(event(type="response.output_text.delta", delta=word) for word in WORDS)


def responses(echo: dict[str, Any]) -> str:
    begun = [event(response={**echo, "usage": None}, type=f"response.{at}") for at in ("created", "in_progress")]
    return "".join(begun) + DELTAS


RESPONSES = responses(ECHO)
RESPONSES_END = event(response={**ECHO, "usage": RESPONSE_USAGE}, type="response.completed")
VECTORS = [[0.123456789] * 4096] * 4
STREAMS = {
    "native": NATIVE + NATIVE_END,
    "chat": CHAT + CHAT_USAGE + DONE,
    "completions": COMPLETION + CHAT_USAGE + DONE,
    "messages": MESSAGES + MESSAGES_END,
    "responses": RESPONSES + RESPONSES_END,
}
WHOLE = {
    "chat": line(message={"content": WORDS[1]}, done=True, **COUNTS),
    "generate with its log probabilities behind": line(response="x", done=True, **COUNTS, logprobs=["x" * 200] * 1000),
    "a very long answer": line(message={"content": WORDS[1] * 9000}, done=True, **COUNTS),
    "openai": line(object="chat.completion", choices=[{"message": {"content": WORDS[1]}}], usage=USAGE) + "\n",
    "anthropic": line(type="message", content=[], usage={"input_tokens": 26, "output_tokens": 298}),
    "responses": line(object="response", usage=RESPONSE_USAGE, max_output_tokens=None),
}
EMBEDDINGS = {
    "native": line(embeddings=VECTORS, total_duration=1, load_duration=2, prompt_eval_count=26),
    "openai": line(object="list", data=[{"embedding": v} for v in VECTORS], usage={"prompt_tokens": 26}),
}


def cut(text: str, size: int) -> list[bytes]:
    raw = text.encode()
    return [raw[at : at + size] for at in range(0, len(raw), size)]


def measured(bench: Bench, pieces: list[bytes], *, drop: bool = False, whole: bool = True) -> tuple[list[int], bytes]:
    told = bench.call("measured", drop, [base64.b64encode(piece).decode() for piece in pieces], whole)
    assert told["kept"] <= 65536
    return told["tokens"], b"".join(base64.b64decode(piece) for piece in told["left"])


@pytest.mark.parametrize("size", [1, 2, 7, 100, 10**6])
@pytest.mark.parametrize("api", STREAMS)
def test_a_streams_tokens_are_counted_however_its_bytes_are_cut(api: str, size: int, bench: Bench):
    tokens, left = measured(bench, cut(STREAMS[api], size))
    assert tokens == [26, 298]
    assert left == STREAMS[api].encode()


@pytest.mark.parametrize("text", [STREAMS["native"], WHOLE["chat"]], ids=["after a line", "within a line"])
def test_an_end_that_brings_nothing_ends_what_was_begun(text: str, bench: Bench):
    assert measured(bench, [text.encode(), b""]) == ([26, 298], text.encode())


@pytest.mark.parametrize("size", [1000, 10**7])
@pytest.mark.parametrize("kind", WHOLE)
def test_an_answer_in_one_piece_is_counted(kind: str, size: int, bench: Bench):
    assert measured(bench, cut(WHOLE[kind], size))[0] == [26, 298]


@pytest.mark.parametrize("size", [16_000, 10**7])
@pytest.mark.parametrize("kind", EMBEDDINGS)
def test_embeddings_are_counted(kind: str, size: int, bench: Bench):
    assert measured(bench, cut(EMBEDDINGS[kind], size))[0] == [26, 0]


@pytest.mark.parametrize("size", [1, 2, 7, 100, 10**6])
@pytest.mark.parametrize("start", [CHAT, COMPLETION, ""])
def test_the_chunk_that_nobody_asked_for_is_removed_and_no_other_byte(start: str, size: int, bench: Bench):
    tokens, left = measured(bench, cut(start + CHAT_USAGE + DONE, size), drop=True)
    assert tokens == [26, 298]
    assert left == (start + DONE).encode()


def test_bytes_leave_at_once_wherever_they_cannot_be_that_chunk(bench: Bench):
    pieces = cut(CHAT, 1)
    told = bench.call("measured", True, [base64.b64encode(piece).decode() for piece in pieces], True)
    waiting = [bool(piece) for piece in told["left"]].count(False)
    first = CHAT.index('"choices":[') + len('"choices":[')
    assert waiting <= first * CHAT.count("data: "), "more was held back than the beginning of a line"
    pieces = [line.encode() for line in CHAT.splitlines(keepends=True)]
    told = bench.call("measured", True, [base64.b64encode(piece).decode() for piece in pieces], True)
    assert [base64.b64decode(piece) for piece in told["left"]] == pieces


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        (NATIVE, [1000, 4]),
        (CHAT, [1000, 5]),
        (COMPLETION, [1000, 4]),
        (MESSAGES, [20, 4]),
        (RESPONSES, [1000, 4]),
        (responses(LONG_ECHO), [1000, 4]),
        (NATIVE * 1000, [1000, 500]),
        ('{"error":"no such model"}\n', [0, 0]),
        (NATIVE + '{"error":"the runner died"}\n', [1000, 4]),
        ('{"model":"tiny","message":{"content":"half an ans', [1000, 49]),
        ("", [0, 0]),
    ],
    ids=[
        "native",
        "chat",
        "completions",
        "messages",
        "responses",
        "long echo",
        "many",
        "error",
        "late error",
        "half",
        "nothing",
    ],
)
def test_a_cut_answer_costs_the_chunks_that_came_and_never_more_than_its_ceiling(
    text: str, tokens: list[int], bench: Bench
):
    assert measured(bench, cut(text, 50), whole=False)[0] == tokens


# Deployed.


def fake(*pieces: str, type_: str = NDJSON, **more: Any) -> dict[str, Any]:
    return {"model": "tiny", "messages": [], "fake": {"type": type_, "pieces": list(pieces), **more}}


def ask(bench: Bench, path: str, body: dict[str, Any], key: str | None = BOB) -> Reply:
    """Ollama is told what to answer beside the request: of that, only the keys it knows go on."""
    sent = dict(body)
    bench.tell(sent.pop("fake"))
    return bench.ask("POST", path, key=key, body=sent)


@pytest.fixture(autouse=True)
def told(bench: Bench) -> Iterator[None]:
    yield
    bench.tell(None)


def last(bench: Bench) -> dict[str, Any]:
    return bench.audit()[-1]


@contextlib.contextmanager
def opened(bench: Bench, path: str, body: dict[str, Any], key: str = BOB) -> Iterator[Any]:
    sent = dict(body)
    bench.tell(sent.pop("fake"))
    text = json.dumps(sent).encode()
    with bench.connect(STRANGER) as connection:
        head = f"POST {path} HTTP/1.1\r\nHost: ollama.fortress.internal\r\nAuthorization: Bearer {key}\r\n"
        connection.sendall(f"{head}Content-Length: {len(text)}\r\n\r\n".encode() + text)
        yield connection


def until(connection: Any, word: bytes) -> bytes:
    got = b""
    while word not in got and (part := connection.recv(65536)):
        got += part
    return got


ROUTES = [
    ("/api/chat", NDJSON, STREAMS["native"]),
    ("/v1/chat/completions", SSE, STREAMS["chat"]),
    ("/v1/messages", SSE, STREAMS["messages"]),
    ("/v1/responses", SSE, STREAMS["responses"]),
    ("/api/chat", JSON, WHOLE["chat"]),
    ("/v1/chat/completions", JSON, WHOLE["openai"]),
    ("/v1/messages", JSON, WHOLE["anthropic"]),
    ("/v1/responses", JSON, WHOLE["responses"]),
]


@pytest.mark.parametrize(("path", "kind", "text"), ROUTES)
def test_the_audit_line_says_what_an_answer_cost(path: str, kind: str, text: str, bench: Bench):
    reply = ask(bench, path, fake(*[text[at : at + 60] for at in range(0, len(text), 60)], type_=kind))
    assert reply.body == text.encode()
    audited = last(bench)
    assert (audited["tokens_in"], audited["tokens_out"]) == (26, 298)


@pytest.mark.parametrize("path", ["/api/embed", "/v1/embeddings"])
def test_embeddings_are_in_the_audit_line(path: str, bench: Bench):
    text = EMBEDDINGS["native" if path == "/api/embed" else "openai"]
    reply = ask(bench, path, {**fake(text, type_=JSON), "input": ["a", "b"]})
    assert reply.body == text.encode()
    assert (last(bench)["tokens_in"], last(bench)["tokens_out"]) == (26, 0)


@pytest.mark.parametrize("asked", [None, {"include_usage": False}, {"include_usage": True}])
def test_ollama_is_asked_for_the_usage_and_only_who_asked_sees_it(asked: dict[str, bool] | None, bench: Bench):
    bench.forget()
    body = {**fake(CHAT, CHAT_USAGE, DONE, type_=SSE), "stream": True, "stream_options": asked}
    reply = ask(bench, "/v1/chat/completions", body)
    (heard,) = bench.heard()
    assert json.loads(heard["body"])["stream_options"] == {"include_usage": True}
    wanted = asked is not None and asked["include_usage"]
    assert reply.body == (CHAT + (CHAT_USAGE if wanted else "") + DONE).encode()
    assert (last(bench)["tokens_in"], last(bench)["tokens_out"]) == (26, 298)


def test_what_is_refused_or_fails_or_is_only_read_costs_nothing(bench: Bench):
    failed = fake(line(error="x", done=True, **COUNTS), type_=JSON, status=500)
    assert ask(bench, "/api/chat", failed).status == 500
    assert (last(bench)["tokens_in"], last(bench)["tokens_out"]) == (0, 0)
    for method, path, key in (("GET", "/api/tags", BOB), ("POST", "/api/chat", None), ("POST", "/api/chat", BOB)):
        bench.ask(method, path, key=key, body={"model": "evil"} if method == "POST" else None)
        assert (last(bench)["tokens_in"], last(bench)["tokens_out"]) == (0, 0)


def test_an_aborted_stream_costs_what_was_produced(bench: Bench):
    body = fake(first=line(message={"content": "x"}, done=False) + "\n", times=100, pause=50)
    with opened(bench, "/api/chat", body) as stream:
        until(stream, b'"content"')
        time.sleep(0.5)
    for _ in range(40):
        if (audited := last(bench))["completion"] == "cut":
            break
        time.sleep(0.05)
    assert 5 <= audited["tokens_out"] <= 40
    assert 0 < audited["tokens_in"] <= 4096


def test_two_requests_of_one_connection_are_counted_apart(bench: Bench):
    short = fake(NATIVE, line(done=True, prompt_eval_count=3, eval_count=4) + "\n")
    with bench.connect(STRANGER) as connection:
        for body, end in ((fake(NATIVE, NATIVE_END), b"298}\n\r\n0\r\n\r\n"), (short, b'":4}\n\r\n0\r\n\r\n')):
            bench.tell(body.pop("fake"))
            text = json.dumps(body).encode()
            head = f"POST /api/chat HTTP/1.1\r\nHost: ollama.fortress.internal\r\nAuthorization: Bearer {BOB}\r\n"
            connection.sendall(f"{head}Content-Length: {len(text)}\r\n\r\n".encode() + text)
            assert until(connection, end).endswith(end)
    assert [(row["tokens_in"], row["tokens_out"]) for row in bench.audit()[-2:]] == [(26, 298), (3, 4)]
