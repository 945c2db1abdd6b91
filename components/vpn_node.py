"""The VpnNode: the tunnel's end, and a relay for exactly one TCP port.

Owns one container, its files and the trail of who came and went. It decrypts no TLS and decides about no user; the
Gateway does both.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import pulumi
import pulumi_docker as docker
from pulumi import Output, ResourceOptions

from components.container import Attachment, ContainerSpec, hardened
from components.host import Consumer, Host, HostFiles
from components.identity import DeviceIdentity, seed
from components.names import Names
from components.networks import Networks
from components.volume import volume
from render import haproxy, nftables, trails, wireguard
from settings import StackSettings
from settings.keys import SERVER, Seed, wireguard_private, wireguard_public

COMPONENT = "vpn-node"


@dataclass(frozen=True, kw_only=True)
class VpnNodeArgs:
    settings: StackSettings
    host: Host
    names: Names
    networks: Networks
    devices: Sequence[DeviceIdentity]
    image: str


class VpnNode(pulumi.ComponentResource):
    """WireGuard for many devices, a firewall before it, an L4 relay behind it."""

    public_key: Output[str]

    def __init__(self, name: str, args: VpnNodeArgs, opts: ResourceOptions | None = None) -> None:
        super().__init__("fortress:index:VpnNode", name, {}, opts)
        self.args = args
        self.private_key = self._private_key(name)
        self.public_key = Output.unsecret(self.private_key.apply(wireguard_public))
        self.files = self._files(name)
        self.trail = volume(
            f"{name}-tunnel", "tunnel", host=args.host, names=args.names, parent=self, protect=args.settings.protect
        )
        self.container = self._container(name)
        self.register_outputs({"public_key": self.public_key})

    def _private_key(self, name: str) -> Output[str]:
        assert self.args.settings.wireguard is not None
        epoch = self.args.settings.wireguard.epoch
        own = seed(f"{name}-seed", ResourceOptions(parent=self))
        return Output.secret(
            own.apply(lambda text: wireguard_private(Seed.from_hex(text), SERVER.user, SERVER.device, epoch))
        )

    def _files(self, name: str) -> HostFiles:
        settings, devices = self.args.settings, self.args.devices
        keys = Output.all(
            private=self.private_key,
            public=Output.all(*[device.public_key for device in devices]),
            psk=Output.all(*[device.psk for device in devices]),
        )

        def peers(values: dict[str, list[str]]) -> list[wireguard.Peer]:
            return [
                wireguard.Peer(
                    user=device.user,
                    device=device.device,
                    public_key=public,
                    psk=psk,
                    ip4=device.ip4,
                    ip6=device.ip6,
                    previous=device.previous,
                )
                for device, public, psk in zip(devices, values["public"], values["psk"], strict=True)
            ]

        configuration = keys.apply(lambda values: wireguard.server(settings, values["private"], peers(values)))
        return self.args.host.files(
            f"{name}-files",
            component=COMPONENT,
            files={
                "wg0.conf": configuration,
                "devices": keys.apply(lambda values: wireguard.devices(peers(values))),
                "nftables.nft": nftables.vpn_node(
                    settings, [device.ip4 for device in devices], [device.ip6 for device in devices]
                ),
                "addresses": wireguard.addresses(settings),
                "interface": wireguard.interface(settings),
                "haproxy.cfg": haproxy.relay(settings, settings.plan),
                trails.FILE: trails.age(settings),
            },
            consumer=Consumer(
                image=self.args.image,
                uid=0,
                check="vpn-node check /config/current",
                check_rights="--cap-add NET_ADMIN --device /dev/net/tun --sysctl net.ipv6.conf.all.disable_ipv6=0",
                container=self.args.names.of(COMPONENT),
            ),
            about=[
                f"device {device.user}/{device.device} {device.ip4} {device.ip6}{' (previous)' * device.previous}"
                for device in devices
            ],
            opts=ResourceOptions(parent=self),
        )

    def _container(self, name: str) -> docker.Container:
        wireguard_settings = self.args.settings.wireguard
        assert wireguard_settings is not None
        plan = self.args.settings.plan
        container, _ = hardened(
            f"{name}-container",
            host=self.args.host,
            names=self.args.names,
            spec=ContainerSpec(
                component=COMPONENT,
                image=self.args.image,
                # The one exception to "no root, no capability": interfaces and nftables need both.
                user="0:0",
                add_capabilities=["CAP_NET_ADMIN"],
                devices=["/dev/net/tun"],
                sysctls={
                    "net.ipv4.ip_forward": "0",
                    "net.ipv4.ip_unprivileged_port_start": "0",
                    "net.ipv6.conf.all.disable_ipv6": "0",
                    "net.ipv6.conf.all.forwarding": "0",
                },
                networks=[
                    Attachment(self.args.networks.wan, str(plan.wan.vpn_node)),
                    Attachment(self.args.networks.edge, str(plan.edge.vpn_node)),
                ],
                ports=[
                    docker.ContainerPortArgs(
                        internal=51820,
                        external=wireguard_settings.port,
                        protocol="udp",
                        ip=str(wireguard_settings.published_address),
                    )
                ],
                memory_mb=128,
                pids=64,
                tmpfs={"/run": "nosuid,nodev,noexec,size=4m", "/tmp": "nosuid,nodev,noexec,size=4m"},  # noqa: S108
                volumes={"/var/log/vpn-node": self.trail},
                files=self.files,
                health=["vpn-node", "health"],
            ),
            opts=ResourceOptions(parent=self),
        )
        return container
