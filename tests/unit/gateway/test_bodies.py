"""What a body may ask for beyond its model, judged by the engine that judges it in the gateway."""

import json
from typing import Any

import pytest

from render.principals import POLICY
from tests.unit.gateway.harness import KEYS, Bench
from tests.unit.gateway.test_policy import ANYTHING, NARROW

ROUTES = {row["path"]: row for row in json.loads((POLICY / "routes.json").read_text())["routes"]}
TABLE = json.loads((POLICY / "keys.json").read_text())
WITH_ANSWER = {path: row["answer"] for path, row in TABLE["routes"].items() if "answer" in row}
URL = "https://evil.example/x.png"
DATA = "data:image/png;base64,iVBORw0KGgo="


def judge(bench: Bench, body: Any, path: str = "/api/chat", user: dict[str, Any] = NARROW) -> Any:
    text = body if isinstance(body, str) else json.dumps({"model": "tiny", **body})
    return bench.call("judge", text, ROUTES[path], user)


def kept(bench: Bench, body: Any, path: str = "/api/chat", user: dict[str, Any] = NARROW) -> dict[str, Any]:
    """What goes on, without the model and without the bound that is always written."""
    verdict = judge(bench, body, path, user)
    assert "body" in verdict, verdict
    ask = json.loads(verdict["body"])
    del ask["model"]
    return ask


@pytest.mark.parametrize("path", sorted(TABLE["routes"]))
def test_a_key_that_ollama_does_not_know_does_not_go_on(path: str, bench: Bench):
    models = dict.fromkeys(ROUTES[path]["models"], "tiny")
    files = {"files": {"a": "sha256:" + "a" * 64}} if path == "/api/create" else {}
    body = {**models, **files, **({} if files else {"run_this": "rm", "__proto__": 1, "_debug_render_only": True})}
    sent = json.loads(judge(bench, json.dumps(body), path, ANYTHING)["body"])
    assert set(sent) <= {*models, *files, WITH_ANSWER.get(path), "options"}


def test_what_is_known_goes_on_unchanged(bench: Bench):
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "Name": 1, "name": 2}}}
    body = {"messages": [{"role": "user", "content": "é"}], "tools": [tool], "think": "high", "format": {"Model": 1}}
    sent = kept(bench, body)
    assert sent == {**body, "options": {"num_predict": 1000}}


def test_a_user_sets_how_it_is_answered_and_never_moves_the_runner(bench: Bench):
    sampling = {
        "temperature": 0.30000000000000004, "top_k": 1, "top_p": 0.5, "min_p": 0.1, "typical_p": 1, "seed": 42,
        "repeat_last_n": 1, "repeat_penalty": 1.1, "presence_penalty": 1, "frequency_penalty": 1, "mirostat": 1,
        "mirostat_tau": 1, "mirostat_eta": 1, "stop": ["a"], "num_keep": 1, "num_predict": 7,
    }  # fmt: skip
    runner = {
        "num_batch": 1, "num_gpu": 0, "main_gpu": 1, "use_mmap": False, "num_thread": 1, "numa": True,
        "low_vram": True, "draft_num_predict": 1, "num_ctx": 512,
    }  # fmt: skip
    body = {"options": {**sampling, **runner, "unheard_of": 1}}
    for path in ("/api/chat", "/api/generate"):
        assert kept(bench, body, path)["options"] == sampling
        assert kept(bench, body, path, ANYTHING)["options"] == {**sampling, **runner}


@pytest.mark.parametrize(
    ("asked", "allowed"),
    [(1, 1), (4095.9, 4095), (4096, 4096), (4097, 4096), (9e15, 4096), (-1, 4096), (None, None)],
)
def test_the_context_has_a_limit(asked: float | None, allowed: int | None, bench: Bench):
    assert kept(bench, {"options": {"num_ctx": asked}}, user=ANYTHING)["options"].get("num_ctx") == allowed


@pytest.mark.parametrize("user", [NARROW, ANYTHING])
@pytest.mark.parametrize(("asked", "allowed"), [(0, 0), (64, 64), (4097, 4096), (1_500_000_000, 4096), (-1, 4096)])
def test_what_shall_not_be_repeated_is_no_longer_than_the_context(
    asked: int, allowed: int, user: dict[str, Any], bench: Bench
):
    """The runner takes memory for so many tokens at once, and dies of what it does not get."""
    assert kept(bench, {"options": {"repeat_last_n": asked}}, user=user)["options"]["repeat_last_n"] == allowed


@pytest.mark.parametrize("granted", [None, 8192])
@pytest.mark.parametrize(("asked", "wider"), [(1, False), (4096, False), (-1, False), (4097, True), (9e15, True)])
def test_a_user_gets_the_stacks_context_or_the_one_wider_one_else_each_would_load_the_model_anew(
    asked: float, wider: bool, granted: int | None, bench: Bench
):
    sent = kept(bench, {"options": {"num_ctx": asked}}, user=NARROW | {"num_ctx": granted})
    assert sent["options"].get("num_ctx") == (granted if wider else None)


@pytest.mark.parametrize("path", sorted(WITH_ANSWER))
@pytest.mark.parametrize(
    ("asked", "allowed"),
    [(0, 0), (10, 10), (10.5, 10), (1000, 1000), (1001, 1000), (-1, 1000), (-2, 1000), (None, 1000), ("absent", 1000)],
)
def test_an_answer_has_a_limit_also_where_none_is_asked_for(path: str, asked: Any, allowed: int, bench: Bench):
    key = WITH_ANSWER[path]
    body = {} if asked == "absent" else {key: asked}
    if key == "num_predict":
        assert kept(bench, {"options": body}, path)["options"] == {key: allowed}
        assert kept(bench, {"options": None}, path)["options"] == {key: 1000}
    else:
        assert kept(bench, body, path) == {key: allowed}


def test_openais_newer_word_bounds_too(bench: Bench):
    path = "/v1/chat/completions"
    for asked, allowed in ((5, 5), (5000, 1000)):
        sent = kept(bench, {"max_completion_tokens": asked}, path)
        assert sent == {"max_tokens": allowed, "max_completion_tokens": allowed}


@pytest.mark.parametrize("role", [NARROW, ANYTHING], ids=["user", "admin"])
@pytest.mark.parametrize("path", sorted(set(TABLE["routes"]) - set(WITH_ANSWER) - {"/api/create"}))
def test_a_route_without_an_answer_gets_no_bound(path: str, role: dict[str, Any], bench: Bench):
    body = dict.fromkeys(ROUTES[path]["models"], "tiny")
    assert json.loads(judge(bench, json.dumps(body), path, role)["body"]) == body


@pytest.mark.parametrize("path", ["/api/chat", "/api/generate", "/api/embed", "/api/embeddings"])
@pytest.mark.parametrize("keep_alive", [0, "0", -1, "24h", None])
def test_a_user_neither_unloads_nor_pins_a_model(path: str, keep_alive: Any, bench: Bench):
    """Without a prompt such a request does nothing else: what is left of it loads the model, as any request does."""
    sent = kept(bench, {"keep_alive": keep_alive, "prompt": "", "messages": []}, path)
    assert "keep_alive" not in sent
    assert kept(bench, {"keep_alive": keep_alive}, path, ANYTHING)["keep_alive"] == keep_alive


@pytest.mark.parametrize(
    ("path", "body", "reason"),
    [
        ("/api/chat", {"options": []}, "options-type"),
        ("/api/chat", {"options": "num_gpu"}, "options-type"),
        ("/api/chat", {"options": 1}, "options-type"),
        ("/api/chat", {"options": False}, "options-type"),
        ("/api/chat", {"options": {"temperature": "1"}}, "option-type"),
        ("/api/chat", {"options": {"num_ctx": [1]}}, "option-type"),
        ("/api/chat", {"options": {"num_predict": True}}, "option-type"),
        ("/api/chat", {"options": {"stop": "a"}}, "option-type"),
        ("/api/chat", {"options": {"stop": [1]}}, "option-type"),
        ("/api/chat", {"options": {"seed": 9007199254740993}}, "option-type"),
        ("/api/chat", {"options": {"NUM_GPU": 1}}, "key-spelling"),
        ("/api/chat", {"options": {"temperature": 1, "Temperature": 2}}, "key-spelling"),
        ("/api/chat", {"options": {"num_\u212aeep": 1}}, "key-spelling"),
        ("/v1/chat/completions", {"stream_options": [True]}, "stream_options-type"),
        ("/v1/chat/completions", {"stream_options": {"Include_Usage": False}}, "key-spelling"),
        ("/v1/chat/completions", {"max_tokens": "5"}, "number-type"),
        ("/v1/chat/completions", {"max_completion_tokens": {}}, "number-type"),
        ("/v1/chat/completions", {"seed": 9007199254740993}, "number-type"),
        ("/v1/chat/completions", {"seed": -9007199254740993}, "number-type"),
        ("/v1/responses", {"max_output_tokens": [5]}, "number-type"),
        ("/v1/messages", {"max_tokens": True}, "number-type"),
    ],
    ids=lambda value: str(value)[:50],
)
def test_what_has_the_wrong_type_or_spelling_is_refused(path: str, body: dict[str, Any], reason: str, bench: Bench):
    verdict = judge(bench, body, path, ANYTHING)
    assert (verdict.get("status"), verdict.get("reason")) == (400, reason)


def test_the_largest_exact_seed_goes_on_as_it_came(bench: Bench):
    for seed in (9007199254740991, -9007199254740991):
        assert f'"seed":{seed}' in judge(bench, {"seed": seed}, "/v1/chat/completions")["body"]
        assert f'"seed":{seed}' in judge(bench, {"options": {"seed": seed}})["body"]


@pytest.mark.parametrize("number", ["1e400", "-1e400", "1e0309", "1E+9999", "9" * 309, "9" * 500, "9" * 5000])
@pytest.mark.parametrize("place", ['"options":{"num_predict":%s}', '"messages":[{"a":[%s]}]', '"unknown":%s'])
def test_a_number_that_would_become_null_is_refused(number: str, place: str, bench: Bench):
    verdict = judge(bench, '{"model":"tiny",' + place.replace("%s", number) + "}")
    assert (verdict.get("status"), verdict.get("reason")) == (400, "number-size")


def test_numbers_that_a_decoder_keeps_go_on(bench: Bench):
    numbers = "[1e308,1.7976931348623157e308,1e-400,0.30000000000000004,-0.0,123456,1e5]"
    text = '{"model":"tiny","messages":["1e400 \\" 1e400 \\\\","1e999"],"format":' + numbers + "}"
    sent = kept(bench, text)
    assert sent["format"] == [1e308, 1.7976931348623157e308, 0, 0.30000000000000004, 0, 123456, 1e5]
    assert sent["messages"] == ['1e400 " 1e400 \\', "1e999"]


def test_depth_has_a_limit_of_its_own_and_brackets_in_strings_do_not_count(bench: Bench):
    def nested(depth: int) -> str:
        return '{"model":"tiny","messages":' + "[" * depth + "]" * depth + "}"

    assert judge(bench, nested(63))["model"] == "tiny"
    assert judge(bench, nested(64))["reason"] == "too-deep"
    assert kept(bench, {"messages": ["[{" * 500 + '"\\' + "[" * 500]})["messages"][0].count("[") == 1000


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/api/generate", {"images": [URL]}),
        ("/api/chat", {"messages": [{"role": "user", "images": ["iVBO", URL]}]}),
        ("/api/chat", {"messages": [{"role": "user", "Images": [" " + URL.upper()]}]}),
        ("/api/chat", {"messages": [{"role": "user", "images": ["file:///etc/passwd"]}]}),
        ("/v1/chat/completions", {"messages": [{"content": [{"type": "image_url", "image_url": {"url": URL}}]}]}),
        ("/v1/chat/completions", {"messages": [{"content": [{"type": "image_url", "image_url": URL}]}]}),
        ("/v1/chat/completions", {"messages": [{"Content": [{"image_url": {"url": "ftp://x"}}]}]}),
        ("/v1/responses", {"input": [{"content": [{"type": "input_image", "image_url": URL}]}]}),
        ("/v1/responses", {"input": [{"content": [{"type": "input_image", "IMAGE_URL": URL}]}]}),
        ("/v1/responses", {"input": [{"output": [{"type": "input_image", "image_url": URL}]}]}),
        ("/v1/responses", {"input": [{"content": [{"type": "input_file", "file_url": URL}]}]}),
        ("/v1/messages", {"messages": [{"content": [{"type": "image", "source": {"type": "url", "url": URL}}]}]}),
        ("/v1/messages", {"messages": [{"content": [{"content": [{"\u017fource": {"Url": URL}}]}]}]}),
    ],
)
def test_nothing_is_fetched_for_an_image(path: str, body: dict[str, Any], bench: Bench):
    verdict = judge(bench, body, path, ANYTHING)
    assert (verdict.get("status"), verdict.get("reason")) == (400, "image-url")


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/api/generate", {"images": ["iVBORw0KGgo="]}),
        (
            "/api/chat",
            {"messages": [{"content": URL, "images": ["iVBO"]}, {"tool_calls": [{"arguments": {"url": URL}}]}]},
        ),
        ("/v1/chat/completions", {"messages": [{"content": [{"image_url": {"url": DATA}}, {"text": URL}]}]}),
        ("/v1/responses", {"input": URL}),
        ("/v1/responses", {"input": [{"content": [{"type": "input_image", "image_url": DATA}]}]}),
        ("/v1/messages", {"messages": [{"content": [{"source": {"type": "base64", "data": "iVBO"}}]}]}),
        ("/v1/messages", {"messages": [{"content": [{"type": "tool_use", "input": {"source": {"url": URL}}}]}]}),
    ],
)
def test_images_in_the_body_and_addresses_in_words_go_on(path: str, body: dict[str, Any], bench: Bench):
    sent = kept(bench, body, path)
    assert {key: sent[key] for key in body} == body


@pytest.mark.parametrize("path", ["/v1/responses", "/v1/messages"])
def test_tools_that_the_server_would_run_are_left_out(path: str, bench: Bench):
    own = {"type": "function", "name": "web_search"}
    searching = [{"type": "web_search"}, {"TYPE": "web_search_20250305", "name": "web_search"}, {"type": "web_fetch"}]
    assert kept(bench, {"tools": [*searching, own]}, path)["tools"] == [own]


@pytest.mark.parametrize(
    ("content", "arrives"),
    [
        (b"\xff", "\ufffd"),
        (b"\xc0\xaf", "\ufffd\ufffd"),
        (b"\xed\xa0\x80", "\ud800"),
        (b"\xf0\x9f\x98", "\ufffd\ufffd\ufffd"),
        (b"\xe0\x80\xa2", "\ufffd\ufffd\ufffd"),
        (b"\xf0\x80\x80\xa2", "\ufffd\ufffd\ufffd\ufffd"),
        (b"\xf8\x80\x80\x80\xa2", "\ufffd\ufffd\ufffd\ufffd\ufffd"),
        (b"\xf0\x9f\x98\x80", "\U0001f600"),
        (b"\\ud83d\\ude00", "\U0001f600"),
        (b"\\u0000", "\0"),
    ],
)
def test_broken_utf_8_goes_on_as_what_was_judged(content: bytes, arrives: str, bench: Bench):
    """njs reads U+FFFD for each broken byte, as Go does; a surrogate written in three bytes stays one, escaped."""
    bench.forget()
    body = b'{"model":"tiny","messages":[{"role":"user","content":"' + content + b'"}]}'
    assert bench.ask("POST", "/api/chat", key=KEYS["bob"], body=body).status == 200
    (heard,) = bench.heard()
    assert json.loads(heard["body"])["messages"][0]["content"] == arrives


def test_a_lone_surrogate_goes_on_as_the_escape_it_was(bench: Bench):
    bench.forget()
    body = b'{"model":"tiny","messages":[{"content":"\\ud800"}]}'
    assert bench.ask("POST", "/api/chat", key=KEYS["bob"], body=body).status == 200
    assert '"\\ud800"' in bench.heard()[-1]["body"]


@pytest.mark.parametrize("prefix", [b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff\x00"])
def test_a_body_in_another_encoding_is_not_json(prefix: bytes, bench: Bench):
    bench.forget()
    assert bench.ask("POST", "/api/chat", key=KEYS["bob"], body=prefix + b'{"model":"tiny"}').status == 400
    assert bench.heard() == []


def test_what_a_keyless_cli_sends_to_unload_does_not_unload(bench: Bench):
    bench.forget()
    for path in ("/api/generate", "/api/chat"):
        assert bench.ask("POST", path, key=KEYS["bob"], body={"model": "tiny", "keep_alive": 0}).status == 200
    bodies = [json.loads(row["body"]) for row in bench.heard()]
    assert bodies == [{"model": "tiny", "options": {"num_predict": 4096}}] * 2
