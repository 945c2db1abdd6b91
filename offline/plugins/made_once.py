"""What random and tls have in common: things that live in the state alone, made once and never looked up.

Their official plugins are built on Terraform's plugin framework: no defaults in the inputs, differences told by
property and not by element, and a note of the raw state beside the outputs.
"""

from collections.abc import Mapping
from typing import Any

from offline.plugins import schema
from offline.plugins.provider import UNKNOWN, Diff, Values
from offline.plugins.schema import Field


class MadeOnce:
    token = ""
    fields: Mapping[str, Field] = {}
    in_place: tuple[str, ...] = ()
    """Properties whose change makes nothing new."""
    schema_version = 0
    id_is_output = True

    def make(self, inputs: Values) -> tuple[str, Values]:
        """The id and the computed outputs of a new one."""
        raise AssertionError("each type makes its own")

    def check(self, name: str, olds: Values, news: Values, seed: bytes) -> Values:
        inputs = schema.without_marks(schema.checked(self.fields, news))
        self.refuse(inputs)
        return schema.marked(self.fields, inputs, unknown=True)

    def refuse(self, inputs: Values) -> None:
        """Raise Refused for what this plugin does not make."""

    def diff(self, id_: str, old_inputs: Values, olds: Values, news: Values) -> Diff:
        found = schema.difference(self.fields, old_inputs, news, olds)
        return Diff(found, replace=tuple(set(self.fields) - set(self.in_place)), by_element=False)

    def create(self, name: str, inputs: Values, preview: bool) -> tuple[str, Values]:
        if preview:
            values = self._values(inputs, "preview")
            return "", schema.marked(self.fields, values) | ({"id": UNKNOWN} if self.id_is_output else {})
        id_, made = self.make(inputs)
        return id_, self._outputs(id_, inputs | made)

    def _values(self, given: Values, phase: schema.Phase) -> Values:
        return _set(schema.outputs(self.fields, schema.without_marks(given), phase))

    def _outputs(self, id_: str, given: Values) -> Values:
        values = self._values(given, "made")
        return (
            schema.marked(self.fields, values)
            | ({"id": id_} if self.id_is_output else {})
            | ({"__meta": f'{{"schema_version":"{self.schema_version}"}}'} if self.schema_version else {})
            | {"__pulumi_raw_state_delta": schema.framework_delta(self.fields, values)}
        )

    def read(self, id_: str, inputs: Values, props: Values) -> tuple[str, Values, Values]:
        return id_, schema.marked(self.fields, schema.without_marks(inputs)), self._outputs(id_, props)

    def update(self, id_: str, old_inputs: Values, olds: Values, news: Values, preview: bool) -> Values:
        kept = {key: value for key, value in olds.items() if key not in self.in_place}
        return self._outputs(id_, kept | news)

    def delete(self, id_: str, inputs: Values, props: Values) -> None:
        """Nothing lives outside the state."""


def _set(value: Any) -> Any:
    """Without what is unset."""
    if isinstance(value, dict):
        return {key: _set(item) for key, item in value.items() if item is not None}
    return value
