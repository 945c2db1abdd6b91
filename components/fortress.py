"""All parts of one fortress, put together in the order of a request's way."""

from collections.abc import Mapping
from dataclasses import dataclass

import pulumi
from pulumi import Input, Output, ResourceOptions

from components.gateway import Gateway, GatewayArgs
from components.grafana import Grafana, GrafanaArgs
from components.host import Host, HostArgs
from components.identity import Identity, IdentityArgs
from components.login import Login, LoginArgs
from components.names import Names
from components.networks import Networks, NetworksArgs
from components.observability import Observability, ObservabilityArgs
from components.ollama_host import OllamaHost, OllamaHostArgs
from components.pki import Pki, PkiArgs
from components.vpn_node import VpnNode, VpnNodeArgs
from fortress import ssh
from images import GRAFANA, WATCHERS, needed, reference
from render import bundle, dashboards
from settings import Form, StackSettings


@dataclass(frozen=True, kw_only=True)
class FortressArgs:
    settings: StackSettings
    """Plain and validated, so it decides which resources exist."""


class Fortress(pulumi.ComponentResource):
    """VpnNode -> Gateway -> OllamaHost, and what watches them."""

    endpoint: Output[str]
    ca_certificate: Output[str]
    tunnel_address: str
    bundles: dict[str, Output[dict[str, str]]]

    def __init__(self, name: str, args: FortressArgs, opts: ResourceOptions | None = None) -> None:
        super().__init__("fortress:index:Fortress", name, {}, opts)
        settings = args.settings
        wireguard = settings.wireguard
        assert wireguard is not None
        child = ResourceOptions(parent=self)
        names = Names(stack=settings.stack, prefix=name)
        plan, watched = settings.plan, settings.observability
        self.tunnel_address = str(wireguard.server4)

        host = Host(f"{name}-host", HostArgs(settings=settings.host, stack=settings.stack), child)
        networks = Networks(
            f"{name}-networks",
            NetworksArgs(
                host=host,
                names=names,
                wan=plan.wan,
                edge=plan.edge,
                model=plan.model,
                heart=plan.heart,
                login=plan.login if settings.login else None,
                watch=plan.watch if settings.observability.watched else None,
                telemetry=plan.telemetry if watched.form is Form.FULL else None,
                notify=plan.notify if watched.alerts else None,
                storage=plan.storage if watched.object_storage else None,
            ),
            child,
        )
        self.identity = Identity(f"{name}-identity", IdentityArgs(settings=settings), child)
        self.pki = Pki(
            f"{name}-pki",
            PkiArgs(
                domain=settings.domain,
                other_domains=[settings.browser_domain] if settings.browser else [],
                addresses=[str(wireguard.server4), str(wireguard.server6)],
                ca_epoch=settings.pki.ca_epoch,
                previous_ca_epoch=settings.pki.previous_ca_epoch,
                leaf_epoch=settings.pki.leaf_epoch,
            ),
            child,
        )
        ollama_host = OllamaHost(
            f"{name}-ollama-host",
            OllamaHostArgs(
                settings=settings,
                host=host,
                names=names,
                networks=networks,
                server=self.pki.hop_server,
                image=_image("ollama", settings),
                sidecar_image=_image("gateway", settings),
            ),
            child,
        )
        gateway = Gateway(
            f"{name}-gateway",
            GatewayArgs(
                settings=settings,
                host=host,
                names=names,
                networks=networks,
                devices=self.identity.devices,
                key_hashes=self.identity.key_hashes,
                previous_hashes=self.identity.previous_hashes,
                server=self.pki.server,
                hop=self.pki.hop_client,
                image=_image("gateway", settings),
            ),
            child,
        )
        login: Login | None = None
        if settings.login:
            login = Login(
                f"{name}-login",
                LoginArgs(
                    settings=settings, host=host, names=names, networks=networks, image=_image("login", settings)
                ),
                child,
            )
        self.vpn_node = VpnNode(
            f"{name}-vpn-node",
            VpnNodeArgs(
                settings=settings,
                host=host,
                names=names,
                networks=networks,
                devices=self.identity.devices,
                image=_image("vpn-node", settings),
            ),
            child,
        )
        trails = {"/var/log/gateway": gateway.audit, "/var/log/vpn-node": self.vpn_node.trail}
        if login is not None:
            trails["/var/log/login"] = login.trail
        if watched.form is Form.FULL:
            Observability(
                f"{name}-observability",
                ObservabilityArgs(
                    settings=settings,
                    host=host,
                    names=names,
                    networks=networks,
                    trails=trails,
                    disks={"audit": gateway.audit, "state": gateway.state, "models": ollama_host.models},
                    images={part: _image(part, settings) for part in WATCHERS},
                ),
                child,
            )
        if GRAFANA in needed(settings):
            Grafana(
                f"{name}-grafana",
                GrafanaArgs(
                    settings=settings,
                    host=host,
                    names=names,
                    networks=networks,
                    dashboards=dashboards.files(),
                    image=_image(GRAFANA, settings),
                ),
                child,
            )
        self.endpoint = gateway.endpoint
        self.authority = gateway.served.authority
        self.ca_certificate = Output.unsecret(self.authority)
        self.bundles = {user: self._bundle(settings, user) for user in sorted(settings.users)}
        self.register_outputs({"endpoint": self.endpoint})

    def _bundle(self, settings: StackSettings, user: str) -> Output[dict[str, str]]:
        devices = [device for device in self.identity.devices if device.user == user and not device.previous]
        values: dict[str, Input[str]] = {
            "api_key": self.identity.api_keys[user],
            "ca": self.authority,
            "server": self.vpn_node.public_key,
        }
        for device in devices:
            values[f"psk {device.device}"] = device.psk
            if device.private_key is not None:
                values[f"private {device.device}"] = device.private_key

        def render(known: Mapping[str, str]) -> dict[str, str]:
            return bundle.files(
                settings,
                user,
                api_key=known["api_key"],
                ca_pem=known["ca"],
                server_public_key=known["server"],
                devices=[
                    bundle.BundleDevice(
                        name=device.device,
                        private_key=known.get(f"private {device.device}"),
                        psk=known[f"psk {device.device}"],
                        ip4=device.ip4,
                        ip6=device.ip6,
                    )
                    for device in devices
                ],
            )

        return Output.all(**values).apply(render)


def _image(name: str, settings: StackSettings) -> str:
    return reference(
        name,
        settings.engine.value,
        check=settings.host.ssh is None,
        engine=ssh.docker_host(settings.host),
    )
