"""The images this program runs: one folder with a Dockerfile for each that we build, a catalogue of those we pull.

A tag is the hash of everything that decides an image, so a new image is a new tag: a visible change in the preview.
Nothing about a machine is in it: the same checkout gives the same tags everywhere.
"""

import hashlib
from collections.abc import Collection
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from images import base
from images.catalogue import Catalogue, ImageError, load
from offline import build as go
from settings import Form, StackSettings

__all__ = [
    "GRAFANA",
    "LOGIN",
    "MODES",
    "NAMES",
    "WATCHERS",
    "ImageError",
    "Recipe",
    "needed",
    "optional",
    "pulled_for",
    "recipe",
    "reference",
]

HERE = Path(__file__).parent
NAMES = ("gateway", "vpn-node", "ollama", "client")
"""Those of every stack."""
LOGIN = "login"
"""Only where somebody signs people in at the browser's page."""
WATCHERS = ("collector", "loki", "prometheus", "alertmanager", "node-exporter")
"""Only with `observability: full`."""
GRAFANA = "grafana"
"""With them where its image can be pulled: nobody builds it from packages."""
MODES = ("online", "registry-only")


@dataclass(frozen=True)
class Recipe:
    """All that decides one image."""

    name: str
    dockerfile: str
    files: dict[str, Path]
    """Path in the build context -> the file, for what lies in this checkout."""
    arguments: dict[str, str]
    """Build arguments: the images it is built from, each named by content, and the versions that it must have."""
    binaries: dict[str, str]
    """Path in the build context -> the Go program of the registry-only kit that goes there."""
    packages_of: str

    @property
    def tag(self) -> str:
        digest = hashlib.sha256()
        for path, file in sorted(self.files.items()):
            executable = bool(file.stat().st_mode & 0o100)
            _add(digest, path, str(executable), file.read_bytes())
        for path, tool in sorted(self.binaries.items()):
            # Not the binary's bytes: those differ from one Go version to the next, and with them the plan would.
            _add(digest, path, go.key(go.TOOLS[tool], "any"))
        for name, value in sorted(self.arguments.items()):
            _add(digest, name, value)
        _add(digest, self.dockerfile, self.packages_of)
        return f"{base.OURS}/{self.name}:{digest.hexdigest()[:12]}"


_SHARED = {
    "trails": ("gateway", "vpn-node", LOGIN),
    "watchers": (*WATCHERS, GRAFANA),
}
"""Folder -> the images that take scripts from it."""
_PROGRAMS = {LOGIN: "oauth2-proxy", "collector": "collector", "loki": "loki"}
"""Image -> the Go program in it, on both engines."""


def optional(mode: str) -> tuple[str, ...]:
    """The images that only some stacks need."""
    return (LOGIN, *WATCHERS, *((GRAFANA,) if mode == "online" else ()))


def needed(settings: StackSettings) -> tuple[str, ...]:
    """The images of one stack."""
    login = (LOGIN,) if settings.login else ()
    if settings.observability.form is not Form.FULL:
        return (*NAMES, *login)
    return (*NAMES, *login, *WATCHERS, *((GRAFANA,) if settings.grafana else ()))


def pulled_for(names: Collection[str]) -> tuple[str, ...]:
    """What the online engine pulls to build these images."""
    return ("debian", "ollama", *(name for name in ("prometheus", GRAFANA) if name in names))


def recipe(name: str, mode: str, catalogue: Catalogue | None = None, folder: Path = HERE) -> Recipe:
    """What `name` is made of under this engine."""
    if mode not in MODES:
        raise ImageError(f"there is no engine {mode!r}; write {' or '.join(MODES)}")
    known = (*NAMES, *optional(mode))
    if name not in known:
        raise ImageError(f"there is no image {name!r} on the {mode} engine; known: {', '.join(known)}")
    catalogue = catalogue or load()
    registry_only = mode == "registry-only"
    arguments = {
        "BASE": base.tag(catalogue) if registry_only else catalogue.pulled["debian"].pinned,
        # The engine's build cache would otherwise keep the old packages under the new tag.
        "PACKAGES_OF": catalogue.packages_of.isoformat(),
    }
    dockerfile = f"{name}/Dockerfile"
    binaries: dict[str, str] = {}
    if name == "ollama" and registry_only:
        binaries = {"bin/ollama": "ollama"}
    if name == "ollama" and not registry_only:
        dockerfile = "ollama/online.Dockerfile"
        arguments = {"BASE": catalogue.pulled["ollama"].pinned}
    if name == "prometheus" and not registry_only:
        dockerfile = "prometheus/online.Dockerfile"
        arguments["OFFICIAL"] = catalogue.pulled["prometheus"].pinned
    if name == GRAFANA:
        arguments = {"BASE": catalogue.pulled[GRAFANA].pinned}
    if name in _PROGRAMS:
        binaries = {f"bin/{_PROGRAMS[name]}": _PROGRAMS[name]}
    if name == "client":
        arguments["OLLAMA"] = recipe("ollama", mode, catalogue, folder).tag
    if name == "ollama":
        arguments["VERSION"] = catalogue.ollama_version(mode)
    if name in catalogue.built:
        arguments["FLOOR"] = catalogue.built[name].least(mode)
    files = {
        file.relative_to(folder).as_posix(): file
        for part in ("common", name, *(folder for folder, those in _SHARED.items() if name in those))
        for file in sorted((folder / part).rglob("*"))
        if file.is_file()
    }
    return Recipe(name, dockerfile, files, arguments, binaries, catalogue.packages_of.isoformat())


def reference(name: str, mode: str = "online", *, check: bool = True, engine: str | None = None) -> str:
    """The literal that the program refers to.

    engine: address of the Docker engine that must have it (unix://...); without, the one that DOCKER_HOST names.
    Raises: ImageError naming the command to run, when the image is not on that engine. `check=False` asks no engine:
    for tests, and for a host reached by SSH, so that a stack can be planned where that host is not reached; an image
    that is missing there is said when its container is made.
    """
    tag = recipe(name, mode).tag
    if check and not _on_the_engine(tag, engine):
        raise ImageError(
            f"the image {tag} is not on the Docker engine yet; run `fortress images build --engine {mode}`"
            f"{' --stack NAME, with the name of the stack' if name not in NAMES else ''}"
        )
    return tag


@cache
def _on_the_engine(tag: str, engine: str | None) -> bool:
    import docker
    from docker.errors import DockerException, ImageNotFound

    try:
        client = docker.DockerClient(base_url=engine, timeout=20) if engine else docker.from_env(timeout=20)
        try:
            client.images.get(tag)
        finally:
            client.close()
    except ImageNotFound:
        return False
    except DockerException as error:
        raise ImageError(f"no Docker engine answers ({error}); start it, or run `make up`, which does") from None
    return True


def _add(digest: "hashlib._Hash", *parts: str | bytes) -> None:
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        digest.update(len(data).to_bytes(8, "big") + data)
