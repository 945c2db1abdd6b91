"""Login: oauth2-proxy, which sends people to their provider and says afterwards who they are.

Owns one container, its files and the trail of who signed in. It decides about nobody: the Gateway asks it, and knows
whom it lets in. Its way out, to the provider, is a network of its own.
"""

from dataclasses import dataclass

import pulumi
import pulumi_docker as docker
from pulumi import Input, Output, ResourceOptions

from components.authority_file import certificates
from components.container import Attachment, ContainerSpec, hardened
from components.host import Consumer, Host, HostFiles
from components.identity import seed
from components.names import Names
from components.networks import Networks
from components.volume import volume
from render import oauth2_proxy, trails
from settings import StackSettings
from settings.keys import Seed, cookie_secret

COMPONENT = "login"
UID = 102


@dataclass(frozen=True, kw_only=True)
class LoginArgs:
    settings: StackSettings
    """With a provider in its browser section."""
    host: Host
    names: Names
    networks: Networks
    image: str


class Login(pulumi.ComponentResource):
    """One oauth2-proxy; its sessions are cookies, so it keeps nothing but the trail."""

    def __init__(self, name: str, args: LoginArgs, opts: ResourceOptions | None = None) -> None:
        super().__init__("fortress:index:Login", name, {}, opts)
        self.args = args
        self.files = self._files(name)
        self.trail = volume(
            f"{name}-trail", "login", host=args.host, names=args.names, parent=self, protect=args.settings.protect
        )
        self.container = self._container(name)
        self.register_outputs({})

    def _files(self, name: str) -> HostFiles:
        settings = self.args.settings
        own = settings.browser
        assert own is not None
        assert own.client_secret is not None
        cookie_seed = seed(f"{name}-cookie-seed", ResourceOptions(parent=self))
        files: dict[str, Input[str]] = {
            "oauth2-proxy.cfg": oauth2_proxy.config(settings, settings.plan),
            "people": oauth2_proxy.people(settings),
            trails.FILE: trails.age(settings),
            "client-secret": Output.secret(own.client_secret.get_secret_value()),
            "cookie-secret": Output.secret(
                cookie_seed.apply(lambda text: cookie_secret(Seed.from_hex(text), own.epoch)),
            ),
        }
        if own.ca_file is not None:
            files["provider-ca.pem"] = certificates("browser.ca_file", own.ca_file, "your provider's authority")
        return self.args.host.files(
            f"{name}-files",
            component=COMPONENT,
            files=files,
            consumer=Consumer(
                image=self.args.image,
                uid=UID,
                check="oauth2-proxy --config /config/current/oauth2-proxy.cfg --config-test",
                container=self.args.names.of(COMPONENT),
            ),
            about=[f"provider {own.provider}", f"sessions of {own.session_hours} h"],
            chosen=["client-secret"],
            opts=ResourceOptions(parent=self),
        )

    def _container(self, name: str) -> docker.Container:
        plan, networks = self.args.settings.plan, self.args.networks
        assert networks.login is not None
        container, _ = hardened(
            f"{name}-container",
            host=self.args.host,
            names=self.args.names,
            spec=ContainerSpec(
                component=COMPONENT,
                image=self.args.image,
                user=f"{UID}:{UID}",
                networks=[
                    Attachment(networks.edge, str(plan.edge.login)),
                    Attachment(networks.login, str(plan.login.login)),
                ],
                memory_mb=128,
                tmpfs={"/tmp": "nosuid,nodev,noexec,size=1m,mode=1777"},  # noqa: S108 - the pipe between its two processes
                volumes={"/var/log/login": self.trail},
                files=self.files,
                health=["login-health"],
            ),
            opts=ResourceOptions(parent=self),
        )
        return container
