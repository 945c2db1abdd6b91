"""Grafana: dashboards for admins, read-only, behind the Gateway.

Owns one container, its files and a volume for what it makes of them. Only where its image can be pulled: the
registry-only engine is without it, and says so.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import pulumi
import pulumi_docker as docker
from pulumi import Input, Output, ResourceOptions

from components.container import Attachment, ContainerSpec, hardened
from components.host import Consumer, Host, HostFiles
from components.identity import seed
from components.names import Names
from components.networks import Networks
from components.volume import volume
from render import grafana
from settings import StackSettings
from settings.keys import Seed, grafana_password

COMPONENT = "grafana"
UID = 472


@dataclass(frozen=True, kw_only=True)
class GrafanaArgs:
    settings: StackSettings
    host: Host
    names: Names
    networks: Networks
    dashboards: Mapping[str, str]
    """File name -> JSON."""
    image: str


class Grafana(pulumi.ComponentResource):
    """One Grafana; the Gateway says who reads."""

    def __init__(self, name: str, args: GrafanaArgs, opts: ResourceOptions | None = None) -> None:
        super().__init__("fortress:index:Grafana", name, {}, opts)
        self.args = args
        self.files = self._files(name)
        # Not protected: all that is in it is made again from files.
        self.volume = volume(f"{name}-volume", COMPONENT, host=args.host, names=args.names, parent=self)
        self.container = self._container(name)
        self.register_outputs({})

    def _files(self, name: str) -> HostFiles:
        settings = self.args.settings
        own = seed(f"{name}-seed", ResourceOptions(parent=self))
        files: dict[str, Input[str]] = {
            **grafana.files(settings, settings.plan),
            **{f"dashboards/{file}": text for file, text in self.args.dashboards.items()},
            "admin-password": Output.secret(own.apply(lambda text: grafana_password(Seed.from_hex(text)))),
        }
        return self.args.host.files(
            f"{name}-files",
            component=COMPONENT,
            files=files,
            consumer=Consumer(
                image=self.args.image,
                uid=UID,
                # It has no check of its own; what it reads is made by this program and reviewed.
                check="test -s /config/current/grafana.ini",
                container=self.args.names.of(COMPONENT),
                # It reads its data sources only once. Asked to end, it does, and the engine starts it again.
                reload="TERM",
            ),
            about=[f"dashboard {file}" for file in sorted(self.args.dashboards)],
            opts=ResourceOptions(parent=self),
        )

    def _container(self, name: str) -> docker.Container:
        plan, networks = self.args.settings.plan, self.args.networks
        assert networks.watch is not None
        assert networks.telemetry is not None
        container, _ = hardened(
            f"{name}-container",
            host=self.args.host,
            names=self.args.names,
            spec=ContainerSpec(
                component=COMPONENT,
                image=self.args.image,
                user=f"{UID}:{UID}",
                entrypoints=["grafana"],
                command=["server", "--homepath=/usr/share/grafana", "--config=/config/current/grafana.ini"],
                networks=[
                    Attachment(networks.watch, str(plan.watch.grafana)),
                    Attachment(networks.telemetry, str(plan.telemetry.grafana)),
                ],
                # Its plugins are processes of their own, and heed no limit but this.
                memory_mb=768,
                pids=256,
                tmpfs={"/tmp": "nosuid,nodev,size=64m,mode=1777"},  # noqa: S108
                files=self.files,
                volumes={"/var/lib/grafana": self.volume},
                health=["http-health", str(plan.watch.grafana), str(grafana.PORT), "/api/health"],
            ),
            opts=ResourceOptions(parent=self),
        )
        return container
