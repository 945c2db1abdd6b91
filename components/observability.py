"""Observability: what tails the audit trail, keeps it, asks for figures, and tells somebody.

Owns the containers of `observability: full`, their files and volumes. What they watch does not know of them: the
trails are read from volumes, and the Gateway answers on the network `watch`. VpnNode and OllamaHost are on no network
of these.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pulumi
import pulumi_docker as docker
from pulumi import Input, Output, ResourceOptions

from components.authority_file import certificates
from components.container import Attachment, ContainerSpec, gpus, hardened
from components.host import Consumer, Host, HostFiles
from components.names import Names
from components.networks import Networks
from components.volume import volume
from images import WATCHERS
from render import alertmanager, collector, loki, prometheus
from settings import StackSettings

COLLECTOR, LOKI, PROMETHEUS, ALERTMANAGER, EXPORTER = WATCHERS
UIDS = {COLLECTOR: 103, LOKI: 104, PROMETHEUS: 105, ALERTMANAGER: 106, EXPORTER: 107}
READERS = ("101", "102", "0")
"""Groups of those who write the trails: gateway, login, VpnNode."""
FIGURES = "/var/log/vpn-node"
"""Where the VpnNode writes its figures, as files that the exporter reads."""
GPU, GPU_FIGURES = "gpu", "/var/log/gpu"
GPU_UID = 108
TMP = {"/tmp": "nosuid,nodev,noexec,size=16m,mode=1777"}  # noqa: S108


@dataclass(frozen=True, kw_only=True)
class ObservabilityArgs:
    settings: StackSettings
    """With `form: full`."""
    host: Host
    names: Names
    networks: Networks
    trails: Mapping[str, docker.Volume]
    """Path -> volume that somebody writes lines or figures to; the VpnNode's is among them."""
    disks: Mapping[str, docker.Volume]
    """Name -> volume whose disk must not fill up, beside those of Loki and Prometheus."""
    images: Mapping[str, str]


class Observability(pulumi.ComponentResource):
    """Collector -> Loki; Prometheus; both -> Alertmanager."""

    def __init__(self, name: str, args: ObservabilityArgs, opts: ResourceOptions | None = None) -> None:
        super().__init__("fortress:index:Observability", name, {}, opts)
        self.args = args
        self.volumes = {part: self._volume(name, part) for part in (COLLECTOR, LOKI, PROMETHEUS, ALERTMANAGER)}
        self.alertmanager = self._alertmanager(name)
        self.loki = self._loki(name)
        self.collector = self._collector(name)
        self.gpu_figures = self._gpu(name) if args.settings.ollama.gpus != "none" else None
        self.exporter = self._exporter(name)
        self.prometheus = self._prometheus(name)
        self.register_outputs({})

    def _volume(self, name: str, part: str) -> docker.Volume:
        args = self.args
        protect = args.settings.protect and part in (LOKI, PROMETHEUS)
        return volume(f"{name}-{part}-volume", part, host=args.host, names=args.names, parent=self, protect=protect)

    def _files(
        self,
        name: str,
        part: str,
        files: Mapping[str, Input[str]],
        check: str,
        *,
        reload: str = "HUP",
        about: Sequence[str] = (),
        chosen: Sequence[str] = (),
    ) -> HostFiles:
        return self.args.host.files(
            f"{name}-{part}-files",
            component=part,
            files=files,
            consumer=Consumer(
                image=self.args.images[part],
                uid=UIDS[part],
                check=check,
                container=self.args.names.of(part),
                reload=reload,
            ),
            about=about,
            chosen=chosen,
            opts=ResourceOptions(parent=self),
        )

    def _container(
        self,
        name: str,
        part: str,
        *,
        command: Sequence[str],
        networks: Sequence[Attachment],
        memory_mb: int,
        health: Sequence[str],
        files: HostFiles | None = None,
        volumes: Mapping[str, docker.Volume] | None = None,
        read_only: Mapping[str, docker.Volume] | None = None,
        groups: Sequence[str] = (),
        envs: Mapping[str, str] | None = None,
    ) -> docker.Container:
        container, _ = hardened(
            f"{name}-{part}",
            host=self.args.host,
            names=self.args.names,
            spec=ContainerSpec(
                component=part,
                image=self.args.images[part],
                user=f"{UIDS[part]}:{UIDS[part]}",
                groups=groups,
                entrypoints=command[:1],
                command=command[1:],
                # Go's collector of garbage works before the engine's limit kills.
                envs={"GOMEMLIMIT": f"{memory_mb * 6 // 10}MiB", "GOGC": "50", **(envs or {})},
                networks=networks,
                memory_mb=memory_mb,
                tmpfs=TMP,
                volumes=volumes or {},
                read_only_volumes=read_only or {},
                files=files,
                health=["http-health", *health],
            ),
            opts=ResourceOptions(parent=self),
        )
        return container

    def _telemetry(self, address: object) -> Attachment:
        assert self.args.networks.telemetry is not None
        return Attachment(self.args.networks.telemetry, str(address))

    def _alertmanager(self, name: str) -> docker.Container:
        settings = self.args.settings
        own, notify = settings.plan.telemetry.alertmanager, self.args.networks.notify
        hidden = alertmanager.secrets(settings)
        files = self._files(
            name,
            ALERTMANAGER,
            {
                "alertmanager.yml": alertmanager.config(settings),
                **{file: Output.secret(text) for file, text in hidden.items()},
            },
            "amtool check-config /config/current/alertmanager.yml >/dev/null",
            about=[f"tells by {file.partition('-')[0]}" for file in sorted(hidden)],
            chosen=list(hidden),
        )
        return self._container(
            name,
            ALERTMANAGER,
            command=[
                "prometheus-alertmanager",
                "--config.file=/config/current/alertmanager.yml",
                "--storage.path=/var/lib/alertmanager",
                f"--web.listen-address={own}:{prometheus.ALERTMANAGER_PORT}",
                "--cluster.listen-address=",  # there is no second one
                "--log.level=warn",
            ],
            networks=[
                self._telemetry(own),
                *([Attachment(notify, str(settings.plan.notify.alertmanager))] if notify else []),
            ],
            memory_mb=96,
            health=[str(own), str(prometheus.ALERTMANAGER_PORT), "/-/ready"],
            files=files,
            volumes={"/var/lib/alertmanager": self.volumes[ALERTMANAGER]},
        )

    def _loki(self, name: str) -> docker.Container:
        settings = self.args.settings
        own, store = settings.plan.telemetry.loki, settings.observability.object_storage
        files: dict[str, Input[str]] = {
            "loki.yaml": loki.config(settings, settings.plan),
            "rules/fake/rules.yml": loki.rules(),
        }
        if store:
            files["store-credentials"] = Output.secret(loki.credentials(settings))
            if store.ca_file:
                files["store-ca.pem"] = certificates(
                    "observability.object_storage.ca_file", store.ca_file, "your store's authority"
                )
        delivered = self._files(
            name,
            LOKI,
            files,
            "loki -config.file=/config/current/loki.yaml -verify-config",
            # It reads its config only once. Asked to end, it does, and the engine starts it again.
            reload="TERM",
            about=[f"keeps audit lines {settings.observability.retention.audit_days} days"],
            chosen=["store-credentials"],
        )
        outside = self.args.networks.storage
        return self._container(
            name,
            LOKI,
            command=["loki", "-config.file=/config/current/loki.yaml"],
            networks=[
                self._telemetry(own),
                *([Attachment(outside, str(settings.plan.storage.loki))] if outside else []),
            ],
            memory_mb=768,  # a dashboard over months asks for much at once; idle it has a fifth of it
            health=[str(own), str(loki.PORT), "/ready"],
            files=delivered,
            volumes={"/var/lib/loki": self.volumes[LOKI]},
            envs={"AWS_SHARED_CREDENTIALS_FILE": "/config/current/store-credentials"} if store else {},
        )

    def _collector(self, name: str) -> docker.Container:
        plan = self.args.settings.plan
        files = self._files(
            name,
            COLLECTOR,
            {"collector.yaml": collector.config(plan)},
            "otelcol validate --config /config/current/collector.yaml",
            reload="QUIT",  # see the image: with HUP it would lose a batch while Loki is away
        )
        return self._container(
            name,
            COLLECTOR,
            # Without it lines wait in memory up to 100 ms with their position stored already: a kill then lost 100.
            command=[
                "otelcol",
                "--config=/config/current/collector.yaml",
                "--feature-gates=stanza.synchronousLogEmitter",
            ],
            networks=[self._telemetry(plan.telemetry.collector)],
            memory_mb=192,
            health=["127.0.0.1", str(collector.HEALTH_PORT), "/"],
            files=files,
            volumes={"/var/lib/collector": self.volumes[COLLECTOR]},
            read_only=self.args.trails,
            groups=READERS,
            envs={"GOTRACEBACK": "none"},  # its end by QUIT is meant, and needs no stack
        )

    def _gpu(self, name: str) -> docker.Volume:
        """What watches the GPU: it is given to this container and Ollama's only, and this one is on no network.

        Returns: the volume that its figures are written to.
        """
        args = self.args
        figures = volume(f"{name}-{GPU}-volume", GPU, host=args.host, names=args.names, parent=self, protect=False)
        hardened(
            f"{name}-{GPU}",
            host=args.host,
            names=args.names,
            spec=ContainerSpec(
                component=GPU,
                image=args.images[EXPORTER],
                user=f"{GPU_UID}:{GPU_UID}",
                entrypoints=["gpu-watch"],
                command=[],
                # Of NVIDIA's driver only what asks it: nothing here computes.
                envs={"NVIDIA_DRIVER_CAPABILITIES": "utility"},
                networks=[],
                memory_mb=128,
                gpus=gpus(args.settings.ollama),
                volumes={GPU_FIGURES: figures},
                health=["gpu-watch", "health"],
            ),
            opts=ResourceOptions(parent=self),
        )
        return figures

    def _exporter(self, name: str) -> docker.Container:
        own = self.args.settings.plan.telemetry.node_exporter
        disks = {**self.args.disks, LOKI: self.volumes[LOKI], PROMETHEUS: self.volumes[PROMETHEUS]}
        figures = {FIGURES: self.args.trails[FIGURES]}
        if self.gpu_figures is not None:
            figures[GPU_FIGURES] = self.gpu_figures
        return self._container(
            name,
            EXPORTER,
            command=[
                "prometheus-node-exporter",
                "--collector.disable-defaults",
                "--collector.textfile",
                *(f"--collector.textfile.directory={folder}" for folder in figures),
                "--collector.filesystem",
                "--collector.filesystem.mount-points-include=^/volumes/",
                f"--web.listen-address={own}:{prometheus.EXPORTER_PORT}",
                "--web.disable-exporter-metrics",
                "--log.level=warn",
            ],
            networks=[self._telemetry(own)],
            memory_mb=64,
            health=[str(own), str(prometheus.EXPORTER_PORT), "/"],
            read_only={
                **figures,
                **{f"/volumes/{disk}": volume for disk, volume in sorted(disks.items())},
            },
            groups=READERS,
        )

    def _prometheus(self, name: str) -> docker.Container:
        settings, plan = self.args.settings, self.args.settings.plan
        own, watch = plan.telemetry.prometheus, self.args.networks.watch
        assert watch is not None
        files = self._files(
            name,
            PROMETHEUS,
            {"prometheus.yml": prometheus.config(plan), "rules.yml": prometheus.rules()},
            "promtool check config /config/current/prometheus.yml >/dev/null",
        )
        return self._container(
            name,
            PROMETHEUS,
            command=[
                "prometheus",
                "--config.file=/config/current/prometheus.yml",
                "--storage.tsdb.path=/var/lib/prometheus",
                f"--storage.tsdb.retention.time={settings.observability.retention.metrics_days}d",
                f"--web.listen-address={own}:{prometheus.PORT}",
                "--log.level=warn",
            ],
            networks=[self._telemetry(own), Attachment(watch, str(plan.watch.prometheus))],
            memory_mb=512,
            health=[str(own), str(prometheus.PORT), "/-/ready"],
            files=files,
            volumes={"/var/lib/prometheus": self.volumes[PROMETHEUS]},
        )
