"""What a stack's state says is deployed: the changes that no `up` can make of it, and what a killed one left beside it.

Pulumi would begin with such a change and fail at the end, each time again: it is refused before anything changes.
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
        f"need new bundles. Where that engine is gone for good, `pulumi stack rm --force --preserve-config --stack "
        f"{config.stack}` forgets it"
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


def remove_half_made(deployment: Mapping[str, Any], there: DockerClient) -> None:
    """Remove what a killed run made and no state knows: Docker's own plugin would find its name in use for ever.

    Only what has both name and labels of something that was being made when the run was killed.
    """
    known = {str(each["id"]) for each in deployment.get("resources") or [] if each.get("id")}
    for operation in deployment.get("pending_operations") or []:
        resource, labels = operation["resource"], _labels(operation["resource"])
        if operation["type"] != "creating" or not labels.get("fortress.stack") or not labels.get("fortress.component"):
            continue
        name = resource["inputs"]["name"]
        filters: dict[str, str | list[str] | bool] = {"label": [f"{key}={value}" for key, value in labels.items()]}
        if resource["type"] == CONTAINER:
            for container in there.containers.list(all=True, filters=filters):
                if container.name == name and container.id not in known:
                    container.remove(force=True)
        elif resource["type"] == NETWORK:
            for network in there.networks.list(filters=filters):
                if network.name == name and network.id not in known:
                    network.remove()


def _component(resource: Resource) -> str:
    return _labels(resource).get("fortress.component", "")


def _labels(resource: Resource) -> dict[str, str]:
    return {str(each["label"]): str(each["value"]) for each in resource["inputs"].get("labels", ())}
