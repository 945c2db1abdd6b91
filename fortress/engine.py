"""Which engine runs the program: Pulumi's own downloads (online), or the registry-only kit.

Most machines are online. The choice is made once, by asking, and can be forced with
FORTRESS_ENGINE=online|registry-only.
"""

import hashlib
import io
import os
import platform
import shutil
import sys
import tarfile
from pathlib import Path

import httpx
from rich.console import Console

from fortress import paths
from fortress.errors import Stop
from images import catalogue
from offline.build import alone, workshop

PULUMI_VERSION = "3.272.0"
RELEASES = "https://get.pulumi.com/releases/sdk"
PROBE_TIMEOUT_S = 5.0
ENGINES = ("online", "registry-only")


def releases() -> str:
    return os.environ.get("FORTRESS_PULUMI_RELEASES", RELEASES).rstrip("/")


def shortcomings(engine: str) -> str | None:
    """What to say at the start of a run on this engine; nothing online."""
    if engine == "online":
        return None
    below = catalogue.below_floors(engine)
    return (
        f"registry-only engine: {' and '.join(below) or 'nothing is below a security floor'}; pull, push, create and "
        "uploads are closed. Not for production."
    )


def choose() -> str:
    """online where Pulumi's downloads answer, else registry-only."""
    forced = os.environ.get("FORTRESS_ENGINE")
    if forced is not None:
        if forced not in ENGINES:
            raise Stop(f"FORTRESS_ENGINE is {forced!r}; write {' or '.join(ENGINES)}, or unset it")
        return forced
    try:
        answer = httpx.head(
            f"{releases()}/pulumi-{PULUMI_VERSION}-checksums.txt", timeout=PROBE_TIMEOUT_S, follow_redirects=True
        )
        return "online" if answer.is_success else "registry-only"
    except httpx.HTTPError:
        return "registry-only"


def prepare(engine: str, console: Console) -> tuple[Path, Path]:
    """Leave with a `pulumi` command that can run this program.

    Returns: (folder with `pulumi` and its language host, PULUMI_HOME).
    """
    if engine == "online":
        return _download(console), paths.state() / "pulumi-home"
    from offline.kit import prepare as prepare_kit

    return prepare_kit(console, python=Path(sys.executable))


def _download(console: Console) -> Path:
    """The official release, checked against its published checksums, unpacked once; it gets its name when whole."""
    target = paths.cache() / "pulumi" / PULUMI_VERSION
    if not (target / "pulumi").exists():
        with alone(target):
            if not (target / "pulumi").exists():
                _install(target, console)
    return target


def _install(target: Path, console: Console) -> None:
    system = platform.system().lower()
    machine = {"x86_64": "x64", "amd64": "x64", "aarch64": "arm64", "arm64": "arm64"}.get(platform.machine().lower())
    if system not in ("linux", "darwin") or machine is None:
        raise Stop(f"Pulumi has no release for {platform.system()} {platform.machine()} that this program can unpack")
    archive = f"pulumi-v{PULUMI_VERSION}-{system}-{machine}.tar.gz"
    console.print(f"downloading pulumi {PULUMI_VERSION}")
    try:
        sums = _get(f"{releases()}/pulumi-{PULUMI_VERSION}-checksums.txt").decode()
        content = _get(f"{releases()}/{archive}")
    except httpx.HTTPError as error:
        raise Stop(f"cannot download pulumi {PULUMI_VERSION}: {error}; try again, or set FORTRESS_ENGINE") from None
    expected = [line.split()[0] for line in sums.splitlines() if line.split()[1:] == [archive]]
    actual = hashlib.sha256(content).hexdigest()
    if expected != [actual]:
        named = " and ".join(expected) or "none"
        raise Stop(
            f"{archive} has the checksum {actual}, but the release names {named}, so nothing was installed; try again, "
            "and if it stays, something between here and Pulumi changes downloads"
        )
    with workshop(target) as work:
        with tarfile.open(fileobj=io.BytesIO(content)) as tar:
            tar.extractall(work, filter="data")
        shutil.rmtree(target, ignore_errors=True)
        (work / "pulumi").rename(target)


def _get(url: str) -> bytes:
    answer = httpx.get(url, timeout=120, follow_redirects=True)
    answer.raise_for_status()
    return answer.content
