"""Puts the plugins where Pulumi looks for them."""

import compileall
import os
import shutil
from pathlib import Path

from offline.build import alone, cache

VERSIONS = {"docker": "5.1.0", "command": "1.2.1", "random": "4.21.1", "tls": "5.5.1"}
"""Equal to the SDK packages in uv.lock: the engine compares the names of the folders."""


def source(digest: str) -> Path:
    """A copy of this package under its content, so that a changed checkout never changes a running plugin."""
    here = Path(__file__).parent.parent
    target = cache() / "kit-source" / digest
    with alone(target):
        if not target.exists():
            fresh = target.with_name(f".{digest}.{os.getpid()}")
            shutil.rmtree(fresh, ignore_errors=True)
            shutil.copytree(here, fresh / "offline", ignore=shutil.ignore_patterns("__pycache__"))
            # Now, and not by the first start: where PYTHONDONTWRITEBYTECODE is set, every start would do it again.
            compileall.compile_dir(fresh, quiet=1, stripdir=str(fresh), prependdir=str(target))
            fresh.rename(target)
    return target


def launcher(path: Path, python: Path, module: str, root: Path) -> None:
    """An executable that runs one module of the copied package; replaced by one rename."""
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    # -P: the engine starts plugins in the checkout, whose own `offline` must not be found first.
    fresh.write_text(f'#!/bin/sh\nPYTHONPATH="{root}" exec "{python}" -P -m {module} "$@"\n')
    fresh.chmod(0o755)
    fresh.rename(path)


def install(pulumi_home: Path, python: Path, digest: str) -> None:
    root = source(digest)
    for name, version in VERSIONS.items():
        folder = pulumi_home / "plugins" / f"resource-{name}-v{version}"
        folder.mkdir(parents=True, exist_ok=True)
        launcher(folder / f"pulumi-resource-{name}", python, f"offline.plugins.{name}", root)
