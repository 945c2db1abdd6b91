"""Names and labels that scripts may rely on."""

from dataclasses import dataclass

import pulumi_docker as docker


@dataclass(frozen=True)
class Names:
    """The Docker names of one fortress; two fortresses in one program differ in `prefix`."""

    stack: str
    prefix: str

    def of(self, part: str) -> str:
        return f"{self.prefix}-{self.stack}-{part}"

    def labels(self, component: str) -> dict[str, str]:
        return {"fortress.stack": self.stack, "fortress.component": component}

    def container_labels(self, component: str) -> list[docker.ContainerLabelArgs]:
        return [docker.ContainerLabelArgs(label=k, value=v) for k, v in self.labels(component).items()]

    def network_labels(self, component: str) -> list[docker.NetworkLabelArgs]:
        return [docker.NetworkLabelArgs(label=k, value=v) for k, v in self.labels(component).items()]

    def volume_labels(self, component: str) -> list[docker.VolumeLabelArgs]:
        return [docker.VolumeLabelArgs(label=k, value=v) for k, v in self.labels(component).items()]
