"""The Docker networks of a fortress. Internal ones give the host no address or route; the others are a way out."""

from dataclasses import dataclass

import pulumi
import pulumi_docker as docker
from pulumi import ResourceOptions

from components.host import Host
from components.names import Names
from settings import Subnet


@dataclass(frozen=True, kw_only=True)
class NetworksArgs:
    host: Host
    names: Names
    wan: Subnet
    edge: Subnet
    model: Subnet
    heart: Subnet
    login: Subnet | None
    """The way out of the login service, where a provider is configured."""
    watch: Subnet | None
    """Where the gateway's figures are asked for, with `observability: lite` or `full`."""
    telemetry: Subnet | None
    """Between the parts of `observability: full`."""
    notify: Subnet | None
    """The way out of Alertmanager, where somebody is told."""
    storage: Subnet | None
    """The way out of Loki, where an object store is configured."""


class Networks(pulumi.ComponentResource):
    """wan, edge, model and heart; the others where there is somebody on them."""

    wan: docker.Network
    edge: docker.Network
    model: docker.Network
    heart: docker.Network
    login: docker.Network | None
    watch: docker.Network | None
    telemetry: docker.Network | None
    notify: docker.Network | None
    storage: docker.Network | None

    def __init__(self, name: str, args: NetworksArgs, opts: ResourceOptions | None = None) -> None:
        super().__init__("fortress:index:Networks", name, {}, opts)
        self.args = args
        self.wan = self._network(name, args.wan, internal=False)
        self.edge = self._network(name, args.edge, internal=True)
        self.model = self._network(name, args.model, internal=True)
        self.heart = self._network(name, args.heart, internal=True)
        self.login = self._optional(name, args.login, internal=False)
        self.watch = self._optional(name, args.watch, internal=True)
        self.telemetry = self._optional(name, args.telemetry, internal=True)
        self.notify = self._optional(name, args.notify, internal=False)
        self.storage = self._optional(name, args.storage, internal=False)
        self.register_outputs({})

    def _optional(self, name: str, subnet: Subnet | None, *, internal: bool) -> docker.Network | None:
        return None if subnet is None else self._network(name, subnet, internal=internal)

    def _network(self, name: str, subnet: Subnet, *, internal: bool) -> docker.Network:
        return docker.Network(
            f"{name}-{subnet.name}",
            name=self.args.names.of(subnet.name),
            internal=internal,
            ipam_configs=[docker.NetworkIpamConfigArgs(subnet=str(subnet.cidr))],
            # Without an address in the network the host itself cannot reach a container in it.
            options={"com.docker.network.bridge.inhibit_ipv4": "true"} if internal else None,
            labels=self.args.names.network_labels(subnet.name),
            opts=ResourceOptions(parent=self, provider=self.args.host.provider, delete_before_replace=True),
        )
