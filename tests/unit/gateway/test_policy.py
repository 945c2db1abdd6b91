"""The policy's functions decide; the engine that runs them here is the one that runs them in the gateway."""

import json
from typing import Any

import pytest

from tests.unit.gateway.harness import Bench

CHAT = {"path": "/api/chat", "class": "inference", "models": ["model"]}
COPY = {"path": "/api/copy", "class": "admin", "models": ["source", "destination"]}
CREATE = {"path": "/api/create", "class": "admin", "models": ["model", "name"]}
LIMITS = {"context_tokens": 4096, "answer_tokens": 1000}
ANYTHING = {"role": "admin", "models": ["*"], "num_ctx": None, "stack_ctx": 4096, "limits": LIMITS}
NARROW = {"role": "user", "models": ["tiny", "llama3.2:*"], "num_ctx": None, "stack_ctx": 4096, "limits": LIMITS}
DIGEST = "sha256:" + "a" * 64


def judge(bench: Bench, text: str, user: dict[str, Any] = NARROW, route: dict[str, Any] = CHAT) -> Any:
    return bench.call("judge", text, route, user)


def test_a_body_is_written_anew_from_what_was_judged(bench: Bench):
    verdict = judge(bench, '{"model": "other", "format": {"a": 1}, "model":"tiny", "tools": [1.5, null, "\\u00e9"]}')
    assert verdict["model"] == "tiny"
    body = json.loads(verdict["body"])
    assert body == {"model": "tiny", "format": {"a": 1}, "tools": [1.5, None, "é"], "options": {"num_predict": 1000}}
    assert verdict["body"].count("model") == 1


@pytest.mark.parametrize(
    ("text", "status", "reason"),
    [
        ("", 400, "not-json"),
        ("{", 400, "not-json"),
        ('{"model":"tiny"}{"model":"evil"}', 400, "not-json"),
        ('{"model":"tiny"} x', 400, "not-json"),
        ("{'model':'tiny'}", 400, "not-json"),
        ("[" * 200_000, 400, "too-deep"),
        ('{"model":"tiny","a":' + "[" * 200_000 + "]" * 200_000 + "}", 400, "too-deep"),
        ("null", 400, "not-an-object"),
        ("[]", 400, "not-an-object"),
        ('"tiny"', 400, "not-an-object"),
        ("{}", 400, "no-model"),
        ('{"model":""}', 400, "no-model"),
        ('{"model":null}', 400, "model-type"),
        ('{"model":["tiny"]}', 400, "model-type"),
        ('{"model":"tiny","Model":"evil"}', 400, "key-spelling"),
        ('{"MODEL":"tiny"}', 400, "key-spelling"),
        ('{"model":"tiny","\\u212aeep_alive":-1}', 400, "key-spelling"),
        ('{"model":"tiny","me\\u017f\\u017fages":[]}', 400, "key-spelling"),
        ('{"model":"tiny","x":1,"X":2}', 400, "key-spelling"),
        ('{"model":"../tiny"}', 400, "model-name"),
        ('{"model":"llama3.2:../x"}', 400, "model-name"),
        ('{"model":"tiny\\n"}', 400, "model-name"),
        ('{"model":" tiny"}', 400, "model-name"),
        ('{"model":"tiny:local"}', 400, "model-name"),
        ('{"model":"evil"}', 403, "model-not-granted"),
        ('{"model":"llama3"}', 403, "model-not-granted"),
        ('{"model":"x/tiny"}', 403, "model-not-granted"),
        ('{"model":"llama3.2://registry.ollama.ai/library/secret:latest"}', 400, "model-name"),
        ('{"model":"llama3.2:/library/secret"}', 400, "model-name"),
        ('{"model":"llama3.2:5000/library/secret"}', 403, "model-not-granted"),
        ('{"model":"tiny:cloud"}', 403, "leaves-this-host"),
        ('{"model":"llama3.2:120b-Cloud"}', 403, "leaves-this-host"),
        ('{"model":"llama3.2:a:CLOUD"}', 403, "leaves-this-host"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_body_that_could_be_read_in_two_ways_or_is_not_allowed_is_refused(
    text: str, status: int, reason: str, bench: Bench
):
    verdict = judge(bench, text)
    assert (verdict["status"], verdict["reason"]) == (status, reason)


@pytest.mark.parametrize(
    "name",
    ["tiny", "TINY", "tiny:latest", "library/tiny", "registry.ollama.ai/Library/tiny:latest", "library/llama3.2:3b",
     "llama3.2:3b", "llama3.2", "Llama3.2:3B"],
)  # fmt: skip
def test_names_are_matched_as_ollama_reads_them(name: str, bench: Bench):
    assert judge(bench, json.dumps({"model": name}))["model"] == name


@pytest.mark.parametrize(
    ("pattern", "name", "allowed"),
    [
        ("*", "anything:1b", True),
        ("a*", "a", True),
        ("a*a", "a", False),
        ("a*b*c", "axxbyyc", True),
        ("a*b*c", "acb", False),
        ("*:1b", "x:1b", True),
        ("x.y", "xzy", False),
        ("x:latest", "x", True),
        ("x", "x:1b", False),
        ("aa*a", "aa", False),
        ("l*", "library/secret", False),
        ("l*", "library/llama", True),
        ("l*", "l/secret", False),
        ("*", "l/secret", True),
        ("hf.co/*", "hf.co/l/secret:1b", True),
        ("library/l*", "llama", True),
        ("registry.ollama.ai/x/y", "x/y:latest", True),
        ("x/y", "library/x/y", False),
        ("library/*", "tiny:1b", True),
        ("library/*", "hf.co/l/secret", False),
        ("registry.ollama.ai/library/*", "l/secret", False),
        ("*-coder", "qwen-coder:latest", True),
        ("*-coder", "qwen-coder:7b", False),
        ("hf.co/*-GGUF", "hf.co/x/y-GGUF:latest", True),
    ],
)
def test_a_star_stands_for_any_part_of_a_name(pattern: str, name: str, allowed: bool, bench: Bench):
    assert bench.call("mayUse", [pattern], name) is allowed


def test_what_loads_a_model_anew_or_keeps_it_is_for_admins(bench: Bench):
    text = '{"model":"tiny","keep_alive":-1,"shift":false}'
    assert set(json.loads(judge(bench, text)["body"])) == {"model", "options"}
    body = json.loads(judge(bench, text, ANYTHING)["body"])
    assert (body["keep_alive"], body["shift"]) == (-1, False)


def test_a_template_is_a_program_that_ollama_runs_and_for_admins(bench: Bench):
    text = '{"model":"tiny","prompt":"x","template":"{{range 9000000000000000000}}{{end}}"}'
    generate = {"path": "/api/generate", "models": ["model"]}
    assert "template" not in json.loads(judge(bench, text, NARROW, generate)["body"])
    assert "template" in json.loads(judge(bench, text, ANYTHING, generate)["body"])


def test_every_model_of_a_copy_is_judged(bench: Bench):
    assert judge(bench, '{"source":"tiny","destination":"llama3.2:mine"}', NARROW, COPY)["model"] == "tiny"
    verdict = judge(bench, '{"source":"tiny","destination":"evil"}', NARROW, COPY)
    assert verdict["reason"] == "model-not-granted"


@pytest.mark.parametrize(
    ("extra", "reason"),
    [
        ({"files": {"a.gguf": DIGEST}}, None),
        ({}, "create-files"),
        ({"files": {}}, "create-files"),
        ({"files": {"a.gguf": "../../x"}}, "create-files"),
        ({"files": {"a.gguf": DIGEST}, "from": "evil.example/x"}, "create-key"),
        ({"files": {"a.gguf": DIGEST}, "remote_host": "https://evil.example"}, "create-key"),
        ({"files": {"a.gguf": DIGEST}, "quantize": "q4_0"}, "create-key"),
    ],
)
def test_create_takes_uploaded_blobs_and_nothing_that_fetches(extra: dict[str, Any], reason: str | None, bench: Bench):
    verdict = judge(bench, json.dumps({"model": "mine", **extra}), ANYTHING, CREATE)
    assert verdict.get("reason") == reason


@pytest.mark.parametrize(
    ("header", "key"),
    [
        (None, None),
        ("", ""),
        ("Bearer ", ""),
        ("Bearer " + "a" * 64, "a" * 64),
        ("bearer " + "a" * 64, ""),
        ("Bearer  " + "a" * 64, ""),
        ("Bearer\t" + "a" * 64, ""),
        ("Bearer " + "A" * 64, "A" * 64),  # no key of ours: its hash says so
        ("Bearer " + "a" * 63, ""),
        ("Bearer " + "a" * 65, ""),
        ("Bearer x, Bearer " + "a" * 64, ""),
        ("Bearer " + "a" * 64 + "\n", ""),
        ("Basic " + "a" * 64, ""),
    ],
)
def test_a_key_is_one_bearer_of_64_characters(header: str | None, key: str | None, bench: Bench):
    assert bench.call("bearer", header) == key


def test_a_bucket_fills_at_its_rate_and_never_above_its_burst(bench: Bench):
    allowed, state, _ = bench.call("take", None, 60, 2, 1_000)
    assert allowed
    allowed, state, _ = bench.call("take", state, 60, 2, 1_000)
    assert allowed
    allowed, state, wait = bench.call("take", state, 60, 2, 1_000)
    assert (allowed, wait) == (False, 1)
    allowed, state, _ = bench.call("take", state, 60, 2, 2_000)
    assert allowed
    for expected in (True, True, False):
        allowed, state, _ = bench.call("take", state, 60, 2, 10_000_000)
        assert allowed is expected


def test_a_clock_that_goes_back_gives_nothing_and_takes_no_more_than_all(bench: Bench):
    _, state, _ = bench.call("take", None, 60, 1, 100_000)
    allowed, state, wait = bench.call("take", state, 60, 1, 1)
    assert (allowed, wait) == (False, 1)
    assert bench.call("take", state, 60, 1, 1_001)[0] is True


@pytest.mark.parametrize("per_minute", [1, 7, 13, 59, 1200, 6000])
@pytest.mark.parametrize("burst", [1, 3, 50])
def test_a_full_bucket_holds_its_burst_to_the_last_token(per_minute: int, burst: int, bench: Bench):
    now, state = 1_795_651_200_123, None
    for expected in (*[True] * burst, False):
        allowed, state, _ = bench.call("take", state, per_minute, burst, now)
        assert allowed is expected


KNOWN = {"domain": "fortress.example", "tunnel_addresses": ["10.66.0.1", "fd66::1"]}
KEYLESS = {"user": "alice", "proof": "address"}


@pytest.mark.parametrize(
    ("origin", "site", "refused"),
    [
        (None, None, False),
        ("https://fortress.example", "same-origin", False),
        ("https://10.66.0.1", None, False),
        ("https://[fd66::1]", None, False),
        (None, "none", False),
        ("null", None, True),
        ("https://evil.example", None, True),
        ("http://fortress.example", None, True),
        ("https://fortress.example.evil.example", None, True),
        (None, "cross-site", True),
        (None, "same-site", True),
    ],
)
def test_a_foreign_page_is_refused_where_the_tunnel_proves_the_caller(
    origin: str | None, site: str | None, refused: bool, bench: Bench
):
    assert (bench.call("crossSite", KEYLESS, KNOWN, origin, site) is not None) is refused
    assert bench.call("crossSite", {"user": "alice", "proof": "key"}, KNOWN, origin, site) is None


@pytest.mark.parametrize("proof", ["address", "session"])
def test_the_browsers_page_is_the_only_one_that_acts_on_its_own_address(proof: str, bench: Bench):
    page, caller = "chat.fortress.example:8443", {"user": "alice", "proof": proof}
    assert bench.call("crossSite", caller, KNOWN, f"https://{page}", "same-origin", page) is None
    for other in ("https://fortress.example", "https://chat.fortress.example", "https://10.66.0.1"):
        assert bench.call("crossSite", caller, KNOWN, other, None, page)["reason"] == "cross-site"


@pytest.mark.parametrize(
    ("path", "raw", "found"),
    [
        ("/api/chat", "/api/chat", True),
        ("/api/chat", "/api/chat?x=1", True),
        ("/api/chat", "/api/../api/chat", False),
        ("/api/chat", "/api/%63hat", False),
        ("/v1/models/tiny", "/v1/models/tiny", True),
        ("/v1/models/a/b", "/v1/models/a%2Fb", True),
        ("/v1/models/tiny", "/v1/models/x/../tiny", False),
        ("/v1/models/%zz", "/v1/models/%zz", False),
    ],
)
def test_only_the_plain_spelling_of_a_path_is_that_path(path: str, raw: str, found: bool, bench: Bench):
    rows = [{"path": "/api/chat"}, {"path": "/v1/models/", "tail": "model"}]
    assert (bench.call("routeOf", rows, path, raw) is not None) is found
