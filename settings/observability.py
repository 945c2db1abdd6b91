"""How much is seen of a fortress: which parts watch it, and what happens when the trail cannot be written."""

from enum import StrEnum
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from settings.base import Settings


class Form(StrEnum):
    """The audit trail and the gateway's figures exist in each of them."""

    OFF = "off"
    LITE = "lite"
    """No further container; a Prometheus that you have may join the network `watch`."""
    FULL = "full"
    """Loki, Prometheus, Alertmanager, and Grafana where its image can be had."""


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
    audit_days: int = Field(default=400, ge=1, le=3660, description="Older audit files are deleted.")

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
    def _two_files_at_least(self) -> Self:
        if self.audit_files_mb < 2 * self.audit_file_mb:
            raise ValueError(
                f"audit_files_mb is {self.audit_files_mb}, but one audit file may have {self.audit_file_mb} MB, so "
                f"setting it aside would delete it at once. Write audit_files_mb: {2 * self.audit_file_mb} or more, or "
                f"audit_file_mb: {self.audit_files_mb // 2} or less"
            )
        return self
