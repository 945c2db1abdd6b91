"""The catalogue of images: what is pulled, by which digest, and what is below its security floor."""

import os
import re
from datetime import date
from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from fortress.errors import Stop

FILE = Path(__file__).with_name("catalogue.yaml")
UNRESOLVED = "unresolved"

Version = Annotated[str, StringConstraints(pattern=r"^\d+\.\d+(\.\d+)?$")]
Digest = Annotated[str, StringConstraints(pattern=r"^sha256:[0-9a-f]{64}$")]


class ImageError(Stop):
    """An image that cannot be had, in words that say what to do."""


class _Entry(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Pulled(_Entry):
    repository: Annotated[str, StringConstraints(pattern=r"^[a-z0-9]+([./_-][a-z0-9]+)*$")]
    tag: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$")]
    digest: Digest | Literal["unresolved"]
    floor: Version | None = None

    @property
    def resolved(self) -> bool:
        return self.digest != UNRESOLVED

    @property
    def tagged(self) -> str:
        return f"{self.repository}:{self.tag}"

    @property
    def pinned(self) -> str:
        """What is built from: never a tag, which can be moved."""
        if not self.resolved:
            raise ImageError(
                f"the catalogue has no digest for {self.tagged} yet; run `fortress images lock` where a registry is "
                "reachable, and commit images/catalogue.yaml"
            )
        return f"{self.repository}@{self.digest}"


class Built(_Entry):
    program: str
    floor: Version
    registry_only: Version


class Catalogue(_Entry):
    pulled: dict[str, Pulled]
    built: dict[str, Built]
    packages_of: date = Field(description="Part of every tag; raised to take Debian's packages anew.")

    def unresolved(self) -> list[str]:
        return [name for name, entry in self.pulled.items() if not entry.resolved]


def load(file: Path = FILE) -> Catalogue:
    # BaseLoader: every scalar stays text, so that the version 1.30 never becomes the number 1.3.
    return Catalogue.model_validate(yaml.load(file.read_text(), Loader=yaml.BaseLoader))  # noqa: S506


def below_floors(mode: str) -> list[str]:
    """What this engine's images fall short of, a sentence each; empty online."""
    if mode == "online":
        return []
    return [
        f"{entry.program} {entry.registry_only} is below the security floor {entry.floor}"
        for entry in load().built.values()
        if _numbers(entry.registry_only) < _numbers(entry.floor)
    ]


def lock(digests: dict[str, str], file: Path = FILE) -> None:
    """Write digests into the catalogue, and leave its comments and order as they are."""
    text = file.read_text()
    for name, digest in digests.items():
        pattern = rf"(?m)^(  {re.escape(name)}:\n(?:    .*\n)*?    digest: ).*$"
        text, found = re.subn(pattern, lambda match, digest=digest: match[1] + digest, text, count=1)
        if not found:
            raise ImageError(f"{file.name} has no digest line for {name!r} to write to")
    fresh = file.with_name(f".{file.name}.{os.getpid()}")
    fresh.write_text(text)
    load(fresh)
    fresh.replace(file)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))
