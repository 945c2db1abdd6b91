"""A schema that holds up everybody's answers, or brings llama-server down, does not pass; what people write does."""

import json
from typing import Any

import pytest

from tests.unit.gateway.harness import Bench
from tests.unit.gateway.test_bodies import judge, kept

TEXT = {"type": "string"}
ITSELF = {"$ref": "#/$defs/a"}


def entry(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties}


def text(pattern: str) -> dict[str, Any]:
    return {"type": "string", "pattern": pattern}


def lists(ways: int, levels: int) -> dict[str, Any]:
    """Lists of lists, in so many ways at each level that begin alike."""
    levels_ = {
        f"l{level}": {
            "anyOf": [
                {
                    "type": "array",
                    "items": {"$ref": f"#/$defs/l{level + 1}"} if level + 1 < levels else TEXT,
                    "maxItems": n,
                }
                for n in range(1, ways + 1)
            ]
        }
        for level in range(levels)
    }
    return {"$ref": "#/$defs/l0", "$defs": levels_}


def twice(levels: int) -> dict[str, Any]:
    inner: dict[str, Any] = TEXT
    for _ in range(levels):
        inner = {"type": ["object", "object"], "properties": {"a": inner}}
    return inner


# Found by trying llama-server as Ollama 0.32.15 starts it; the variants beside them follow from its ways.
REFUSED = {
    "brings it down: a part that refers to itself": ({"allOf": [ITSELF, TEXT], "$defs": {"a": ITSELF}}, "schema-parts"),
    "below a name that is a map": (
        {"properties": {"x": {"$ref": "#/properties"}, "allOf": [{"$ref": "#/properties"}, TEXT]}},
        "schema-parts",
    ),
    "parts within a part": ({"allOf": [{"allOf": [ITSELF, ITSELF]}], "$defs": {"a": TEXT}}, "schema-parts"),
    "many parts": ({"allOf": [{"anyOf": [entry(**{f"k{n}": TEXT}) for n in range(90)]}, TEXT]}, "schema-parts"),
    "two kinds of lists of itself": (
        {**ITSELF, "$defs": {"a": {"anyOf": [{"type": "array", "items": ITSELF, "maxItems": n} for n in (2, 3)]}}},
        "schema-loop",
    ),
    "itself and a list of itself, behind names": (
        {**ITSELF, "$defs": {"a": {"oneOf": [{"$ref": "#/$defs/b"}, {"$ref": "#/$defs/b"}]}, "b": entry(x=ITSELF)}},
        "schema-loop",
    ),
    "30 ways, three times": (lists(30, 3), "schema-size"),
    "the same type twice": (twice(3), "schema-type"),
    "counts around counts": (text("^((a?){100}){20}$"), "schema-size"),
    "counts behind marks": (text("^a?{9}{9}{9}{9}$"), "schema-size"),
    "a count with spaces": (text("^(a?){1, 1000}$"), "schema-size"),
    "many ways, many times": (text("^(" + "a|" * 60 + "a){1,50}$"), "schema-size"),
    "a pattern that is not read whole": (text("^" + "(a|b)" * 600 + "$"), "schema-text"),
    "a way out": ({"$ref": "https://evil.example/x"}, "schema-text"),
    "a name that may be read in two ways": ({"$ref": "#/$defs/a~1b", "$defs": {"a/b": TEXT}}, "schema-text"),
    "a name that is no text": ({"$ref": 5}, "schema-text"),
    "a long chain": (
        {"$ref": "#/a0"}
        | {f"a{n}": {"$ref": f"#/a{n + 1}"} for n in range(490)}
        | {"a490": {"$ref": "#/b0"}}
        | {"b0": {"x": [{"$ref": f"#/b0/x/{n}"} for n in range(1, 1400)]}},
        "schema-size",
    ),
    "very deep by what it refers to": (
        {"$ref": "#/x/0", "x": [{"anyOf": [[[{"$ref": f"#/x/{n}"}]]]} for n in range(1, 100)]},
        "schema-size",
    ),
    "a long enum": ({"enum": list(range(4100))}, "schema-size"),
    "a long choice": ({"anyOf": [{"const": n} for n in range(4100)]}, "schema-size"),
}

ALLOWED = {
    "an entry": entry(name=TEXT, age={"type": "integer", "minimum": 0}, tags={"type": "array", "items": TEXT}),
    "names that are keywords": entry(type=TEXT, Items=TEXT, allOf=TEXT, pattern=TEXT, anyOf=TEXT, properties=TEXT),
    "one that may be absent": {"anyOf": [ITSELF, {"type": "null"}], "$defs": {"a": entry(x=TEXT)}},
    "one of two": {"anyOf": [ITSELF, {"$ref": "#/$defs/b"}], "$defs": {"a": entry(x=TEXT), "b": entry(y=TEXT)}},
    "a chain": {**ITSELF, "$defs": {"a": entry(next={"anyOf": [ITSELF, {"type": "null"}]}, value=TEXT)}},
    "a tree": entry(name=TEXT, children={"type": "array", "items": {"$ref": "#/$defs/a"}}) | {"$defs": {"a": TEXT}},
    "itself": {**ITSELF, "$defs": {"a": ITSELF}},
    "any JSON": {
        **ITSELF,
        "$defs": {
            "a": {
                "anyOf": [
                    TEXT,
                    {"type": "number"},
                    {"type": "array", "items": ITSELF},
                    {"type": "object", "additionalProperties": ITSELF},
                ]
            }
        },
    },
    "one and the same in many places": entry(**{f"k{n}": ITSELF for n in range(300)}) | {"$defs": {"a": TEXT}},
    "types that differ": {"type": ["object", "null"], "properties": {"a": {"type": ["string", "null"]}}},
    "a date": text(r"^\d{4}-\d{2}-\d{2}$"),
    "an address": text(r"^([0-9]{1,3}\.){3}[0-9]{1,3}$"),
    "a uuid": text("^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$"),
    "deep": {"$ref": "#/x/0", "x": [{"anyOf": [[{"$ref": f"#/x/{n}"}]]} for n in range(1, 16)]},
    "braces that count nothing": text("^a?{x}{}$"),
    "a long text": text("^[a-z ]{1,1000}$"),
    "countries": {"enum": [f"country {n}" for n in range(250)], "default": "country 1"},
    "what is data is no schema": {"const": {"allOf": [1, 2], "Type": 5}, "examples": [{"$ref": "x~y"}]},
    "nothing": {},
    "odd, but harmless": {
        "anyOf": 5,
        "allOf": [7],
        "pattern": 5,
        "properties": None,
        "enum": "x",
        "$ref": "#/no/where",
    },
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_schema_that_is_felt_by_others_is_refused(name: str, bench: Bench):
    schema, reason = REFUSED[name]
    refusal = judge(bench, {"format": schema})
    assert (refusal.get("reason"), refusal.get("status") in (400, 413)) == (reason, True), refusal


@pytest.mark.parametrize("name", ALLOWED)
def test_a_schema_that_people_write_goes_on(name: str, bench: Bench):
    sent = kept(bench, {"format": ALLOWED[name]})["format"]
    assert {**sent, "allOf": 0} == {**ALLOWED[name], "allOf": 0}


def test_a_single_part_takes_the_place_of_its_whole(bench: Bench):
    """As pydantic before 2.9 wrote every field of a class that has a default."""
    schema = entry(x={"default": None, "allOf": [{"allOf": [ITSELF]}]}) | {"$defs": {"a": TEXT}}
    sent = kept(bench, {"format": schema})["format"]
    assert sent == entry(x={"default": None, **ITSELF}) | {"$defs": {"a": TEXT}}


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/api/generate", '{"format": %}'),
        ("/api/chat", '{"tools": [{}, {"Function": {"PARAMETERS": %}}]}'),
        ("/v1/chat/completions", '{"response_format": {"json_schema": {"schema": %}}}'),
        ("/v1/chat/completions", '{"response_format": {"json_schema": {"schema": {}, "\\u017fchema": %}}}'),
        ("/v1/chat/completions", '{"tools": [{"type": "function", "function": {"name": "f", "parameters": %}}]}'),
        ("/v1/responses", '{"text": {"format": {"schema": %}}}'),
        ("/v1/responses", '{"tools": [{"parameters": %}]}'),
        ("/v1/messages", '{"output_config": {"format": {"schema": %}}}'),
        ("/v1/messages", '{"tools": [{"input_schema": %}]}'),
    ],
)
def test_it_is_found_wherever_an_api_takes_one(path: str, body: str, bench: Bench):
    inner = json.dumps(twice(2))
    for schema in (inner, f'{{"Items": {inner}}}', f'{{"x": [{inner}]}}'):
        refusal = judge(bench, '{"model": "tiny", ' + body.replace("%", schema)[1:], path)
        assert refusal.get("reason") in ("schema-type", "key-spelling"), refusal


@pytest.mark.parametrize("value", ['"json"', "null", "5", "[1]", '""'])
def test_what_is_no_schema_is_left_to_ollama(value: str, bench: Bench):
    assert "body" in judge(bench, '{"model": "tiny", "format": ' + value + "}")


def test_many_tools_are_each_measured_by_themselves(bench: Bench):
    tool = {"function": {"name": "f", "parameters": entry(**{f"k{n}": TEXT for n in range(200)})}}
    assert "body" in judge(bench, {"tools": [tool] * 30})
