"""The catalogue of images: what is pulled, by which digest, and what is below its security floor."""

import os
import re
from collections.abc import Collection
from datetime import date
from pathlib import Path
from typing import Annotated, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from fortress.errors import Stop

FILE = Path(__file__).with_name("catalogue.yaml")
UNRESOLVED = "unresolved"
MIRROR = "FORTRESS_REGISTRY"

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
    floor: Version | None = Field(default=None, description="Where nothing is built from it that has a floor itself.")

    @property
    def version(self) -> str | None:
        """The version that the tag names; a tag like sid-slim names none."""
        found = re.match(r"v?(\d+\.\d+(\.\d+)?)(-|$)", self.tag)
        return found[1] if found else None

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

    def least(self, mode: str) -> str:
        """The version below which this engine's image is not built."""
        return self.floor if mode == "online" else self.registry_only


class Catalogue(_Entry):
    pulled: dict[str, Pulled]
    built: dict[str, Built]
    packages_of: date = Field(description="Part of every tag; raised to take Debian's packages anew.")

    @model_validator(mode="after")
    def _no_tag_is_below_its_floor(self) -> Self:
        for name, entry in self.pulled.items():
            floor = self.built[name].floor if name in self.built else entry.floor
            if entry.version and floor and numbers(entry.version) < numbers(floor):
                raise ValueError(
                    f"{name}: {entry.tagged} is below the security floor {floor}; write {floor} or newer as its tag, "
                    "then run `bin/fortress images lock`"
                )
        return self

    def unresolved(self, wanted: Collection[str]) -> list[str]:
        """Of the pulled images that are wanted, those without a digest."""
        return [name for name, entry in self.pulled.items() if name in wanted and not entry.resolved]

    def ollama_version(self, mode: str) -> str:
        """The server that this engine has; its routes are the ones that the gateway opens."""
        if mode != "online":
            return self.built["ollama"].registry_only
        entry = self.pulled["ollama"]
        if entry.version is None:
            raise ImageError(f"the tag of {entry.tagged} names no version; write one like 0.35.0 in {FILE.name}")
        return entry.version


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
        if numbers(entry.registry_only) < numbers(entry.floor)
    ]


def at(reference: str) -> str:
    """Where a reference is pulled from: behind the prefix in FORTRESS_REGISTRY, where that is set.

    Not part of any tag: a digest names the same bytes in every registry.
    """
    mirror = os.environ.get(MIRROR, "").rstrip("/")
    if not mirror:
        return reference
    host = mirror.partition("/")[0]
    if not re.fullmatch(r"[A-Za-z0-9.-]+(:[0-9]+)?(/[a-z0-9._-]+)*", mirror):
        raise ImageError(
            f"{MIRROR} is {mirror!r}; write it like registry.example.com:5000 or .../folder, without https://"
        )
    if not (host == "localhost" or "." in host or ":" in host):
        # The engine would take such a word for somebody's folder in the public registry.
        raise ImageError(f"{MIRROR} is {mirror!r}, whose {host!r} is no host name with a dot or a port; add one")
    return f"{mirror}/{reference}"


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


def numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))
