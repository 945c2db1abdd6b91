"""How much is seen of a fortress: which parts watch it, and what happens when the trail cannot be written."""

from enum import StrEnum
from typing import Any, Literal

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

    @model_validator(mode="before")
    @classmethod
    def _one_word_is_the_form(cls, value: Any) -> Any:
        # YAML reads a bare `off` as false.
        word = "off" if value is False else value
        return {"form": word} if isinstance(word, str) else word
