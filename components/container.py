"""The one place where a container is made, so that none is softer than the others."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pulumi
import pulumi_docker as docker
from pulumi import Input, ResourceOptions

from components.host import Host, HostFiles
from components.names import Names
from settings import OllamaSettings


@dataclass(frozen=True)
class Attachment:
    """One network of a container and its fixed address there."""

    network: docker.Network
    address: str


@dataclass(frozen=True, kw_only=True)
class ContainerSpec:
    component: str
    image: str
    user: str
    networks: Sequence[Attachment]
    """Without any it has no network but its own loopback."""
    memory_mb: int
    groups: Sequence[str] = ()
    """Further groups, by number: of those who write what it reads."""
    command: Sequence[str] | None = None
    entrypoints: Sequence[str] | None = None
    envs: Mapping[str, str] = field(default_factory=dict)
    files: HostFiles | None = None
    volumes: Mapping[str, docker.Volume] = field(default_factory=dict)
    read_only_volumes: Mapping[str, docker.Volume] = field(default_factory=dict)
    tmpfs: Mapping[str, str] = field(default_factory=dict)
    pids: int = 64
    cpus: float | None = None
    gpus: str | None = None
    grace_s: int = 10
    health: Sequence[str] = ()
    health_interval: str = "5s"
    add_capabilities: Sequence[str] = ()
    """Everything is dropped; the VpnNode alone adds NET_ADMIN."""
    devices: Sequence[str] = ()
    sysctls: Mapping[str, str] = field(default_factory=dict)
    ports: Sequence[docker.ContainerPortArgs] = ()


def hardened(
    name: str, *, host: Host, names: Names, spec: ContainerSpec, opts: ResourceOptions
) -> tuple[docker.Container, pulumi.Resource]:
    """Create a container with a read-only root, no capability and fixed addresses, and cap its processes.

    Returns: the container, and the command that limits its processes: the Docker provider has no such property.
    """
    container = docker.Container(
        name,
        name=names.of(spec.component),
        image=spec.image,
        command=list(spec.command) if spec.command is not None else None,
        entrypoints=list(spec.entrypoints) if spec.entrypoints is not None else None,
        envs=[f"{key}={value}" for key, value in sorted(spec.envs.items())],
        labels=names.container_labels(spec.component),
        user=spec.user,
        group_adds=list(spec.groups) or None,
        read_only=True,
        capabilities=docker.ContainerCapabilitiesArgs(drops=["ALL"], adds=list(spec.add_capabilities)),
        security_opts=["no-new-privileges"],
        network_mode="bridge" if spec.networks else "none",
        networks_advanced=[
            docker.ContainerNetworksAdvancedArgs(name=each.network.name, ipv4_address=each.address)
            for each in spec.networks
        ],
        memory=spec.memory_mb,
        memory_swap=spec.memory_mb,  # equal: no swap; unset, the engine writes twice the memory and every plan differs
        cpus=None if spec.cpus is None else f"{spec.cpus:g}",
        gpus=spec.gpus,
        tmpfs=dict(spec.tmpfs) or None,
        volumes=_volumes(spec),
        devices=[docker.ContainerDeviceArgs(host_path=d, container_path=d, permissions="rwm") for d in spec.devices],
        sysctls=dict(spec.sysctls) or None,
        ports=list(spec.ports),
        healthcheck=_health(spec),
        wait=bool(spec.health),
        wait_timeout=120,
        restart="unless-stopped",
        must_run=True,
        destroy_grace_seconds=spec.grace_s,  # unset, a container is killed at once
        log_driver="json-file",
        log_opts={"max-size": "10m", "max-file": "3"},
        opts=ResourceOptions.merge(
            opts,
            ResourceOptions(
                provider=host.provider,
                depends_on=[spec.files.delivered] if spec.files else None,
                # The provider's update silently ignores these.
                replace_on_changes=["healthcheck", "tmpfs", "init"],
                delete_before_replace=True,
            ),
        ),
    )
    limited = host.command(
        f"{name}-pids",
        create=container.id.apply(lambda id_: f"docker update --pids-limit {spec.pids} {id_} >/dev/null\n"),
        opts=ResourceOptions.merge(opts, ResourceOptions(depends_on=[container])),
    )
    return container, limited


def gpus(ollama: OllamaSettings) -> str | None:
    """What Ollama is given of the host's GPUs, as the Docker provider has it; what watches them is given the same."""
    chosen = ollama.gpus
    if isinstance(chosen, str):
        return None if chosen == "none" else chosen
    return f"device={','.join(chosen)}"


def _volumes(spec: ContainerSpec) -> list[docker.ContainerVolumeArgs]:
    mounts: list[docker.ContainerVolumeArgs] = []
    if spec.files is not None:
        mounts.append(
            docker.ContainerVolumeArgs(host_path=spec.files.directory, container_path="/config", read_only=True)
        )
    volume_name: Input[str]
    for path, volume in spec.volumes.items():
        volume_name = volume.name
        mounts.append(docker.ContainerVolumeArgs(volume_name=volume_name, container_path=path))
    for path, volume in spec.read_only_volumes.items():
        volume_name = volume.name
        mounts.append(docker.ContainerVolumeArgs(volume_name=volume_name, container_path=path, read_only=True))
    return mounts


def _health(spec: ContainerSpec) -> docker.ContainerHealthcheckArgs | None:
    if not spec.health:
        return None
    return docker.ContainerHealthcheckArgs(
        tests=["CMD", *spec.health], interval=spec.health_interval, timeout="5s", retries=6, start_period="0s"
    )
