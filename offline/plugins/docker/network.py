"""docker.Network"""

from docker.errors import NotFound
from docker.types import IPAMConfig, IPAMPool

from offline.plugins.docker.engine import client, is_ours, labels_of, rows, said
from offline.plugins.docker.naming import named
from offline.plugins.provider import UNKNOWN, Diff, Failed, Values, compare, known_only

PROPERTIES = ("name", "internal", "ipv6", "ipamConfigs", "ipamDriver", "options", "labels", "driver", "attachable")


class Network:
    token = "docker:index/network:Network"  # noqa: S105

    def check(self, name: str, olds: Values, news: Values, seed: bytes) -> Values:
        known_only(news, PROPERTIES)
        return {"ipamDriver": "default"} | named(name, olds, news, seed)

    def diff(self, id_: str, old_inputs: Values, olds: Values, news: Values) -> Diff:
        return Diff(compare(old_inputs, news), replace=PROPERTIES)

    def create(self, name: str, inputs: Values, preview: bool) -> tuple[str, Values]:
        if preview:
            return "", inputs | {"driver": inputs.get("driver", UNKNOWN), "scope": UNKNOWN}
        engine = client()
        with said(f"network {inputs['name']}"):
            for found in engine.networks(names=[inputs["name"]]):
                if found["Name"] != inputs["name"]:
                    continue
                if not is_ours(found.get("Labels"), inputs) or engine.inspect_network(found["Id"]).get("Containers"):
                    raise Failed(
                        f"a network {inputs['name']} is there already and not this stack's; remove it or rename"
                    )
                engine.remove_network(found["Id"])
            pools = [
                IPAMPool(subnet=pool.get("subnet"), gateway=pool.get("gateway"), iprange=pool.get("ipRange"))
                for pool in inputs.get("ipamConfigs") or []
            ]
            made = engine.create_network(
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
        found_again = self.read(made["Id"], inputs, {})
        assert found_again is not None
        return made["Id"], found_again[2]

    def read(self, id_: str, inputs: Values, props: Values) -> tuple[str, Values, Values] | None:
        with said(f"network {id_[:12]}"):
            try:
                found = client().inspect_network(id_)
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
                "attachable": found["Attachable"],
                "driver": found["Driver"],
                "ingress": found["Ingress"],
                "internal": found["Internal"],
                "ipamConfigs": [
                    {
                        "subnet": pool.get("Subnet", ""),
                        "gateway": pool.get("Gateway", ""),
                        "ipRange": pool.get("IPRange", ""),
                    }
                    for pool in found["IPAM"].get("Config") or []
                ],
                "ipamDriver": found["IPAM"]["Driver"],
                "ipv6": found["EnableIPv6"],
                "labels": rows(found.get("Labels")),
                "options": found.get("Options") or {},
                "scope": found["Scope"],
            },
        )

    def update(self, id_: str, old_inputs: Values, olds: Values, news: Values, preview: bool) -> Values:
        return olds | news

    def delete(self, id_: str, inputs: Values, props: Values) -> None:
        with said(f"network {props.get('name', id_)}"):
            try:
                client().remove_network(id_)
            except NotFound:
                return
