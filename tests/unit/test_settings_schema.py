"""The stack file's JSON schema says what the program says."""

import json
from typing import Any

import jsonschema
import pytest
import yaml

from fortress import paths, stack_file
from settings import PROJECT, ConfigRefused, load, schema
from tests.unit.conftest import Golden

USERS = {"alice": {"devices": ["laptop", {"name": "phone", "epoch": "2"}]}, "bob": None}
GOOD = {"users": USERS, "wireguard": {"endpoint": "vpn.example.com:51820"}}


def accepted(values: dict[str, Any]) -> tuple[bool, bool]:
    """(by the schema, by the program)"""
    config = {f"{PROJECT}:{key}": value for key, value in values.items()}
    by_schema = jsonschema.Draft202012Validator(schema.stack_file()).is_valid({"config": config})
    try:
        load("dev", config)
    except ConfigRefused:
        return by_schema, False
    return by_schema, True


def test_the_committed_schema_is_golden_and_made_from_the_types(golden: Golden) -> None:
    text = json.dumps(schema.stack_file(), indent=1) + "\n"
    golden.check("schema.json", text, folder=paths.CHECKOUT / "stacks")


def test_the_schema_is_one() -> None:
    jsonschema.Draft202012Validator.check_schema(schema.stack_file())


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"access": "wireguard"},
        {"access": ["wireguard"]},
        {"users": {"bob": {"limits": {"concurrent": 4}, "models": ["llama3.2:*"]}}},
        {"ollama": {"gpus": ["GPU-1"], "cpus": 2.5}},
        {"models": [{"name": "llama3.2:3b"}, {"name": "own", "source": "~/own.gguf"}]},
    ],
)
def test_what_the_program_takes_the_schema_takes(values: dict[str, Any]) -> None:
    assert accepted(GOOD | values) == (True, True)


@pytest.mark.parametrize(
    "values",
    [
        {"gatway": {}},
        {"gateway": {"body_limit": 3}},
        {"users": {"Bob": {}}},
        {"users": {"bob": {"device": ["x"]}}},
        {"users": {}},
        {"domain": "no dots; here"},
        {"access": "telnet"},
        {"protect": "sometimes"},
        {"ollama": {"memory_mb": 1}},
    ],
)
def test_what_the_program_refuses_by_its_form_the_schema_refuses(values: dict[str, Any]) -> None:
    assert accepted(GOOD | values) == (False, False)


def test_keys_of_other_namespaces_are_left_alone() -> None:
    config = {f"{PROJECT}:users": USERS, "pulumi:disable-default-providers": ["*"]}
    jsonschema.validate({"config": config}, schema.stack_file())


@pytest.mark.parametrize("file", sorted((paths.CHECKOUT / "examples").glob("*.yaml")), ids=lambda file: file.name)
def test_an_example_names_the_schema_and_follows_it(file: Any) -> None:
    assert file.read_text().startswith(stack_file.EDITORS), "copied to stacks/, it finds the schema beside it"
    jsonschema.validate(yaml.safe_load(file.read_text()), schema.stack_file())
