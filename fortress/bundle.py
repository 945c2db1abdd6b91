"""Bundles on disk: written for their user alone, and replaced only where they are the bundle's own."""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path

import segno
from rich.console import Console

from fortress.errors import Stop

MANIFEST = ".bundle.json"
EXECUTABLE = ("fortress-run",)


def write_bundle(stack: str, user: str, files: Mapping[str, str], folder: Path) -> None:
    """Write all files of one user. A file that somebody else put there, or changed, is left and named."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    folder.chmod(0o700)
    contents = {name: text.encode() for name, text in files.items()}
    for name, text in files.items():
        if name.startswith("wireguard-") and name.endswith(".conf"):
            contents[name.removesuffix(".conf") + ".png"] = _png(text)
    before = _manifest(folder)
    strangers = [name for name in contents if (folder / name).exists() and _digest(folder / name) != before.get(name)]
    strangers = [name for name in strangers if (folder / name).read_bytes() != contents[name]]
    if strangers:
        raise Stop(
            f"{folder / strangers[0]} was not written by this bundle, or was changed since; move it away, then run "
            "this again"
        )
    manifest = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    # Written first: a file of an interrupted run is the bundle's own too.
    _write(folder / MANIFEST, json.dumps({"stack": stack, "user": user, "files": before | manifest}).encode(), 0o600)
    for name in sorted(set(before) - set(contents)):
        if (folder / name).exists() and _digest(folder / name) == before[name]:
            (folder / name).unlink()
    for name, content in contents.items():
        _write(folder / name, content, 0o700 if name in EXECUTABLE else 0o600)
    _write(folder / MANIFEST, json.dumps({"stack": stack, "user": user, "files": manifest}).encode(), 0o600)


def remove_bundle(folder: Path) -> None:
    """Remove what the bundle wrote; the folder goes too where nothing else is in it."""
    for name, digest in _manifest(folder).items():
        if (folder / name).exists() and _digest(folder / name) == digest:
            (folder / name).unlink()
    (folder / MANIFEST).unlink(missing_ok=True)
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()


def show(console: Console, files: Mapping[str, str], folder: Path) -> None:
    for name, text in sorted(files.items()):
        if name.startswith("wireguard-"):
            console.print(f"\n[bold]{name}[/]: scan with the WireGuard app")
            segno.make(text, error="l").terminal(compact=True)
    console.print(f"written to {folder}")


def _png(text: str) -> bytes:
    from io import BytesIO

    out = BytesIO()
    segno.make(text, error="l").save(out, kind="png", scale=6, border=4)
    return out.getvalue()


def _manifest(folder: Path) -> dict[str, str]:
    path = folder / MANIFEST
    return dict(json.loads(path.read_text())["files"]) if path.exists() else {}


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _write(path: Path, content: bytes, mode: int) -> None:
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "wb") as file:
        file.write(content)
    fresh.rename(path)
