"""The base image of the registry-only engine: a minimal Debian sid, made by debootstrap and `docker import`.

Sid, because only there nginx and njs are new enough. The tree is kept as a tarball in the user's cache, so the image
comes back in a second after the engine lost it.
"""

import hashlib
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import docker
from docker.errors import APIError, ImageNotFound

from images.catalogue import Catalogue, ImageError
from offline.build import alone, cache, workshop

OURS = "fortress.invalid"
"""The registry in the name of every image that we build: one that never resolves (RFC 2606).

Where such an image is missing, `docker run`, a build on top of it and the official Docker plugin all pull that name:
without a registry in it, from a folder of the public one that anybody may own.
"""
SUITE = "sid"
# Documentation, translations and download leftovers; apt-install keeps later packages from bringing them back.
UNNEEDED = (
    *(f"usr/share/{kind}" for kind in ("doc", "info", "lintian", "locale", "man")),
    "var/cache/apt",
    "var/lib/apt/lists",
    "var/log",
)
MODE = 0o755
"""Of those folders, which come back empty: as packages expect them, whatever umask this runs under."""


def tag(catalogue: Catalogue) -> str:
    recipe = "\0".join([SUITE, "minbase", *UNNEEDED, oct(MODE), catalogue.packages_of.isoformat()])
    return f"{OURS}/base:{hashlib.sha256(recipe.encode()).hexdigest()[:12]}"


def ensure(client: docker.DockerClient, name: str, say: Callable[[str], None]) -> None:
    """Leave with the image `name` on the engine."""
    try:
        client.images.get(name)
        return
    except ImageNotFound:
        pass
    tarball = cache() / "base" / f"{name.rpartition(':')[2]}.tar"
    with alone(tarball):
        if not tarball.exists():
            _make(tarball, say)
    say("importing")
    repository, _, version = name.partition(":")
    try:
        client.api.import_image_from_file(str(tarball), repository=repository, tag=version, changes=['CMD ["/bin/sh"]'])
    except APIError as error:
        raise ImageError(f"the Docker engine did not take the base image: {error}") from None


def _make(tarball: Path, say: Callable[[str], None]) -> None:
    if shutil.which("debootstrap") is None:
        raise ImageError("the registry-only engine makes its base image with debootstrap: apt-get install debootstrap")
    if os.geteuid() != 0:
        raise ImageError("debootstrap needs root: run `fortress images build --engine registry-only` once as root")
    mirror = os.environ.get("FORTRESS_DEBIAN_MIRROR")
    with workshop(tarball) as work:
        root = work / "root"
        # A mount namespace of its own: what debootstrap mounts is gone with it, even when it is killed.
        isolated = ["unshare", "--mount", "--propagation", "private"]
        command = ["debootstrap", "--variant=minbase", "--force-check-gpg", SUITE, str(root), *filter(None, [mirror])]
        with subprocess.Popen(
            [*isolated, *command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, text=True
        ) as process:
            last = ""
            assert process.stdout is not None
            for line in process.stdout:
                last = line.strip().removeprefix("I: ") or last
                say(last)
        if process.returncode != 0:
            raise ImageError(f"debootstrap {SUITE} failed: {last}. Is the Debian mirror reachable?")
        for unneeded in UNNEEDED:
            shutil.rmtree(root / unneeded, ignore_errors=True)
            (root / unneeded).mkdir(parents=True)
            (root / unneeded).chmod(MODE)
        say("packing")
        packed = work / "base.tar"
        subprocess.run(["tar", "--numeric-owner", "--one-file-system", "-C", root, "-cf", packed, "."], check=True)
        packed.rename(tarball)
