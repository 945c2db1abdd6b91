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

PULUMI_VERSION = "3.272.0"
RELEASES = "https://get.pulumi.com/releases/sdk"
PROBE_TIMEOUT_S = 5.0
ENGINES = ("online", "registry-only")

BELOW_FLOORS = (
    "registry-only engine: Ollama 0.32.15 (floor 0.35.0) and nginx 1.30.6 (floor 1.30.7) are below the security "
    "floors; pull, push, create and uploads are closed. Not for production."
)


def releases() -> str:
    return os.environ.get("FORTRESS_PULUMI_RELEASES", RELEASES).rstrip("/")


def choose() -> str:
    """online where Pulumi's downloads answer, else registry-only."""
    forced = os.environ.get("FORTRESS_ENGINE")
    if forced is not None:
        if forced not in ENGINES:
            raise Stop(f"FORTRESS_ENGINE is {forced!r}; write {' or '.join(ENGINES)}, or unset it")
        return forced
    try:
        answer = httpx.head(f"{releases()}/pulumi-{PULUMI_VERSION}-checksums.txt", timeout=PROBE_TIMEOUT_S)
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
    """The official release, checked against its published checksums, unpacked once."""
    target = paths.cache() / "pulumi" / PULUMI_VERSION
    if (target / "pulumi").exists():
        return target
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
        raise Stop(f"cannot download pulumi {PULUMI_VERSION}: {error}. Try again, or set FORTRESS_ENGINE") from None
    expected = [line.split()[0] for line in sums.splitlines() if line.split()[1:] == [archive]]
    actual = hashlib.sha256(content).hexdigest()
    if expected != [actual]:
        raise Stop(
            f"{archive} has the checksum {actual}, but the release names {expected[0] if expected else 'none'}; "
            "nothing was installed. Try again; if it stays, something between here and Pulumi changes downloads"
        )
    fresh = target.with_name(f".{PULUMI_VERSION}-{os.getpid()}")
    shutil.rmtree(fresh, ignore_errors=True)
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        tar.extractall(fresh, filter="data")
    shutil.rmtree(target, ignore_errors=True)
    (fresh / "pulumi").rename(target)
    shutil.rmtree(fresh, ignore_errors=True)
    return target


def _get(url: str) -> bytes:
    answer = httpx.get(url, timeout=120, follow_redirects=True)
    answer.raise_for_status()
    return answer.content
