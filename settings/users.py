"""Users and their devices: one line of config each."""

import base64
import binascii
from ipaddress import IPv4Address
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, field_validator

from settings.base import Email, Epoch, ModelPattern, Name, Settings, or_each


def _wireguard_public_key(value: str) -> str:
    try:
        raw = base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        raw = b""
    if len(raw) != 32 or base64.b64encode(raw).decode() != value:
        raise ValueError(
            "this is no WireGuard public key (32 bytes in base64, 44 characters). Write what `wg pubkey` prints, "
            "or leave public_key out and the key is made for you"
        )
    return value


PublicKey = Annotated[str, AfterValidator(_wireguard_public_key)]


class Device(Settings):
    """One device of one user; its keys and its tunnel address depend on nothing else."""

    name: Name
    public_key: PublicKey | None = Field(
        default=None, description="The device keeps its private key and brings only this."
    )
    address: IPv4Address | None = Field(
        default=None, description="Written only when a collision of addresses asks for it."
    )
    epoch: Epoch = Field(default="1", description="Change it to renew this device's keys.")


class Limits(Settings):
    """What one principal may take."""

    requests_per_minute: int = Field(default=10, ge=1, le=100_000, description="Inference requests a minute.")
    burst: int = Field(default=20, ge=1, le=100_000, description="Inference requests at once before the rate counts.")
    concurrent: int = Field(default=2, ge=1, le=1000, description="Streams open at the same time.")
    reads_per_minute: int = Field(
        default=120, ge=1, le=100_000, description="Cheap reads (tags, version, ps) a minute."
    )
    tokens_per_day: int | None = Field(
        default=None,
        ge=1,
        le=10**12,
        description="Prompt and answer tokens a calendar day, in the stack's `timezone`; nothing means no budget. Of"
        " it a request that does not bound its answer must find `ollama.context_length` left, and its prompt besides.",
    )
    tokens_per_month: int | None = Field(default=None, ge=1, le=10**12, description="The same for a calendar month.")


class UserLimits(Settings):
    """The limits of one user; what is left out is taken from the stack's `limits`."""

    requests_per_minute: int | None = Field(default=None, ge=1, le=100_000)
    burst: int | None = Field(default=None, ge=1, le=100_000)
    concurrent: int | None = Field(default=None, ge=1, le=1000)
    reads_per_minute: int | None = Field(default=None, ge=1, le=100_000)
    tokens_per_day: int | None = Field(default=None, ge=1, le=10**12)
    tokens_per_month: int | None = Field(default=None, ge=1, le=10**12)

    def over(self, defaults: Limits) -> Limits:
        return defaults.model_copy(update=self.model_dump(exclude_none=True))


class User(Settings):
    """A person, or with `service: true` a program."""

    role: Literal["user", "admin"] = "user"
    email: Email | None = Field(default=None, description="Proves the user at the browser login.")
    service: bool = Field(default=False, description="A program: no browser login.")
    keyless: bool = Field(
        default=False, description="The tunnel address alone proves this user, so the stock CLI works."
    )
    models: tuple[ModelPattern, ...] = Field(default=("*",), description="Names or patterns of the models allowed.")
    devices: tuple[Device, ...] = Field(
        (Device(name="default"),),
        min_length=1,
        description="Names of the devices, or objects where one needs more than a name.",
        json_schema_extra=or_each({"type": "string"}),
    )
    limits: UserLimits = UserLimits()
    epoch: Epoch = Field(default="1", description="Change it to renew this user's API key.")

    @field_validator("devices", mode="before")
    @classmethod
    def _a_device_may_be_just_its_name(cls, value: object) -> object:
        if not isinstance(value, list | tuple):
            return value
        return [{"name": item} if isinstance(item, str) else item for item in value]

    @field_validator("devices")
    @classmethod
    def _device_names_differ(cls, value: tuple[Device, ...]) -> tuple[Device, ...]:
        names = [device.name for device in value]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"device {twice[0]!r} is named twice; give each device of a user its own name")
        return value

    def device_list(self) -> tuple[Device, ...]:
        return self.devices
