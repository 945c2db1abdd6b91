"""Stack config in, StackSettings out; and what is said when it cannot be."""

import difflib
import json
import types
import typing
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

from settings.stack import StackSettings

PROJECT = "ollama-fortress"


class ConfigRefused(ValueError):
    """The config cannot be used; each line says where, what, and what to write instead."""


def load(stack: str, config: Mapping[str, Any]) -> StackSettings:
    """Read one stack's config.

    config: full key -> value as Pulumi hands it over (objects as JSON text) or as plain values; keys of other
    namespaces (docker:..., pulumi:...) are left alone.
    Raises: ConfigRefused, which never quotes a secret.
    """
    values: dict[str, Any] = {"stack": stack}
    for key, value in config.items():
        namespace, _, name = key.partition(":")
        if namespace == PROJECT:
            values[name] = plain(value)
    try:
        return StackSettings.model_validate(values)
    except ValidationError as error:
        raise ConfigRefused(explain(error)) from None


def plain(value: Any) -> Any:
    """Pulumi hands objects, numbers and booleans over as JSON text; words stay words."""
    if not isinstance(value, str):
        return value
    if value[:1] in "[{" or value in ("true", "false"):
        try:
            return json.loads(value)
        except json.JSONDecodeError:
            return value
    return value


def explain(error: ValidationError) -> str:
    lines: list[str] = []
    items = error.errors(include_url=False, include_input=False)
    for item in items:
        inner = (other["loc"][: len(item["loc"])] == item["loc"] for other in items if other is not item)
        if item["loc"] and any(inner):
            continue  # a refused element also makes its list "too short": only the cause is worth reading
        place = ".".join(str(part) for part in item["loc"])
        where = f"{PROJECT}:{place}" if place else "the stack config"
        if item["type"] == "extra_forbidden":
            key, parent = str(item["loc"][-1]), _fields_at(item["loc"][:-1])
            near = difflib.get_close_matches(key, parent, n=1, cutoff=0.5)
            hint = f"did you mean {near[0]!r}?" if near else f"known keys here: {', '.join(sorted(parent))}"
            lines.append(f"{where}: unknown key {key!r}; {hint}")
        elif item["type"] == "missing":
            lines.append(f"{where}: is missing; write it in the stack file")
        else:
            lines.append(f"{where}: {item['msg'].removeprefix('Value error, ')}")
    return "\n".join(lines)


def _fields_at(location: tuple[int | str, ...]) -> list[str]:
    """The keys known at a place of the config, for the hint at a misspelt one."""
    annotation: Any = StackSettings
    for part in location:
        model = _model_in(annotation)
        if model is not None and part in model.model_fields:
            annotation = model.model_fields[str(part)].annotation
        # an index or a user's name: the element type is still inside the same annotation
    model = _model_in(annotation)
    return [name for name in model.model_fields if name != "stack"] if model else []


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and not isinstance(annotation, types.GenericAlias):
        return annotation if issubclass(annotation, BaseModel) else None
    for inner in typing.get_args(annotation):
        found = _model_in(inner)
        if found is not None:
            return found
    return None
