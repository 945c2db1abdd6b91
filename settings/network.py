"""The address plan: every Docker network and every fixed address of a stack, from one base."""

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network

NETWORKS = ("wan", "edge", "model", "heart", "watch", "telemetry", "pull", "login", "notify", "storage")
"""In the order in which they take their /24 from the base; append only, or every deployment's networks move."""

BASE_PREFIX = 20


@dataclass(frozen=True)
class Subnet:
    """One Docker network of the plan and the fixed addresses in it."""

    name: str
    cidr: IPv4Network

    def _host(self, number: int) -> IPv4Address:
        return self.cidr.network_address + number

    @property
    def vpn_node(self) -> IPv4Address:
        return self._host(2)

    @property
    def gateway(self) -> IPv4Address:
        return self._host(3)

    @property
    def sidecar(self) -> IPv4Address:
        return self._host(4)

    @property
    def ollama(self) -> IPv4Address:
        return self._host(5)

    @property
    def login(self) -> IPv4Address:
        return self._host(6)

    @property
    def collector(self) -> IPv4Address:
        return self._host(7)

    @property
    def loki(self) -> IPv4Address:
        return self._host(8)

    @property
    def prometheus(self) -> IPv4Address:
        return self._host(9)

    @property
    def alertmanager(self) -> IPv4Address:
        return self._host(10)

    @property
    def node_exporter(self) -> IPv4Address:
        return self._host(11)

    @property
    def grafana(self) -> IPv4Address:
        return self._host(12)


@dataclass(frozen=True)
class Plan:
    """wan: VpnNode. edge: VpnNode, Gateway, Login. model: Gateway, sidecar. heart: sidecar, Ollama. login: Login.

    watch: Gateway, Prometheus, Grafana. telemetry: collector, Loki, Prometheus, Alertmanager, exporter, Grafana.
    notify: Alertmanager. storage: Loki.
    """

    base: IPv4Network

    def subnet(self, name: str) -> Subnet:
        index = NETWORKS.index(name)
        start = int(self.base.network_address) + index * 256
        return Subnet(name, IPv4Network((start, 24)))

    @property
    def wan(self) -> Subnet:
        return self.subnet("wan")

    @property
    def edge(self) -> Subnet:
        return self.subnet("edge")

    @property
    def model(self) -> Subnet:
        return self.subnet("model")

    @property
    def heart(self) -> Subnet:
        return self.subnet("heart")

    @property
    def watch(self) -> Subnet:
        return self.subnet("watch")

    @property
    def telemetry(self) -> Subnet:
        return self.subnet("telemetry")

    @property
    def pull(self) -> Subnet:
        return self.subnet("pull")

    @property
    def login(self) -> Subnet:
        return self.subnet("login")

    @property
    def notify(self) -> Subnet:
        return self.subnet("notify")

    @property
    def storage(self) -> Subnet:
        return self.subnet("storage")
