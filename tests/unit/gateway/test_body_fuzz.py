"""The body policy against Ollama's own decoder: what one of them reads, the other must not read otherwise.

The same cases each time, so that a merge never fails by chance. FORTRESS_FUZZ=<examples> draws new ones instead; an
example is a batch of some ten bodies.
"""

import json
import os
import re
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from render.principals import POLICY
from tests.unit.gateway.harness import Bench
from tests.unit.gateway.oracle import Oracle
from tests.unit.gateway.test_policy import ANYTHING, LIMITS, NARROW

ROUTES = {row["path"]: row for row in json.loads((POLICY / "routes.json").read_text())["routes"]}
TABLE = json.loads((POLICY / "keys.json").read_text())
OPTIONS = TABLE["options"]
PATHS = sorted(set(TABLE["routes"]) - {"/api/create", "/api/delete"})
EXAMPLES = int(os.environ.get("FORTRESS_FUZZ", "0"))

MODELS = [
    *["tiny"] * 12, "TINY", "llama3.2:1b", "evil", "x:cloud", "llama3.2:9b-Cloud", "tiny:local", "", "tiny\0",
    "library/tiny", "Registry.ollama.ai/library/llama3.2:1b", "library/evil", "llama3.2://registry.ollama.ai/library/evil:x",
    "llama3.2:/library/evil", "llama3.2:5000/library/evil", "registry.ollama.ai/tiny", "library/x/tiny",
]  # fmt: skip
NUMBERS = [
    "0", "-0", "1", "-1", "-2", "1.0", "1e3", "1E+3", "0.1", "4096", "4097", "99999", "1000.5", "2147483648",
    "9007199254740991", "9007199254740993", "-9007199254740993", "9223372036854775808", "1e18", "1e21", "1e308",
    "1e309", "1e400", "-1e400", "1e-400", "12345678901234567890123",
]  # fmt: skip
NO_NUMBERS = ["01", "1.", ".5", "0x10", "+1", "NaN", "Infinity", "-Infinity", "", "'a'", "{", "1,"]
WORDS = ["null", "true", "false", "[]", "{}", '""', '"5m"', '"0"', '["a"]', '[{"role":"user","content":"hi"}]']
BROKEN = [b"\xff", b"\xc0\xa2", b"\xed\xa0\x80", b"\xe0\x80\xa2", b"\xf0\x9f\x98", b"\\ud800", b"\\udc00", b"\\u0000"]
TOOLS = [
    b'[{"type":"web_search"}]',
    b'[{"TYPE":"web_search_20250305","name":"web_search"}]',
    b'[{"type":"x","type":"web_search"}]',
]
FOLDED = {"k": "\u212a", "s": "\u017f"}
OTHERS = ["keep_alive", "options", "model", "stream_options", "remote_host", "_debug_render_only", "x", "__proto__"]


def escaped(letter: str) -> bytes:
    return b"\\u%04x" % ord(letter)


@st.composite
def string(draw: st.DrawFn, text: str, *, variants: bool = True) -> bytes:
    """A JSON string that is `text`, or that some decoder could take for it."""
    letters = [json.dumps(letter)[1:-1].encode() for letter in text]
    how = draw(st.integers(0, 45 if variants else 40))
    if letters and how > 35:
        at = draw(st.integers(0, len(letters) - 1))
        if how <= 40:
            letters[at] = escaped(text[at])
        elif how == 41:
            letters = [text.upper().encode()]
        elif how == 42:
            letters = [text.title().encode()]
        elif how == 43:
            letters = [FOLDED.get(letter, letter).encode() for letter in text]
        elif how == 44:
            letters = [escaped(FOLDED.get(letter, letter)) for letter in text]
        else:
            letters.insert(at, draw(st.sampled_from(BROKEN)))
    return b'"' + b"".join(letters) + b'"'


@st.composite
def anything(draw: st.DrawFn) -> bytes:
    how = draw(st.integers(0, 9))
    if not draw(st.integers(0, 30)):
        return draw(st.sampled_from(NO_NUMBERS)).encode()
    if how < 5:
        return draw(st.sampled_from(NUMBERS)).encode()
    if how < 8:
        return draw(st.sampled_from(WORDS)).encode()
    if how < 9:
        return b'"' + draw(st.sampled_from(BROKEN)) + b'"'
    return draw(written([*OTHERS, "a"], depth=1))


@st.composite
def value(draw: st.DrawFn, key: str, depth: int) -> bytes:
    if draw(st.integers(0, 19)) == 0:
        return draw(anything())
    if key in ("model", "name", "source", "destination"):
        return draw(string(draw(st.sampled_from(MODELS)), variants=False))
    if key in ("options", "stream_options") and not depth:
        known = OPTIONS["sampling"] + OPTIONS["runner"] if key == "options" else TABLE["stream_options"]["keys"]
        return draw(written([*known, "num_ctx", "num_predict", "num_gpu", "x"], depth=1))
    if key == "tools":
        return draw(st.sampled_from(TOOLS))
    if key in ("messages", "input"):
        return b'[{"role":"user","content":"hi"}]'
    if key in OPTIONS["switches"] or key in ("stream", "raw", "truncate", "include_usage", "_debug_render_only"):
        return draw(st.sampled_from([b"true", b"false"]))
    if key in ("prompt", "system", "template", "suffix"):
        return b'"hi"'
    return draw(anything())


@st.composite
def written(draw: st.DrawFn, keys: list[str], depth: int = 0, first: tuple[str, ...] = ()) -> bytes:
    """An object as bytes: keys in any spelling, more than once, in any order."""
    names = [*first, *draw(st.lists(st.sampled_from(keys), max_size=4))]
    pairs = [draw(string(key)) + b":" + draw(value(key, depth)) for key in names]
    return b"{" + b",".join(draw(st.permutations(pairs))) + b"}"


@st.composite
def case(draw: st.DrawFn) -> tuple[str, bytes, dict[str, Any]]:
    path = draw(st.sampled_from(PATHS))
    row, models = TABLE["routes"][path], ROUTES[path]["models"]
    first = tuple(models) if draw(st.integers(0, 5)) else ()
    tools = ["tools"] * 8 if "tools" in row["keys"] else []
    body = draw(written([*row["keys"], *row["closed"], *OTHERS, *models, *tools], first=first))
    tail = draw(st.sampled_from([b""] * 30 + [b" ", b'{"model":"evil"}', b"x", b"\0"]))
    return path, body + tail, draw(st.sampled_from([NARROW, NARROW, ANYTHING]))


def may_use(user: dict[str, Any], asked: dict[str, str]) -> bool:
    """asked: a model as it is written, and the whole name that Ollama makes of it."""
    if re.search(r":((.*-)?cloud|local)$", asked["written"].lower()):
        return False
    library, _, name = asked["whole"].lower().rpartition("/")
    own = library == "registry.ollama.ai/library" and (name == "tiny:latest" or name.startswith("llama3.2:"))
    return user is ANYTHING or own


class Counts:
    cases = passed = obeyed = forbidden = 0


def check(path: str, user: dict[str, Any], was: dict[str, Any], verdict: dict[str, Any], sent: dict[str, Any]) -> None:
    """was: what Ollama would obey of the client's bytes; sent: what it obeys of what the gateway passes on."""
    named = [model for model in was.get("models", []) if model["written"]]
    if not all(may_use(user, model) for model in named):
        Counts.forbidden += 1
        assert "body" not in verdict, "a forbidden model, as Ollama reads the client's bytes, passed"
    if "body" not in verdict or "refused" in sent:
        return
    Counts.obeyed += 1
    models = [model for model in sent["models"] if model["written"]]
    assert models[0]["written"] == verdict["model"]
    assert all(may_use(user, model) for model in models)
    assert not sent.get("debug")
    assert not sent.get("search")
    options = sent.get("options") or {}
    allowed = set(OPTIONS["sampling"])
    if user is NARROW:
        assert not sent.get("keep_alive")
    else:
        allowed |= set(OPTIONS["runner"])
    assert set(options) <= allowed
    assert options.get("num_ctx", 0) <= LIMITS["context_tokens"]
    assert options.get("repeat_last_n", 0) <= LIMITS["context_tokens"]
    if "answer" in TABLE["routes"][path]:
        assert 0 <= options["num_predict"] <= LIMITS["answer_tokens"]


@settings(
    max_examples=EXAMPLES or 300,
    derandomize=not EXAMPLES,
    database=None,
    suppress_health_check=list(HealthCheck),
)
@given(batch=st.lists(case(), min_size=8, max_size=16))
def _fuzz(bench: Bench, oracle: Oracle, batch: list[tuple[str, bytes, dict[str, Any]]]) -> None:
    verdicts = bench.judge_all([(body, ROUTES[path], user) for path, body, user in batch])
    passed = [verdict.get("body", "{}").encode() for verdict in verdicts]
    said = oracle.obeys(
        [(path, body) for path, body, _ in batch]
        + [(path, body) for (path, _, _), body in zip(batch, passed, strict=True)]
    )
    Counts.cases += len(batch)
    Counts.passed += sum("body" in verdict for verdict in verdicts)
    for at, (path, body, user) in enumerate(batch):
        try:
            check(path, user, said[at], verdicts[at], said[len(batch) + at])
        except (AssertionError, KeyError) as error:
            raise AssertionError(f"{path} {body!r} -> {verdicts[at]}: {error}") from error


def test_whatever_passes_is_obeyed_as_it_was_judged(bench: Bench, oracle: Oracle):
    _fuzz(bench, oracle)
    shown = {name: getattr(Counts, name) for name in ("cases", "passed", "obeyed", "forbidden")}
    print(shown)
    assert min(shown.values()) > Counts.cases / 20, f"too few of one kind to prove anything: {shown}"
