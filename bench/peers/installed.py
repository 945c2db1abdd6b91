"""The gateways to compare with, from PyPI and npm, each in a folder of its own in the user's cache.

Only what a lock file with hashes in this folder names is installed, and no install script is run. Nothing of it is
needed to deploy or to test.
"""

import hashlib
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from fortress import paths
from fortress.errors import Stop
from offline import build

HERE = Path(__file__).parent
UV = Path(sys.executable).parent / "uv"


def litellm() -> Path:
    """Its Python. Releases 1.82.7 and 1.82.8 held a trojan: litellm.in excludes them, litellm.txt has hashes."""
    lock = HERE / "litellm.txt"

    def install(folder: Path) -> None:
        _run([UV, "venv", "--quiet", "--python", sys.executable, folder])
        python = folder / "bin" / "python"
        # Nothing is built: an install script would run whatever it likes.
        more = ["--require-hashes", "--only-binary", ":all:", "--link-mode", "copy"]
        _run([UV, "pip", "install", "--quiet", "--python", python, *more, "-r", lock])

    return _once("litellm", [lock], install) / "bin" / "python"


def portkey() -> Path:
    """The gateway's module for Node.

    @hono/node-server is held at 1.13.8: with newer ones every stream of this gateway ends in a 500 ("immutable").
    """
    locks = [HERE / "portkey" / name for name in ("package.json", "package-lock.json")]
    npm = shutil.which("npm")
    if npm is None:
        raise Stop("npm is missing: Node 20 or newer with npm must be on PATH to compare with Portkey's gateway")

    def install(folder: Path) -> None:
        folder.mkdir()
        for file in locks:
            shutil.copy(file, folder)
        _run([npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--silent"], folder)

    home = _once("portkey", locks, install)
    return home / "node_modules" / "@portkey-ai" / "gateway" / "build" / "start-server.js"


def _once(name: str, locks: Sequence[Path], install: Callable[[Path], None]) -> Path:
    digest = hashlib.sha256(b"".join(lock.read_bytes() for lock in locks)).hexdigest()[:16]
    home, done = paths.cache() / "bench" / f"{name}-{digest}", ".installed"
    with build.alone(home):
        # In its own place: a virtualenv does not bear being moved.
        if not (home / done).exists():
            shutil.rmtree(home, ignore_errors=True)
            install(home)
            (home / done).touch()
    return home


def _run(command: Sequence[str | Path], folder: Path = HERE) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise Stop(f"{' '.join(map(str, command))[:200]} ended with {done.returncode}:\n{done.stderr.strip()[-2000:]}")
