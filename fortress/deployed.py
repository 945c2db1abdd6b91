"""What a stack's state says is deployed, and the changes of a stack file that no `up` can make of it.

Pulumi would begin with either and fail at the end, each time again: they are refused before anything changes.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from docker import DockerClient

from fortress import ssh
from fortress.errors import Stop
from settings import PROJECT, Form, StackSettings

PROVIDER, CONTAINER = "pulumi:providers:docker", "docker:index/container:Container"
NETWORK, VOLUME = "docker:index/network:Network", "docker:index/volume:Volume"
LINES = {"loki": "`observability: full`", "prometheus": "`observability: full`", "login": "`browser.provider`"}

Resource = Mapping[str, Any]


def refuse_another_engine(config: StackSettings, resources: Sequence[Resource], there: DockerClient) -> None:
    """Refuse another engine than that of the containers; the same one at another address, reached alike, may pass.

    The Docker provider is updated in place: its containers count as unchanged, and what runs in them is not there.
    """
    wanted = ssh.docker_host(config.host)
    before = {str(each.get("inputs", {}).get("host")) for each in resources if each["type"] == PROVIDER} - {wanted}
    networks = {str(each["id"]) for each in resources if each["type"] == NETWORK}
    if not before or not networks:
        return
    alike = {address.partition("://")[0] for address in before} == {wanted.partition("://")[0]}
    if alike and networks & {network.id for network in there.networks.list()}:
        return
    raise Stop(
        f"the containers of stack {config.stack!r} run on {', '.join(sorted(before))}, and {PROJECT}:host names "
        f"{wanted}: a stack does not move. Write {PROJECT}:host as it was and run `make down STACK={config.stack}`, "
        f"then change it and run `make up STACK={config.stack}`. Models, audit trail and keys go with `down`: users "
        "need new bundles"
    )


def guarded(config: StackSettings) -> set[str]:
    """The parts with a volume that `protect` guards, as the settings have them."""
    login = {"login"} if config.login else set[str]()
    watching = {"loki", "prometheus"} if config.observability.form is Form.FULL else set[str]()
    return {"audit", "state", "tunnel", "models"} | login | watching


def refuse_to_drop(config: StackSettings, resources: Sequence[Resource]) -> None:
    """Refuse a change that deletes a guarded volume: only a resource that is still declared can be unprotected."""
    held = {
        _component(each): str(each["inputs"]["name"])
        for each in resources
        if each["type"] == VOLUME and each.get("protect") and not each.get("delete")
    }
    gone = sorted(set(held) - guarded(config))
    if not gone:
        return
    lines = sorted({LINES.get(part, "lines") for part in gone})
    volumes = ", ".join(held[part] for part in gone)
    raise Stop(
        f"without {' and '.join(lines)} this would delete what is protected: {volumes}. To keep it, write that back. "
        f"To lose it, write that back with `{PROJECT}:protect: false` and run `make up STACK={config.stack}`, then "
        f"take it out and run `make up STACK={config.stack}` again; from there `protect` may be on again"
    )


def _component(resource: Resource) -> str:
    labels = {str(each["label"]): str(each["value"]) for each in resource["inputs"].get("labels", ())}
    return labels.get("fortress.component", "")
