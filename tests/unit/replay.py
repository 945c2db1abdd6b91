"""Recorded calls of the official plugins, put to a plugin of this project through the frame that the engine speaks to.

A line of recorded/NAME.jsonl is one call: `method`, `request`, and the official plugin's `response`.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import json_format
from pulumi.runtime.proto import provider_pb2

from offline.plugins import provider
from offline.plugins.provider import UNKNOWN, to_struct, to_values

RECORDED = Path(__file__).with_name("recorded")
STRUCTS = {"news": "news", "olds": "olds", "oldInputs": "old_inputs", "inputs": "inputs", "properties": "properties"}


class Aborted(Exception):
    """How the frame ends a call that fails: what the user reads."""


class Context:
    def abort(self, code: grpc.StatusCode, details: str) -> None:
        raise Aborted(details)


class Replay:
    """A plugin and what the official one was seen to answer."""

    def __init__(self, name: str, *resources: Any, config_marks: dict[str, str] | None = None) -> None:
        self.calls = [json.loads(line) for line in (RECORDED / f"{name}.jsonl").read_text().splitlines()]
        self.resources = {each.token: each for each in resources}
        self._servicer = provider._Servicer("0", resources, None, config_marks or {})

    def params(self, *methods: str, preview: bool | None = None) -> list[Any]:
        return [
            pytest.param(call, id=f"{index}-{call['step']}-{call['request']['name']}")
            for index, call in enumerate(self.calls)
            if call["method"] in methods and (preview is None or bool(call["request"].get("preview")) == preview)
        ]

    def made(self, type_: str) -> Any:
        """The recorded creation of the first thing of a type."""
        calls = [each.values[0] for each in self.params("Create", preview=False)]
        return next(each for each in calls if each["request"]["type"].endswith(type_))

    def answer(self, method: str, request: dict[str, Any]) -> dict[str, Any]:
        """What our plugin answers to a recorded request, in the shape of a recorded response."""
        message = getattr(provider_pb2, f"{method.removesuffix('Config')}Request")(
            urn=f"urn:pulumi:s::p::{request['type']}::{request['name']}",
            **{STRUCTS[key]: to_struct(value) for key, value in request.items() if key in STRUCTS},
            **{key: request[key] for key in ("id", "preview") if key in request},
        )
        answer = getattr(self._servicer, method)(message, Context())
        return json_format.MessageToDict(answer)

    def verdict(self, request: dict[str, Any]) -> dict[str, Any]:
        return verdict(self.answer("Diff", request))


def verdict(answer: dict[str, Any]) -> dict[str, Any]:
    """A Diff's answer, however it was ordered and whatever it left out as empty."""
    return {
        "changes": answer["changes"],
        "replaces": sorted(answer.get("replaces", [])),
        "diffs": sorted(answer.get("diffs", [])),
        "deleteBeforeReplace": answer.get("deleteBeforeReplace", False),
        "hasDetailedDiff": answer.get("hasDetailedDiff", False),
        "detailedDiff": {path: part.get("kind", "ADD") for path, part in answer.get("detailedDiff", {}).items()},
    }


UNCHANGED = verdict({"changes": "DIFF_NONE"})


def bare(value: dict[str, Any]) -> dict[str, Any]:
    """The same without the marks of secrets."""
    return to_values(to_struct(value))


def shape(value: Any) -> Any:
    """Names, types and marks, without the values."""
    if value == UNKNOWN:
        return "unknown"
    if isinstance(value, dict):
        return {key: shape(item) for key, item in value.items()}
    if isinstance(value, list):
        return [shape(item) for item in value]
    return "number" if type(value) in (int, float) else type(value).__name__


def swapped(value: Any, swap: Callable[[str], Any]) -> Any:
    """The same with every text given to `swap`."""
    if isinstance(value, dict):
        return {key: swapped(item, swap) for key, item in value.items()}
    if isinstance(value, list):
        return [swapped(item, swap) for item in value]
    return swap(value) if isinstance(value, str) else value


def secrets_in(value: Any) -> list[str]:
    """Every text that is marked as a secret."""
    if isinstance(value, dict) and value.get(provider._SIGNATURE) == provider._SECRET:
        return [value["value"]] if isinstance(value["value"], str) else []
    parts = list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else []
    return [text for part in parts for text in secrets_in(part)]
