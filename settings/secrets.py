"""Where the stack config holds secrets, and what is said of one in plain text."""

import types
import typing
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from pydantic import BaseModel, SecretStr

from settings.base import set_secret
from settings.load import PROJECT, ConfigRefused, plain
from settings.stack import StackSettings

ENCRYPTED = "(encrypted)"
"""What a secret value reads as, for whoever does not need it."""


def places(model: type[BaseModel] = StackSettings) -> Iterator[tuple[str, ...]]:
    """The path of every secret in the config: each SecretStr of the types in this folder."""
    for name, field in model.model_fields.items():
        for each in _types_in(field.annotation):
            if issubclass(each, SecretStr):
                yield (name,)
            elif issubclass(each, BaseModel):
                yield from ((name, *inner) for inner in places(each))


def _types_in(annotation: Any) -> Iterator[type]:
    if isinstance(annotation, type) and not isinstance(annotation, types.GenericAlias):
        yield annotation
    for inner in typing.get_args(annotation):
        yield from _types_in(inner)


def refuse_plain(config: Mapping[str, Any], held: Collection[str] = ()) -> None:
    """A secret in plain text is read by whoever reads the stack file, and stays in its history.

    config: full key -> value, as `load` takes it. held: the keys that Pulumi holds as secret: of those it has
    encrypted something, and says no longer what.
    Raises: ConfigRefused, which names the place and never the secret.
    """
    for path in places():
        key = f"{PROJECT}:{path[0]}"
        value = None if key in held else plain(config.get(key))
        for part in path[1:]:
            value = value.get(part) if isinstance(value, Mapping) else None
        if value is not None and value != ENCRYPTED:
            place = ".".join(path)
            raise ConfigRefused(
                f"{PROJECT}:{place}: is a secret in plain text; delete that line, run `{set_secret(place)}` for this "
                "stack (in the exports of `make env`), and have a new secret made if others have seen this one"
            )
