"""docker.Volume"""

from typing import Any

from docker.errors import NotFound

from offline.plugins import schema
from offline.plugins.docker.engine import LABELS, client, is_ours, labels_of, rows, said
from offline.plugins.docker.naming import named
from offline.plugins.provider import UNKNOWN, Diff, Failed, Values
from offline.plugins.schema import Field

META = '{"schema_version":"1"}'
FIELDS = {
    "cluster": Field("one", taken=False),
    "driver": Field(preview=UNKNOWN),
    "driverOpts": Field("map"),
    "labels": Field(LABELS.kind, LABELS.fields, made=[], preview=[]),
    "mountpoint": Field(preview=UNKNOWN, taken=False),
    "name": Field(),
}


class Volume:
    token = "docker:index/volume:Volume"  # noqa: S105

    def check(self, name: str, olds: Values, news: Values, seed: bytes) -> Values:
        return named(name, olds, schema.checked(FIELDS, news), seed)

    def diff(self, id_: str, old_inputs: Values, olds: Values, news: Values) -> Diff:
        return Diff(schema.difference(FIELDS, old_inputs, news, olds), replace=tuple(FIELDS))

    def create(self, name: str, inputs: Values, preview: bool) -> tuple[str, Values]:
        if preview:
            return "", schema.outputs(FIELDS, schema.without_marks(inputs), "preview") | {"id": UNKNOWN}
        engine = client()
        with said(f"volume {inputs['name']}"):
            try:
                found = engine.inspect_volume(inputs["name"])
            except NotFound:
                found = None
            # Data is never thrown away to make room for the same data: an own volume is taken over as it is.
            if found is not None and not is_ours(found.get("Labels"), inputs):
                raise Failed(f"a volume {inputs['name']} is there already and not this stack's; remove it or rename")
            if found is None:
                found = engine.create_volume(
                    inputs["name"], inputs.get("driver", "local"), inputs.get("driverOpts"), labels_of(inputs)
                )
            return inputs["name"], self._outputs(found, read=False)

    def _outputs(self, found: dict[str, Any], *, read: bool) -> Values:
        seen: Values = {
            "driver": found["Driver"],
            "driverOpts": found.get("Options") or None,
            "labels": rows(found.get("Labels")),
            "mountpoint": found["Mountpoint"],
            "name": found["Name"],
        }
        values = schema.outputs(FIELDS, seen, "read" if read else "made")
        delta = schema.raw_state_delta(FIELDS, values, made=not read)
        return values | {"id": found["Name"], "__meta": META, "__pulumi_raw_state_delta": delta}

    def read(self, id_: str, inputs: Values, props: Values) -> tuple[str, Values, Values] | None:
        with said(f"volume {id_}"):
            try:
                found = client().inspect_volume(id_)
            except NotFound:
                return None
        return id_, schema.without_empty_marks(inputs), self._outputs(found, read=True)

    def update(self, id_: str, old_inputs: Values, olds: Values, news: Values, preview: bool) -> Values:
        raise AssertionError("every property of a volume replaces it")

    def delete(self, id_: str, inputs: Values, props: Values) -> None:
        with said(f"volume {id_}"):
            try:
                client().remove_volume(id_)
            except NotFound:
                return
