"""Users and their devices: one line of config each."""

import base64
import binascii
from ipaddress import IPv4Address
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, field_validator, model_validator

from settings.addresses import beside, meet
from settings.base import Email, Epoch, ModelPattern, Name, Settings, differs, or_each


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
    previous_epoch: Epoch | None = Field(
        default=None,
        description="The word that `epoch` had before: while this line stands, the device's old keys are valid too, at "
        "its other address.",
    )

    @model_validator(mode="after")
    def _old_and_new_live_side_by_side(self) -> Self:
        if self.previous_epoch is None:
            return self
        where = f"device {self.name!r}: previous_epoch is {self.previous_epoch!r}"
        differs(where, self.epoch, self.previous_epoch)
        if self.public_key is not None:
            raise ValueError(
                f"{where}, but the device brings its own public_key, and one key is one peer. Delete previous_epoch; "
                "for an overlap give the new key to a second device"
            )
        if self.address is not None:
            raise ValueError(
                f"{where}, but its address {self.address} is written down, and old and new key cannot share it. Delete "
                "previous_epoch, or delete address"
            )
        if meet(self.epoch, self.previous_epoch):
            raise ValueError(
                f"{where} and epoch is {self.epoch!r}: both give the device the same tunnel address, so the two keys "
                f'cannot be valid together. Write epoch: "{beside(self.epoch)}"'
            )
        return self


class Limits(Settings):
    """What one principal may take."""

    requests_per_minute: int = Field(default=10, ge=1, le=100_000, description="Inference requests a minute.")
    burst: int = Field(default=20, ge=1, le=100_000, description="Inference requests at once before the rate counts.")
    concurrent: int = Field(default=2, ge=1, le=1000, description="Streams open at the same time.")
    reads_per_minute: int = Field(
        default=120, ge=1, le=100_000, description="Cheap reads (tags, version, ps) a minute."
    )
    context_tokens: int | None = Field(
        default=None,
        ge=256,
        description="Largest num_ctx of a request; nothing means ollama.context_length. Of users one above that "
        "becomes this one, any other the stack's: each other context would load the model anew for everybody.",
    )
    answer_tokens: int | None = Field(
        default=None, ge=1, description="Longest answer of one request; nothing means ollama.context_length."
    )
    tokens_per_day: int | None = Field(
        default=None,
        ge=1,
        le=10**12,
        description="Prompt and answer tokens a calendar day, in the stack's `timezone`; nothing means no budget. A "
        "request is begun when its prompt and the longest answer it may have are left.",
    )
    tokens_per_month: int | None = Field(default=None, ge=1, le=10**12, description="The same for a calendar month.")


class UserLimits(Settings):
    """The limits of one user; what is left out is taken from the stack's `limits`."""

    requests_per_minute: int | None = Field(default=None, ge=1, le=100_000)
    burst: int | None = Field(default=None, ge=1, le=100_000)
    concurrent: int | None = Field(default=None, ge=1, le=1000)
    reads_per_minute: int | None = Field(default=None, ge=1, le=100_000)
    context_tokens: int | None = Field(default=None, ge=256)
    answer_tokens: int | None = Field(default=None, ge=1)
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
    models: tuple[ModelPattern, ...] = Field(
        default=("*",),
        description="Names or patterns of the models allowed. A pattern without a slash is for Ollama's own library "
        "(`llama3.2:*`), one with a slash for what it names (`hf.co/*`); `*` alone is for all.",
    )
    devices: tuple[Device, ...] = Field(
        (Device(name="default"),),
        min_length=1,
        description="Names of the devices, or objects where one needs more than a name.",
        json_schema_extra=or_each({"type": "string"}),
    )
    limits: UserLimits = UserLimits()
    epoch: Epoch = Field(default="1", description="Change it to renew this user's API key.")
    previous_epoch: Epoch | None = Field(
        default=None,
        description="The word that `epoch` had before: while this line stands, the old API key is valid too.",
    )

    @model_validator(mode="after")
    def _old_and_new_key_differ(self) -> Self:
        if self.previous_epoch is not None:
            differs(f"previous_epoch is {self.previous_epoch!r}", self.epoch, self.previous_epoch)
        return self

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
