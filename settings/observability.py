"""How much is seen of a fortress: which parts watch it, for how long it is kept, and who hears of trouble."""

import re
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, GetCoreSchemaHandler, GetJsonSchemaHandler, SecretStr, model_validator
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

from settings.base import Email, Matching, Settings, set_secret


class Form(StrEnum):
    """The audit trail and the gateway's figures exist in each of them."""

    OFF = "off"
    LITE = "lite"
    """No further container; a Prometheus that you have may join the network `watch`."""
    FULL = "full"
    """Loki, Prometheus, Alertmanager, and Grafana where its image can be had."""


@dataclass(frozen=True)
class Hidden:
    """A secret of the config. What `fortress` reads without Pulumi has the word (encrypted) in its place."""

    place: str
    pattern: str
    what: str

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self._check, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        encrypted = {"type": "object", "properties": {"secure": {"type": "string"}}}
        return {"anyOf": [handler(schema), encrypted], "description": f"Encrypted: `{self._command}` asks for it."}

    @property
    def _command(self) -> str:
        return set_secret(f"observability.{self.place}")

    def _check(self, value: SecretStr) -> SecretStr:
        if not re.fullmatch(rf"{self.pattern}|\(encrypted\)", value.get_secret_value()):
            raise ValueError(f"{self.place.rpartition('.')[2]} is not {self.what}; run `{self._command}` again")
        return value


_WORD = r"[\x21-\x7e]{1,512}"
_URL = r"https?://[A-Za-z0-9.:\[\]-]{1,253}(/[\x21-\x7e]{0,1024})?"


class Retention(Settings):
    """For how many days what is seen is kept; not retroactive."""

    audit_days: int = Field(default=365, ge=1, le=3650, description="Audit lines, in Loki.")
    logs_days: int = Field(default=31, ge=1, le=3650, description="Other lines, in Loki.")
    metrics_days: int = Field(default=31, ge=1, le=3650, description="Figures, in Prometheus.")


class ObjectStorage(Settings):
    """An S3-compatible store for Loki's chunks, instead of the volume `loki`."""

    endpoint: Annotated[
        str,
        Matching(
            r"[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?(:[1-9][0-9]{0,4})?",
            "a host: write it like s3.eu-central-1.amazonaws.com or minio.example.com:9000, without https:// (TLS is "
            "always spoken)",
        ),
    ]
    bucket: Annotated[
        str, Matching(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]", "a bucket's name: lower-case letters, digits, '.' and '-'")
    ]
    region: Annotated[str, Matching(r"[a-z0-9-]{1,32}", "a region: write it like eu-central-1")] = "us-east-1"
    access_key: Annotated[str, Matching(r"[\x21-\x7e]{1,128}", "an access key: one word of visible characters")]
    secret_key: Annotated[SecretStr, Hidden("object_storage.secret_key", _WORD, "one word of visible characters")]
    ca_file: Path | None = Field(default=None, description="PEM authorities of your own store.")


class EmailReceiver(Settings):
    to: Email
    sender: Email
    server: Annotated[
        str,
        Matching(
            r"[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?:[1-9][0-9]{0,4}",
            "host:port of a mail server that speaks TLS: write it like smtp.example.com:587",
        ),
    ]
    user: Annotated[str, Matching(r"[\x21-\x7e]{1,255}", "a user's name at the mail server")]
    password: Annotated[SecretStr, Hidden("alerts.email.password", r"[\x20-\x7e]{1,512}", "a line of plain characters")]


class WebhookReceiver(Settings):
    """Alertmanager's own JSON, posted."""

    url: Annotated[SecretStr, Hidden("alerts.webhook.url", _URL, "an address that begins with https:// or http://")]


class TelegramReceiver(Settings):
    bot_token: Annotated[
        SecretStr, Hidden("alerts.telegram.bot_token", r"[0-9]{1,20}:[A-Za-z0-9_-]{20,100}", "a token of BotFather's")
    ]
    chat_id: int = Field(description="The chat that the bot is in; a group's is negative.")


class NtfyReceiver(Settings):
    url: Annotated[
        SecretStr,
        Hidden("alerts.ntfy.url", _URL, "the address of a topic, like https://ntfy.example.com/a-secret-topic"),
    ]
    token: Annotated[SecretStr, Hidden("alerts.ntfy.token", _WORD, "one word of visible characters")] | None = Field(
        default=None, description="Of a server with access control; encrypted."
    )


class AlertReceivers(Settings):
    """Each of those that are written hears of every alert."""

    email: EmailReceiver | None = None
    webhook: WebhookReceiver | None = None
    telegram: TelegramReceiver | None = None
    ntfy: NtfyReceiver | None = None

    @model_validator(mode="after")
    def _somebody_is_told(self) -> Self:
        if not self.any:
            raise ValueError("alerts names nobody; write email, webhook, telegram or ntfy, or delete the section")
        return self

    @property
    def any(self) -> bool:
        return any((self.email, self.webhook, self.telegram, self.ntfy))


class ObservabilitySettings(Settings):
    """`observability: full` alone is `{form: full}`."""

    form: Form = Form.LITE
    audit: Literal["available", "strict"] = Field(
        default="available",
        description="When the audit trail cannot be written, as on a full disk: go on, count and tell the lost lines; "
        "or answer 503.",
    )
    audit_file_mb: int = Field(
        default=64, ge=1, le=4096, description="The audit file is set aside when it is this large, and every day (UTC)."
    )
    audit_files_mb: int = Field(
        default=1024,
        ge=2,
        le=1_000_000,
        description="All audit files together: the oldest go first. A million requests are about 450 MB.",
    )
    audit_files_days: int = Field(default=400, ge=1, le=3660, description="Older files are deleted, of every trail.")
    retention: Retention = Field(default=Retention(), description="Of `form: full`.")
    object_storage: ObjectStorage | None = Field(default=None, description="Of `form: full`.")
    alerts: AlertReceivers | None = Field(
        default=None, description="Of `form: full`: who is told; nobody: alerts are only shown."
    )

    @property
    def watched(self) -> bool:
        """May the gateway's figures be read from beside it, on the network `watch`?"""
        return self.form is not Form.OFF

    @model_validator(mode="before")
    @classmethod
    def _one_word_is_the_form(cls, value: Any) -> Any:
        # YAML reads a bare `off` as false.
        word = "off" if value is False else value
        return {"form": word} if isinstance(word, str) else word

    @model_validator(mode="after")
    def _two_files_have_room(self) -> Self:
        if self.audit_files_mb < 2 * self.audit_file_mb:
            raise ValueError(
                f"audit_files_mb is {self.audit_files_mb}, but one audit file may have {self.audit_file_mb} MB, so "
                f"setting it aside would delete it at once. Write audit_files_mb: {2 * self.audit_file_mb} or more, or "
                f"audit_file_mb: {max(1, self.audit_files_mb // 2)} or less"
            )
        return self

    @model_validator(mode="after")
    def _nothing_is_written_for_parts_that_are_not_there(self) -> Self:
        if self.form is Form.FULL:
            return self
        for name in ("retention", "object_storage", "alerts"):
            if name in self.model_fields_set:
                raise ValueError(
                    f"{name} is written, but form is {self.form.value}, where nothing would heed it; write "
                    f"`form: full` beside it, or delete {name}"
                )
        return self
