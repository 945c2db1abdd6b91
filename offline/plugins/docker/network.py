"""docker.Network"""

from typing import Any

from docker.errors import NotFound
from docker.types import IPAMConfig, IPAMPool

from offline.plugins import schema
from offline.plugins.docker.engine import LABELS, client, is_ours, labels_of, rows, said
from offline.plugins.docker.naming import named
from offline.plugins.provider import UNKNOWN, Diff, Failed, Values
from offline.plugins.schema import Field

META = '{"schema_version":"1"}'
POOL = {
    "auxAddress": Field("map", taken=False),
    "gateway": Field(made="", preview=""),
    "ipRange": Field(made="", preview=""),
    "subnet": Field(made="", preview=""),
}
FIELDS = {
    "attachable": Field(made=False),
    "driver": Field(preview=UNKNOWN),
    "ingress": Field(made=False, taken=False),
    "internal": Field(preview=UNKNOWN),
    "ipamConfigs": Field("row set", POOL, preview=UNKNOWN, raw="ipam_config"),
    "ipamDriver": Field(default="default"),
    "ipamOptions": Field("map", taken=False),
    "ipv6": Field(made=False),
    "labels": Field(LABELS.kind, LABELS.fields, made=[], preview=[]),
    "name": Field(),
    "options": Field("map", preview=UNKNOWN),
    "scope": Field(preview=UNKNOWN, taken=False),
}


class Network:
    token = "docker:index/network:Network"  # noqa: S105

    def check(self, name: str, olds: Values, news: Values, seed: bytes) -> Values:
        return named(name, olds, schema.checked(FIELDS, news), seed)

    def diff(self, id_: str, old_inputs: Values, olds: Values, news: Values) -> Diff:
        return Diff(schema.difference(FIELDS, old_inputs, news, olds), replace=tuple(FIELDS))

    def create(self, name: str, inputs: Values, preview: bool) -> tuple[str, Values]:
        if preview:
            return "", schema.outputs(FIELDS, schema.without_marks(inputs), "preview") | {"id": UNKNOWN}
        with said(f"network {inputs['name']}"):
            id_ = self._left_behind(inputs) or self._create(inputs)
            return id_, self._outputs(client().inspect_network(id_), inputs, "made")

    def _create(self, inputs: Values) -> str:
        pools = [
            IPAMPool(subnet=pool.get("subnet"), gateway=pool.get("gateway"), iprange=pool.get("ipRange"))
            for pool in inputs.get("ipamConfigs") or []
        ]
        made = client().create_network(
            inputs["name"],
            driver=inputs.get("driver", "bridge"),
            options=inputs.get("options"),
            ipam=IPAMConfig(driver=inputs["ipamDriver"], pool_configs=pools) if pools else None,
            internal=bool(inputs.get("internal")),
            enable_ipv6=bool(inputs.get("ipv6")),
            labels=labels_of(inputs),
            attachable=inputs.get("attachable"),
            check_duplicate=True,
        )
        return str(made["Id"])

    def _left_behind(self, inputs: Values) -> str | None:
        """A network that an interrupted run of this stack made: taken over if it is the wanted one, else removed."""
        name = inputs["name"]
        for found in client().networks(names=[name]):
            if found["Name"] != name:
                continue
            whole = client().inspect_network(found["Id"])
            if not is_ours(whole.get("Labels"), inputs):
                raise Failed(f"a network {name} is there already and not this stack's; remove it or rename")
            if _as_wanted(whole, inputs):
                return str(found["Id"])
            users = sorted(each["Name"] for each in (whole.get("Containers") or {}).values())
            if users:
                raise Failed(
                    f"a network {name} of an interrupted run is in use by {', '.join(users)}; remove those first"
                )
            client().remove_network(found["Id"])
        return None

    def _outputs(self, found: dict[str, Any], inputs: Values, phase: schema.Phase) -> Values:
        # A pool that the engine chose itself is always one that was read.
        aux = None if inputs.get("ipamConfigs") else {}
        seen: Values = {
            "attachable": found["Attachable"],
            "driver": found["Driver"],
            "ingress": found["Ingress"],
            "internal": found["Internal"],
            "ipamConfigs": [
                {"subnet": pool.get("Subnet"), "gateway": pool.get("Gateway"), "ipRange": pool.get("IPRange")}
                | {"auxAddress": aux}
                for pool in found["IPAM"].get("Config") or []
            ],
            "ipamDriver": found["IPAM"]["Driver"],
            "ipv6": found["EnableIPv6"],
            "labels": rows(found.get("Labels")),
            "name": found["Name"],
            "options": found.get("Options") or {},
            "scope": found["Scope"],
        }
        values = schema.outputs(FIELDS, seen, phase)
        delta = schema.raw_state_delta(FIELDS, values, made=phase == "made")
        return values | {"id": found["Id"], "__meta": META, "__pulumi_raw_state_delta": delta}

    def read(self, id_: str, inputs: Values, props: Values) -> tuple[str, Values, Values] | None:
        with said(f"network {id_[:12]}"):
            try:
                found = client().inspect_network(id_)
            except NotFound:
                return None
        return id_, schema.without_empty_marks(inputs), self._outputs(found, inputs, "read")

    def update(self, id_: str, old_inputs: Values, olds: Values, news: Values, preview: bool) -> Values:
        raise AssertionError("every property of a network replaces it")

    def delete(self, id_: str, inputs: Values, props: Values) -> None:
        with said(f"network {props.get('name', id_)}"):
            try:
                client().remove_network(id_)
            except NotFound:
                return


def _as_wanted(found: dict[str, Any], inputs: Values) -> bool:
    """Whether a network that is there is what `_create` would make."""
    pools = {pool.get("Subnet") for pool in found["IPAM"].get("Config") or []}
    wanted = {pool.get("subnet") for pool in inputs.get("ipamConfigs") or []}
    plain = any(pool.get("gateway") or pool.get("ipRange") for pool in inputs.get("ipamConfigs") or [])
    return (
        (not wanted or pools == wanted)
        and not plain
        and bool(found["Internal"]) == bool(inputs.get("internal"))
        and bool(found["EnableIPv6"]) == bool(inputs.get("ipv6"))
        and found["Driver"] == inputs.get("driver", "bridge")
        and (found.get("Options") or {}) == (inputs.get("options") or {})
        and (found.get("Labels") or {}) == labels_of(inputs)
    )
