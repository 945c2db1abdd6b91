"""docker.Volume"""

from docker.errors import NotFound

from offline.plugins.docker.engine import client, is_ours, labels_of, rows, said
from offline.plugins.docker.naming import named
from offline.plugins.provider import UNKNOWN, Diff, Failed, Values, compare, known_only

PROPERTIES = ("name", "labels", "driver", "driverOpts")


class Volume:
    token = "docker:index/volume:Volume"  # noqa: S105

    def check(self, name: str, olds: Values, news: Values, seed: bytes) -> Values:
        known_only(news, PROPERTIES)
        return named(name, olds, news, seed)

    def diff(self, id_: str, old_inputs: Values, olds: Values, news: Values) -> Diff:
        return Diff(compare(old_inputs, news), replace=PROPERTIES)

    def create(self, name: str, inputs: Values, preview: bool) -> tuple[str, Values]:
        if preview:
            return "", inputs | {"mountpoint": UNKNOWN, "driver": inputs.get("driver", UNKNOWN)}
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
                engine.create_volume(
                    inputs["name"], inputs.get("driver", "local"), inputs.get("driverOpts"), labels_of(inputs)
                )
        found_again = self.read(inputs["name"], inputs, {})
        assert found_again is not None
        return inputs["name"], found_again[2]

    def read(self, id_: str, inputs: Values, props: Values) -> tuple[str, Values, Values] | None:
        with said(f"volume {id_}"):
            try:
                found = client().inspect_volume(id_)
            except NotFound:
                return None
        kept = {key: value for key, value in props.items() if key.startswith("__")}
        return (
            id_,
            inputs,
            kept
            | {
                "id": id_,
                "name": found["Name"],
                "driver": found["Driver"],
                "driverOpts": found.get("Options"),
                "labels": rows(found.get("Labels")),
                "mountpoint": found["Mountpoint"],
            },
        )

    def update(self, id_: str, old_inputs: Values, olds: Values, news: Values, preview: bool) -> Values:
        return olds | news

    def delete(self, id_: str, inputs: Values, props: Values) -> None:
        with said(f"volume {id_}"):
            try:
                client().remove_volume(id_)
            except NotFound:
                return
