"""The one place where a named volume is made."""

import pulumi
import pulumi_docker as docker
from pulumi import ResourceOptions

from components.host import Host
from components.names import Names


def volume(
    name: str, part: str, *, host: Host, names: Names, parent: pulumi.Resource, protect: bool = False
) -> docker.Volume:
    """part: what is in it, as its name on the host says it."""
    return docker.Volume(
        name,
        name=names.of(part),
        labels=names.volume_labels(part),
        opts=ResourceOptions(parent=parent, provider=host.provider, protect=protect),
    )
