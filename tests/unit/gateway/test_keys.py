"""gateway/keys.json knows every key that the pinned Ollama would read."""

import json

from render.principals import POLICY
from tests.unit.gateway.oracle import Oracle

TABLE = json.loads((POLICY / "keys.json").read_text())
ROUTES = json.loads((POLICY / "routes.json").read_text())["routes"]


def test_the_table_knows_every_field_of_ollamas_request_structs(oracle: Oracle):
    read = oracle.keys()
    options = TABLE["options"]
    rows = [*TABLE["routes"].values(), TABLE["stream_options"]]
    known = {row["struct"]: [*row["keys"], *row.get("closed", [])] for row in rows}
    known[options["struct"]] = options["sampling"] + options["runner"]
    assert set(read) == set(known)
    for struct, fields in read.items():
        unknown = set(fields) - set(known[struct])
        assert not unknown, f"{struct} has {unknown}: read what it does, then add it to gateway/keys.json"


def test_what_is_not_in_the_pinned_ollama_is_named_as_such(oracle: Oracle):
    read = oracle.keys()
    options = TABLE["options"]
    rows = {row["struct"]: [*row["keys"], *row.get("closed", [])] for row in TABLE["routes"].values()}
    rows[options["struct"]] = options["sampling"] + options["runner"]
    foreign = {key for struct, keys in rows.items() for key in set(keys) - set(read[struct])}
    assert foreign == {
        "max_completion_tokens", "mirostat", "mirostat_tau", "mirostat_eta", "numa", "low_vram", "f16_kv", "num_gqa",
        "tfs_z", "penalize_newline",
    }  # fmt: skip


def test_every_route_with_a_judged_body_has_its_keys():
    judged = {row["path"]: row["models"] for row in ROUTES if "models" in row}
    assert set(judged) == set(TABLE["routes"])
    for path, models in judged.items():
        assert set(models) <= set(TABLE["routes"][path]["keys"])
