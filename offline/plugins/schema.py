"""What the plugin knows of a resource type, as data: a table of fields, and the five things done with every such table.

The tables say what the official plugin does (its recorded answers are the tests): which default Check writes, what an
unset property reads like in a preview, after Create and after Read, and how a value lies in the raw state.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from offline.plugins.provider import OWN_KEYS, UNKNOWN, Refused, Values, compare, secret

Kind = Literal["scalar", "map", "list", "set", "rows", "row set", "one"]
Phase = Literal["preview", "made", "read"]
ONLINE = "the registry-only plugin does not implement this property; use the online engine"
_NOTHING = (None, False, 0, "", [], {})


@dataclass(frozen=True)
class Field:
    """One property.

    kind: rows and `one` (a single nested object) have fields of their own; the order of a set means nothing.
    default: what Check writes into unset inputs.
    preview, made, read: what an unset property is in the outputs; read None: an empty list or map, else as made.
    raw: its name in the raw state, where that is no plain snake_case of it.
    taken: whether this plugin implements it; a value that asks for nothing is taken always.
    secret: whether the official plugin itself marks it, whatever the program says.
    """

    kind: Kind = "scalar"
    fields: Mapping[str, "Field"] = field(default_factory=dict)
    default: Any = None
    preview: Any = None
    made: Any = None
    read: Any = None
    raw: str = ""
    taken: bool = True
    secret: bool = False

    def unset(self, phase: Phase) -> Any:
        if phase == "preview":
            return self.preview
        if phase == "read" and self.made is None:
            if self.read is not None:
                return self.read
            return {"list": [], "set": [], "rows": [], "row set": [], "map": {}}.get(self.kind)
        return self.made


Fields = Mapping[str, Field]


def checked(fields: Fields, news: Values, path: str = "") -> Values:
    """The inputs with defaults, each object naming its own in `__defaults`; refuses by name what is not implemented."""
    found: Values = {}
    for key, value in news.items():
        if key in OWN_KEYS:
            continue
        known = fields.get(key)
        if known is None or (not known.taken and value not in _NOTHING):
            raise Refused(f"{path}{key}", ONLINE)
        if known.kind == "one" and isinstance(value, dict):
            value = checked(known.fields, value, f"{path}{key}.")
        if known.kind in ("rows", "row set") and isinstance(value, list):
            value = [
                checked(known.fields, row, f"{path}{key}[{index}].") if isinstance(row, dict) else row
                for index, row in enumerate(value)
            ]
        found[key] = value
    filled = {key: known.default for key, known in fields.items() if known.default is not None and key not in found}
    return found | filled | {"__defaults": sorted(filled)}


def without_marks(value: Any) -> Any:
    """The bare properties, without `__defaults` and the like."""
    if isinstance(value, dict):
        return {key: without_marks(item) for key, item in value.items() if key not in OWN_KEYS}
    return [without_marks(item) for item in value] if isinstance(value, list) else value


def without_empty_marks(value: Any) -> Any:
    """As Read hands inputs back: a `__defaults` that names nothing is left out."""
    if isinstance(value, dict):
        return {
            key: without_empty_marks(item) for key, item in value.items() if not (key == "__defaults" and item == [])
        }
    return [without_empty_marks(item) for item in value] if isinstance(value, list) else value


def difference(fields: Fields, old: Values, new: Values, state: Values) -> dict[str, str]:
    """Paths that differ in meaning: defaults count as given, the order of sets and unset against empty do not count.

    state: the old outputs; what was unset as an input but has a value there is updated, not added.
    """
    before, after = _meaning(fields, old), _meaning(fields, new)
    for key, known in fields.items():
        if known.kind in ("set", "row set") and _sorted(before.get(key)) == _sorted(after.get(key)):
            after[key] = before.get(key)
    found = compare(before, after)
    return {path: "update" if kind == "add" and state.get(path) is not None else kind for path, kind in found.items()}


def _meaning(fields: Fields, values: Values) -> Values:
    found: Values = {}
    for key, known in fields.items():
        value = values.get(key)
        value = known.default if value is None else value
        if known.kind == "one" and isinstance(value, dict):
            value = _meaning(known.fields, value)
        if known.kind in ("rows", "row set") and isinstance(value, list):
            value = [_meaning(known.fields, row) if isinstance(row, dict) else row for row in value]
        if value is not None and not (known.default is None and value in _NOTHING):
            found[key] = value
    return found


def _sorted(value: Any) -> Any:
    if isinstance(value, list):
        return sorted((_sorted(item) for item in value), key=lambda item: json.dumps(item, sort_keys=True))
    return {key: _sorted(item) for key, item in value.items()} if isinstance(value, dict) else value


def outputs(fields: Fields, given: Values, phase: Phase, olds: Values | None = None) -> Values:
    """Every property of the type: as given, else as it was (`olds`), else what an unset one is in this phase."""
    found: Values = {}
    for key, known in fields.items():
        value = given.get(key)
        if value is None:
            value = (olds or {}).get(key)
        if value is None:
            found[key] = known.unset(phase)
        elif known.kind == "one" and isinstance(value, dict):
            found[key] = outputs(known.fields, value, phase)
        elif known.kind in ("rows", "row set") and isinstance(value, list):
            rows = [outputs(known.fields, row, phase) if isinstance(row, dict) else row for row in value]
            found[key] = rows if known.kind == "rows" else sorted(rows, key=lambda row: json.dumps(row, sort_keys=True))
        else:
            found[key] = value
    return found


def raw_state_delta(fields: Fields, values: Values, *, made: bool) -> Values:
    """The official plugin's note on how to turn these outputs back into its raw state; without it, it has to guess."""
    parts: Values = {}
    for key, known in fields.items():
        value = values.get(key)
        if known.kind == "one":
            if value is not None:
                parts[key] = {"plu": {"i": raw_state_delta(known.fields, value, made=made)}}
            elif not (made and known.preview == UNKNOWN):
                parts[key] = {"plu": {"i": {}}}
        elif value is None or known.kind == "scalar":
            continue
        elif known.kind == "map":
            parts[key] = {"map": {}}
        elif known.kind in ("rows", "row set") and value:
            rows = {str(index): raw_state_delta(known.fields, row, made=made) for index, row in enumerate(value)}
            parts[key] = {"arr": {"el": rows}}
        else:
            parts[key] = {"arr": {}}
    renamed = {key: known.raw for key, known in fields.items() if known.raw}
    return {"obj": ({"ps": parts} if parts else {}) | ({"renamed": renamed} if renamed else {})}


def marked(fields: Fields, values: Values, *, unknown: bool = False) -> Values:
    """The same values with the table's secrets marked; unknown ones too where `unknown` (inputs, not outputs)."""
    secrets = {key for key, known in fields.items() if known.secret}
    return {
        key: secret(value) if key in secrets and (unknown or value != UNKNOWN) else value
        for key, value in values.items()
    }


def framework_delta(fields: Fields, values: Values) -> Values:
    """The same note as `raw_state_delta`, by the plugins built on Terraform's newer framework: each unset property of
    the type is in it, as a secret null.
    """
    parts: Values = {}
    for key, known in sorted(fields.items()):
        value = values.get(key)
        if value is None:
            parts[key] = secret({"replace": {"raw": None}})
        elif known.kind == "one":
            parts[key] = {"plu": {"i": framework_delta(known.fields, value)}}
        elif known.kind == "map":
            parts[key] = {"map": {}}
        elif known.kind != "scalar":
            parts[key] = {"arr": {}}
    renamed = {key: known.raw for key, known in fields.items() if known.raw}
    return {"obj": ({"ps": parts} if parts else {}) | ({"renamed": renamed} if renamed else {})}
