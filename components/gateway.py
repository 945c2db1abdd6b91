"""The Gateway: the only door to Ollama.

Owns one nginx container, the files it reads, its audit trail and its state. Creates no network, key or certificate.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

import pulumi
import pulumi_docker as docker
from cryptography import x509
from pulumi import Input, Output, ResourceOptions

from components.authority_file import certificates, issuers, read
from components.container import Attachment, ContainerSpec, hardened
from components.host import Consumer, Host, HostFiles
from components.identity import DeviceIdentity
from components.names import Names
from components.networks import Networks
from components.pki import Certificate
from components.volume import volume
from render import browser, nginx, page, trails
from render.principals import policy_files, principals
from settings import PROJECT, StackSettings

COMPONENT = "gateway"


@dataclass(frozen=True, kw_only=True)
class GatewayArgs:
    settings: StackSettings
    host: Host
    names: Names
    networks: Networks
    devices: Sequence[DeviceIdentity]
    key_hashes: Mapping[str, Output[str]]
    previous_hashes: Mapping[str, Output[str]]
    server: Certificate
    hop: Certificate
    """The client certificate that the OllamaHost's sidecar accepts, and the authority of the sidecar's own."""
    image: str


class Gateway(pulumi.ComponentResource):
    """nginx with the policy; a route it does not name is refused."""

    endpoint: Output[str]
    served: Certificate
    """What clients see, and the authorities that they must believe if they do not already."""

    def __init__(self, name: str, args: GatewayArgs, opts: ResourceOptions | None = None) -> None:
        super().__init__("fortress:index:Gateway", name, {}, opts)
        self.args = args
        self.served = self._served()
        self.files = self._files(name)
        self.audit, self.state = (
            volume(f"{name}-{part}", part, host=args.host, names=args.names, parent=self, protect=args.settings.protect)
            for part in ("audit", "state")
        )
        self.container = self._container(name)
        self.endpoint = Output.from_input(args.settings.url())
        self.register_outputs({"endpoint": self.endpoint})

    def _files(self, name: str) -> HostFiles:
        settings = self.args.settings
        addresses: dict[tuple[str, str], tuple[IPv4Address | IPv6Address, ...]] = {}
        for device in self.args.devices:
            where = (device.user, device.device)
            addresses[where] = (*addresses.get(where, ()), device.ip4, device.ip6)
        files: dict[str, Input[str]] = {
            **policy_files(),
            "nginx.conf": nginx.gateway(settings, settings.plan),
            trails.FILE: trails.age(settings),
            "principals.js": Output.all(
                now=Output.all(**self.args.key_hashes), before=Output.all(**self.args.previous_hashes)
            ).apply(lambda hashes: principals(settings, addresses, hashes["now"], hashes["before"])),
            "tls/server.pem": self.served.pem,
            "tls/server.key": self.served.key,
            "hop/client.pem": self.args.hop.pem,
            "hop/client.key": self.args.hop.key,
            "hop/ca.pem": self.args.hop.authority,
        }
        if settings.browser is not None:
            files |= {"browser.conf": browser.server(settings)}
            files |= {f"page/{file}": text for file, text in page.files().items()}
        return self.args.host.files(
            f"{name}-files",
            component=COMPONENT,
            files=files,
            consumer=Consumer(
                image=self.args.image,
                uid=101,
                check="nginx -t -q -c /config/current/nginx.conf",
                container=self.args.names.of(COMPONENT),
            ),
            about=[
                f"user {name} {user.role}{'' if user.previous_epoch is None else ', previous key too'}"
                for name, user in sorted(settings.users.items())
            ],
            opts=ResourceOptions(parent=self),
        )

    def _served(self) -> Certificate:
        own = self.args.settings.gateway
        if own.certificate_file is None or own.key_file is None:
            return self.args.server
        place = "gateway.certificate_file"
        chain = certificates(place, own.certificate_file, "the chain that the gateway shows, its own certificate first")
        try:
            believed = issuers(chain)
        except ValueError:
            raise pulumi.RunError(f"{PROJECT}:{place} {own.certificate_file} holds no whole certificate") from None
        if self.args.settings.browser is not None:
            _refuse_unnamed(chain, self.args.settings.browser_domain)
        return Certificate(
            pem=Output.from_input(chain),
            key=Output.secret(read("gateway.key_file", own.key_file)),
            authority=Output.from_input(believed) if believed else self.args.server.authority,
        )

    def _container(self, name: str) -> docker.Container:
        plan, networks = self.args.settings.plan, self.args.networks
        largest = self.args.settings.gateway.body_limit_mb
        attachments = [
            Attachment(networks.edge, str(plan.edge.gateway)),
            Attachment(networks.model, str(plan.model.gateway)),
        ]
        if networks.watch is not None:
            attachments.append(Attachment(networks.watch, str(plan.watch.gateway)))
        container, _ = hardened(
            f"{name}-container",
            host=self.args.host,
            names=self.args.names,
            spec=ContainerSpec(
                component=COMPONENT,
                image=self.args.image,
                user="101:101",
                entrypoints=["nginx"],
                command=["-c", "/config/current/nginx.conf", "-g", "daemon off;"],
                networks=attachments,
                # Of each large body there are four copies while it waits for its turn; one of them lies in /tmp.
                memory_mb=256 + 24 * largest,
                tmpfs={"/tmp": f"nosuid,nodev,noexec,size={max(256, 6 * largest)}m,mode=1777"},  # noqa: S108
                volumes={"/var/log/gateway": self.audit, "/var/lib/gateway": self.state},
                files=self.files,
                grace_s=30,  # an answer in flight may finish when the image changes
                health=["nginx-health"],
            ),
            opts=ResourceOptions(parent=self),
        )
        return container


def _refuse_unnamed(certificate: str, name: str) -> None:
    """Raise: pulumi.RunError where a browser would refuse this certificate for the page's name."""
    extensions = x509.load_pem_x509_certificate(certificate.encode()).extensions
    try:
        names = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        named = names.get_values_for_type(x509.DNSName)
    except x509.ExtensionNotFound:  # a common name alone is read by nobody any more
        named = []
    if name not in named and f"*.{name.partition('.')[2]}" not in named:
        raise pulumi.RunError(
            f"{PROJECT}:gateway.certificate_file names {', '.join(named) or 'no host'}, but the page is at {name}; "
            f"have a certificate made that names both, or write one of its names as {PROJECT}:browser.domain"
        )
