"""The whole config of one stack, as types."""

import re
from enum import StrEnum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, field_validator, model_validator

from settings.addresses import device_address, refuse_collisions
from settings.base import (
    MODEL_NAME,
    Domain,
    Epoch,
    Matching,
    Name,
    Origin,
    Settings,
    StackName,
    differs,
    or_also,
    or_each,
)
from settings.browser import PRIVATE_TOP_LEVELS, BrowserSettings, Provider
from settings.network import BASE_PREFIX, Plan
from settings.observability import Form, ObservabilitySettings
from settings.timezones import Timezone
from settings.users import Limits, User


class Access(StrEnum):
    """The way in."""

    WIREGUARD = "wireguard"
    TAILSCALE = "tailscale"
    CLOUDFLARE = "cloudflare"
    SSH = "ssh"


BUILT_ACCESS = frozenset({Access.WIREGUARD})
DOCKER_SOCKET = "/var/run/docker.sock"


def _model_name(value: str) -> str:
    if ".." in value or not re.fullmatch(MODEL_NAME, value) or len(value) > 128:
        raise ValueError(f"{value!r} is not a model name; write it like llama3.2:3b, without '..' or spaces")
    if re.search(r":(.+-)?cloud$", value, re.IGNORECASE):
        raise ValueError(
            f"{value!r} is a cloud model: its prompts would leave this server. Declare a model that runs here"
        )
    return value


class Model(Settings):
    """A model that Ollama has: made by the project, from a GGUF file, or pulled once at deploy time."""

    name: Annotated[str, AfterValidator(_model_name)]
    source: str | None = Field(
        default=None, description="`builtin`, the path of a .gguf file on this machine, or nothing: pulled by its name."
    )

    @field_validator("source")
    @classmethod
    def _builtin_or_a_gguf_file(cls, value: str | None) -> str | None:
        if value is not None and value != "builtin" and (not value.endswith(".gguf") or "\n" in value):
            raise ValueError(
                f"source {value!r} is neither 'builtin' nor a path ending in .gguf; leave it out to pull by name"
            )
        return value

    @property
    def tagged(self) -> str:
        """The name as Ollama lists it: with its tag."""
        return self.name if ":" in self.name.rsplit("/", 1)[-1] else f"{self.name}:latest"

    @property
    def resource(self) -> str:
        """The name as a part of a resource's."""
        return self.tagged.replace("/", "-").replace(":", "-")


class GatewaySettings(Settings):
    connect_timeout_s: int = Field(default=5, ge=1, le=60)
    read_timeout_s: int = Field(
        default=900, ge=10, le=7200, description="Longest silence of Ollama, model load included."
    )
    longest_answer_s: int = Field(
        default=7200,
        ge=10,
        le=86_400,
        description="An answer that still comes after this time is cut: who reads slowly holds up whoever waits.",
    )
    body_limit_mb: int = Field(default=20, ge=1, le=200, description="Largest inference body; images are in it.")
    model_upload: bool = Field(default=False, description="Admins may create models from uploaded blobs.")
    slots: int | None = Field(
        default=None,
        ge=1,
        le=1024,
        description="Inference requests that Ollama gets at once, in turn over the users; without it "
        "`ollama.num_parallel`. What is above that waits in Ollama, first come, first served.",
    )
    queue_wait_s: int = Field(
        default=30, ge=0, le=600, description="Longest wait for an inference slot; 0 refuses at once."
    )
    queue_per_user: int = Field(default=8, ge=1, le=256, description="Requests of one user that may wait for a slot.")
    queue_total: int = Field(default=64, ge=1, le=256, description="Requests that may wait for a slot in all.")
    cors_origins: tuple[Origin, ...] = Field(
        default=(),
        max_length=100,
        description="Exact origins whose pages may call the gateway from a browser, with a key in the header; a tunnel "
        "address proves nobody to them.",
    )
    failed_auth_per_minute: int = Field(
        default=30,
        ge=1,
        le=100_000,
        description="Requests without a valid proof that one address may send a minute, and at once; a valid key or "
        "proven address passes from there all the same.",
    )
    certificate_file: Path | None = Field(
        default=None,
        description="PEM chain to serve instead of the private CA's. Where a private authority signed it, its root is "
        "the last certificate of the chain: bundles tell programs to believe that.",
    )
    key_file: Path | None = Field(default=None, description="PEM key of certificate_file.")

    @model_validator(mode="after")
    def _certificate_and_key_come_together(self) -> Self:
        if (self.certificate_file is None) != (self.key_file is None):
            raise ValueError("certificate_file and key_file belong together: write both, or neither for the private CA")
        return self

    @model_validator(mode="after")
    def _one_user_never_fills_the_queue(self) -> Self:
        if self.queue_per_user > self.queue_total:
            raise ValueError(
                f"queue_per_user is {self.queue_per_user}, above queue_total ({self.queue_total}), so it would never "
                f"count. Set it to at most {self.queue_total}, or raise queue_total"
            )
        return self

    @property
    def longest_silence_s(self) -> int:
        """Nothing that is open is silent for longer: it waits for its turn, then for Ollama; nginx ends the rest."""
        return self.queue_wait_s + self.read_timeout_s + 60


GpuName = Annotated[
    str, Matching(r"[A-Za-z0-9-]{1,64}", "a GPU: write its number or UUID as `nvidia-smi -L` shows it, like '0'")
]


class OllamaSettings(Settings):
    memory_mb: int = Field(default=4096, ge=256, description="Memory limit of the Ollama container, MiB.")
    cpus: float | None = Field(default=None, gt=0, description="CPU limit; nothing means all.")
    pids: int = Field(default=512, ge=64)
    num_parallel: int = Field(default=1, ge=1, le=64)
    max_queue: int = Field(default=64, ge=1, le=4096)
    keep_alive: Annotated[
        str,
        Matching(r"(-1|[0-9]{1,6}[smh])", "a time that Ollama keeps a model loaded: write 30s, 5m, 2h, or -1 for ever"),
    ] = "5m"
    context_length: int = Field(default=4096, ge=256)
    load_timeout_s: int = Field(default=300, ge=10)
    gpus: Literal["none", "all"] | Annotated[tuple[GpuName, ...], Field(min_length=1)] = Field(
        default="none",
        description="NVIDIA's GPUs that Ollama is given: `all`, or their numbers or UUIDs as `nvidia-smi -L` lists "
        "them; with `observability: full` their use, memory, temperature and power are seen.",
    )

    @field_validator("gpus", mode="before")
    @classmethod
    def _a_word_or_some_gpus(cls, value: object) -> object:
        names: list[object] = [*value] if isinstance(value, list | tuple) else []  # pyright: ignore[reportUnknownArgumentType]
        if value in ("none", "all") or (names and all(isinstance(each, str) for each in names)):
            return value
        raise ValueError(
            "it names no GPU; write none, all, or a list of numbers or UUIDs as `nvidia-smi -L` shows them, in quotes, "
            'like ["0", "1"]'
        )


PRIVATE4 = [IPv4Network(each) for each in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10")]
"""RFC 1918, and RFC 6598 behind a provider's NAT. Python's own `is_private` knows loopback and more."""
PRIVATE6 = IPv6Network("fc00::/7")


def _is_private(network: IPv4Network) -> bool:
    return any(network.subnet_of(private) for private in PRIVATE4)


def _is_address(host: str) -> bool:
    try:
        IPv4Address(host)
    except ValueError:
        return False
    return True


def _endpoint(value: str) -> str:
    host, _, port = value.rpartition(":")
    if re.fullmatch(r"\[?[0-9a-fA-F:.]*:[0-9a-fA-F:.]*\]?", host):
        raise ValueError(
            f"{value!r} is an IPv6 address, but the tunnel's port is published on IPv4; write the host's IPv4 address, "
            "or a name that has one"
        )
    numbers = re.fullmatch(r"[0-9.]+", host)
    if not re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?", host) or ".." in host:
        raise ValueError(f"{value!r} is not host:port; write it like vpn.example.com:51820")
    if numbers and not _is_address(host):
        raise ValueError(f"{value!r} has no IPv4 address before its port; write it like 192.0.2.1:51820")
    if not re.fullmatch(r"[0-9]{1,5}", port) or not 0 < int(port) < 65536:
        raise ValueError(f"{value!r} has no valid port; write it like vpn.example.com:51820")
    return value


class WireguardSettings(Settings):
    endpoint: Annotated[str, AfterValidator(_endpoint)] = Field(
        description="host:port under which clients reach this machine."
    )
    port: int = Field(default=51820, ge=1, le=65535, description="UDP port published on this host.")
    published_address: IPv4Address = Field(default=IPv4Address(0), description="Address of this host to publish on.")
    subnet4: IPv4Network = IPv4Network("10.66.0.0/16")
    subnet6: IPv6Network = IPv6Network("fd66:66:66:66::/64")
    mtu: int = Field(default=1420, ge=1280, le=1500)
    relay_port: int = Field(default=443, ge=1, le=65535)
    epoch: Epoch = "1"

    @field_validator("subnet4")
    @classmethod
    def _wide_and_private(cls, value: IPv4Network) -> IPv4Network:
        if not _is_private(value) or value.prefixlen > 20:
            raise ValueError(
                f"{value} is too small or not private; device addresses are hashed into it, so write a private range "
                "of /20 or wider, like 10.66.0.0/16"
            )
        return value

    @field_validator("subnet6")
    @classmethod
    def _ula_64(cls, value: IPv6Network) -> IPv6Network:
        if "%" in str(value) or value.prefixlen != 64 or not value.subnet_of(PRIVATE6):
            raise ValueError(f"{value} is not a private /64; write one like fd66:66:66:66::/64")
        return value

    @property
    def server4(self) -> IPv4Address:
        return self.subnet4.network_address + 1

    @property
    def server6(self) -> IPv6Address:
        return self.subnet6.network_address + 1


class NetworkSettings(Settings):
    base: IPv4Network = IPv4Network("172.31.64.0/20")

    @field_validator("base")
    @classmethod
    def _a_private_20(cls, value: IPv4Network) -> IPv4Network:
        if not _is_private(value) or value.prefixlen != BASE_PREFIX:
            raise ValueError(f"{value} is not a private /{BASE_PREFIX}; write one like 172.31.64.0/20")
        return value


HOST_KEY = r"(ssh-ed25519|ecdsa-sha2-nistp256|ssh-rsa) [A-Za-z0-9+/=]+"


def _key_alone(line: str) -> str:
    """`ssh-keyscan` writes the host's name before its key, a .pub file a comment behind it."""
    found = re.search(rf"(^|\s)({HOST_KEY})", line)
    return found[2] if found else line


class SshSettings(Settings):
    """A host reached by SSH; its key is pinned."""

    address: Annotated[
        str,
        Matching(
            r"[A-Za-z0-9][A-Za-z0-9.:-]{0,252}",
            "a host: write its name or address, like server.example.com; user and port have keys of their own",
        ),
    ]
    user: Annotated[
        str,
        Matching(
            r"[a-z_][a-z0-9_-]{0,31}",
            "a login name: write lower-case letters, digits, '_' or '-', at most 32, beginning with a letter or '_'",
        ),
    ] = "root"
    port: int = Field(default=22, ge=1, le=65535)
    host_key: Annotated[
        str,
        Matching(
            rf"([^\s#]+ )?{HOST_KEY}( [^\r\n]*)?",
            "a host's key: write the line that `ssh-keyscan -t ed25519 <address>` prints",
        ),
        AfterValidator(_key_alone),
    ]
    private_key_file: Path = Field(default=Path("~/.ssh/id_ed25519"), description="Without a passphrase.")

    @field_validator("private_key_file")
    @classmethod
    def _the_same_file_for_ssh_and_for_us(cls, value: Path) -> Path:
        if not re.fullmatch(r"~?/[A-Za-z0-9._/@+-]+", str(value)):
            raise ValueError(
                f"{str(value)!r} is not a path that `ssh` reads as it stands; write one that begins with / or ~/ and "
                "has no spaces, like ~/.ssh/id_ed25519"
            )
        return value


class HostSettings(Settings):
    """Where the containers run: this machine, or one reached by SSH."""

    ssh: SshSettings | None = None
    docker_socket: Annotated[
        str, Matching(r"/[A-Za-z0-9/._-]+", f"a socket's path: write it like {DOCKER_SOCKET}, from / on")
    ] = DOCKER_SOCKET


class PkiSettings(Settings):
    ca_epoch: Epoch = Field(
        default="1",
        description="Change it to renew both authorities with their keys: what bundles hold of them is void then.",
    )
    previous_ca_epoch: Epoch | None = Field(
        default=None,
        description="The word that `ca_epoch` had before: while this line stands, the former authorities go on signing "
        "and new bundles hold both. Hand them out, then delete it.",
    )
    leaf_epoch: Epoch = Field(
        default="1",
        description="Change it to renew the certificates with their keys; `make up` does when two thirds of their life "
        "are over.",
    )

    @model_validator(mode="after")
    def _two_authorities(self) -> Self:
        if self.previous_ca_epoch is not None:
            differs(f"previous_ca_epoch is {self.previous_ca_epoch!r}", self.ca_epoch, self.previous_ca_epoch, "ca_")
        return self


class Engine(StrEnum):
    """Where CLI, plugins and images come from."""

    ONLINE = "online"
    REGISTRY_ONLY = "registry-only"


class StackSettings(Settings):
    """One environment."""

    stack: StackName
    engine: Engine = Field(
        default=Engine.ONLINE, description="Written by `make up` where only package registries are reached."
    )
    access: tuple[Access, ...] = Field(
        default=(Access.WIREGUARD,),
        min_length=1,
        description="The way in: one word, or a list while you migrate.",
        json_schema_extra=or_also({"enum": [method.value for method in Access]}),
    )
    domain: Domain = "ollama.fortress.internal"
    models: tuple[Model, ...] = (Model(name="tiny", source="builtin"),)
    users: dict[Name, User] = Field(
        min_length=1,
        description="One line per user; `bob:` alone is a user with every default.",
        json_schema_extra=or_each({"type": "null"}),
    )
    limits: Limits = Limits()
    timezone: Timezone = Field(
        default="UTC", description="IANA name; days and months of token budgets begin at midnight there."
    )
    gateway: GatewaySettings = GatewaySettings()
    ollama: OllamaSettings = OllamaSettings()
    wireguard: WireguardSettings | None = None
    browser: BrowserSettings | None = Field(
        default=None, description="A page to chat in a browser: `{}` for keyless users, a provider for the others."
    )
    observability: ObservabilitySettings = Field(
        default=ObservabilitySettings(),
        description="How much is seen: `off`, `lite` or `full`, or a section with `form`.",
        json_schema_extra=or_also({"enum": [*(form.value for form in Form), False]}),
    )
    network: NetworkSettings = NetworkSettings()
    host: HostSettings = HostSettings()
    pki: PkiSettings = PkiSettings()
    protect: bool = Field(default=True, description="Guards model volume, audit and budgets against destroy.")

    @field_validator("access", mode="before")
    @classmethod
    def _one_word_or_a_list(cls, value: object) -> object:
        return [value] if isinstance(value, str) else value

    @field_validator("access")
    @classmethod
    def _built(cls, value: tuple[Access, ...]) -> tuple[Access, ...]:
        missing = [method.value for method in value if method not in BUILT_ACCESS]
        if missing:
            raise ValueError(
                f"access method {missing[0]!r} is not built yet; write {', '.join(sorted(BUILT_ACCESS))!r} instead"
            )
        return value

    @field_validator("users", mode="before")
    @classmethod
    def _an_empty_line_is_a_user(cls, value: object) -> object:
        if not isinstance(value, dict):
            return value
        return {name: {} if user is None else user for name, user in value.items()}

    @model_validator(mode="after")
    def _parts_fit_together(self) -> Self:
        if Access.WIREGUARD in self.access and self.wireguard is None:
            raise ValueError(
                "access is wireguard, but nothing says where clients reach it. Write "
                'ollama-fortress:wireguard: {endpoint: "vpn.example.com:51820"}'
            )
        if self.gateway.read_timeout_s < self.ollama.load_timeout_s:
            raise ValueError(
                f"gateway.read_timeout_s is {self.gateway.read_timeout_s} s, below ollama.load_timeout_s "
                f"({self.ollama.load_timeout_s} s): a cold model would be given up while it loads, and each retry "
                f"starts the load again. Set it to at least {self.ollama.load_timeout_s}"
            )
        if self.gateway.longest_answer_s < self.gateway.read_timeout_s:
            raise ValueError(
                f"gateway.longest_answer_s is {self.gateway.longest_answer_s} s, below gateway.read_timeout_s "
                f"({self.gateway.read_timeout_s} s): who may be silent for so long would be cut at the first word. "
                f"Set it to at least {self.gateway.read_timeout_s}"
            )
        seen: dict[str, str] = {}
        for name, user in self.users.items():
            if user.email is None:
                continue
            if user.email in seen:
                raise ValueError(
                    f"users {seen[user.email]!r} and {name!r} have the same e-mail {user.email}; a login could be "
                    "either. Give each user an own address"
                )
            seen[user.email] = name
        self._models_differ()
        if self.wireguard is not None and self.wireguard.subnet4.overlaps(self.network.base):
            raise ValueError(
                f"wireguard.subnet4 {self.wireguard.subnet4} overlaps network.base {self.network.base}; "
                "move one of them"
            )
        if self.wireguard is not None:
            refuse_collisions(self.device_addresses(), self.wireguard.subnet4)
        return self

    def _models_differ(self) -> None:
        """Ollama knows no case; Pulumi's names of resources have no '/' and no ':'."""
        known: dict[str, Model] = {}
        for model in self.models:
            other = known.setdefault(model.resource.lower(), model)
            if other is model:
                continue
            if other.tagged.lower() == model.tagged.lower():
                raise ValueError(f"model {model.tagged!r} is declared twice; remove one of the two lines")
            raise ValueError(
                f"models {other.name!r} and {model.name!r} would have one name in Pulumi's state, where '/' and ':' "
                "read as '-'; declare one of them, or give one another name with its .gguf file as `source`"
            )

    @model_validator(mode="after")
    def _a_key_is_one_device(self) -> Self:
        owners: dict[str, str] = {}
        for name, user in self.users.items():
            for device in user.device_list():
                if device.public_key is None:
                    continue
                own = f"{name}/{device.name}"
                other = owners.setdefault(device.public_key, own)
                if other != own:
                    raise ValueError(
                        f"devices {other} and {own} have the same public_key, and one key is one peer: only one of "
                        "them would have a tunnel. Make a key of its own on each (`wg genkey | tee key | wg pubkey`)"
                    )
        return self

    @model_validator(mode="after")
    def _somebody_can_open_the_page(self) -> Self:
        if self.browser is None:
            return self
        name, relay = self.browser_domain, self.wireguard
        if name == self.domain:
            raise ValueError(
                f"browser.domain is {name}, the API's own name, where no cookie may count; write another, like "
                f"chat.{name}"
            )
        if len(name) > 253:
            raise ValueError(
                f"chat.{self.domain} is longer than the 253 characters of a name; write a shorter browser.domain"
            )
        if relay is not None and self.browser.port == relay.relay_port:
            raise ValueError(
                f"browser.port is {self.browser.port}, which is the API's port at the tunnel address "
                f"(wireguard.relay_port); write another, like {8443 if relay.relay_port != 8443 else 9443}"
            )
        if self.browser.provider is Provider.GOOGLE and name.rpartition(".")[2] in PRIVATE_TOP_LEVELS:
            raise ValueError(
                f"browser.provider is google, which sends nobody back to {name}: its redirect addresses need a public "
                "top-level domain, and are no bare addresses. Write browser.domain as a name below a domain that you "
                "own; its record may point to the tunnel address"
            )
        if not self.browser_users:
            advice = (
                "Give an `email` to a user who is no service"
                if self.browser.provider
                else "Write `keyless: true` at a user, or a provider for users with an `email`"
            )
            raise ValueError(f"there is a browser section, but nobody who could get in. {advice}")
        return self

    def url(self, host: str | None = None) -> str:
        """Where the API answers: at its name, or at another host of the gateway's."""
        port = 443 if self.wireguard is None else self.wireguard.relay_port
        return f"https://{host or self.domain}" + ("" if port == 443 else f":{port}")

    @property
    def login(self) -> Provider | None:
        """Who signs people in at the page, if anybody does."""
        return self.browser.provider if self.browser is not None else None

    @property
    def grafana(self) -> bool:
        """Is there a Grafana? Its image is pulled; nobody builds it from packages."""
        return self.observability.form is Form.FULL and self.engine is Engine.ONLINE

    @property
    def dashboards(self) -> bool:
        """May admins open Grafana, on the browser's page?"""
        return self.grafana and self.browser is not None

    @property
    def browser_domain(self) -> str:
        own = self.browser.domain if self.browser is not None else None
        return own or f"chat.{self.domain}"

    @property
    def browser_hosts(self) -> tuple[str, ...]:
        """The page's name and its tunnel addresses, with their ports as a browser writes them after https://."""
        own = self.wireguard
        if self.browser is None or own is None:
            return ()
        places = [
            (self.browser_domain, own.relay_port),
            (str(own.server4), self.browser.port),
            (f"[{own.server6}]", self.browser.port),
        ]
        return tuple(host if port == 443 else f"{host}:{port}" for host, port in places)

    @property
    def browser_users(self) -> tuple[str, ...]:
        """Who may open the page: by the tunnel address, or by an e-mail address that a provider vouches for."""
        if self.browser is None:
            return ()
        return tuple(
            name
            for name, user in sorted(self.users.items())
            if not user.service and (user.keyless or (self.browser.provider is not None and user.email is not None))
        )

    def device_addresses(self) -> dict[tuple[str, str], tuple[IPv4Address, IPv6Address]]:
        """(user, device) -> its tunnel addresses: hashed, or the IPv4 address that the config gives."""
        own = self.wireguard
        if own is None:
            return {}
        found = {}
        for user_name, user in self.users.items():
            for device in user.device_list():
                ip4, ip6 = device_address(user_name, device.name, device.epoch, own.subnet4, own.subnet6)
                found[user_name, device.name] = (device.address or ip4, ip6)
        return found

    def previous_addresses(self) -> dict[tuple[str, str], tuple[IPv4Address, IPv6Address]]:
        """(user, device) -> the addresses that it keeps while its `previous_epoch` stands."""
        own = self.wireguard
        if own is None:
            return {}
        return {
            (user, device.name): device_address(user, device.name, device.previous_epoch, own.subnet4, own.subnet6)
            for user, of in self.users.items()
            for device in of.device_list()
            if device.previous_epoch is not None
        }

    @property
    def plan(self) -> Plan:
        return Plan(self.network.base)

    def limits_of(self, user: str) -> Limits:
        return self.users[user].limits.over(self.limits)
