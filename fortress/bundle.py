"""Bundles on disk: written for their user alone, and replaced only where they are the bundle's own."""

import hashlib
import json
import os
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import segno
from rich.console import Console

from fortress.errors import Stop
from render.wireguard import OWN_KEY

MANIFEST = ".bundle.json"
EXECUTABLE = ("fortress-run",)


def write_bundle(stack: str, user: str, files: Mapping[str, str], folder: Path) -> None:
    """Write all files of one user. A file that somebody else put there, or changed, is left and named.

    May be interrupted at any moment and called again.
    """
    contents = _contents(files)
    before = _manifest(folder)
    owner = (before.get("stack", stack), before.get("user", user))
    if owner != (stack, user):
        raise Stop(f"{folder} holds the bundle of {owner[1]!r} (stack {owner[0]!r}); name another folder with --out")
    written = _written(before)
    strangers = [
        name
        for name, content in contents.items()
        if _there(folder / name)
        and _digest(folder / name) not in {*written.get(name, ()), hashlib.sha256(content).hexdigest()}
    ]
    if strangers:
        raise Stop(
            f"{folder / strangers[0]} was not written by this bundle, or was changed since; move it away, then run "
            "this again"
        )
    if before or not folder.exists():
        # A folder that the user already had keeps its mode: `--out ~` must not lock others out of it.
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        folder.chmod(0o700)
    fresh = {name: [hashlib.sha256(content).hexdigest()] for name, content in contents.items()}
    # Old and new hashes first: a run that ends between two files must not make its own files strangers.
    both = {name: [*written.get(name, []), *fresh.get(name, [])] for name in {**written, **fresh}}
    _write_manifest(folder, stack, user, both)
    for name in sorted(set(written) - set(contents)):
        _remove_own(folder, name, written[name])
    for name, content in contents.items():
        _write(folder / name, content, 0o700 if name in EXECUTABLE else 0o600)
    _write_manifest(folder, stack, user, fresh)


def remove_bundle(folder: Path) -> None:
    """Remove what the bundle wrote; the folder goes too where nothing else is in it."""
    for name, digests in _written(_manifest(folder)).items():
        _remove_own(folder, name, digests)
    (folder / MANIFEST).unlink(missing_ok=True)
    _half(folder / MANIFEST).unlink(missing_ok=True)
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()


def show(console: Console, files: Mapping[str, str], folder: Path) -> None:
    for name, text in sorted(files.items()):
        if _scannable(name, text):
            console.print(f"\n[bold]{name}[/]: scan with the WireGuard app")
            segno.make(text, error="l").terminal(compact=True)
    console.print(f"written to {folder}")


def _contents(files: Mapping[str, str]) -> dict[str, bytes]:
    """File name -> bytes, QR codes included."""
    contents = {name: text.encode() for name, text in files.items()}
    for name, text in files.items():
        if _scannable(name, text):
            contents[name.removesuffix(".conf") + ".png"] = _png(text)
    for name in contents:
        if Path(name).name != name or name == MANIFEST:
            raise ValueError(f"{name!r} is no name of a file in a bundle")
    return contents


def _scannable(name: str, text: str) -> bool:
    """A file that waits for its device's own private key is of no use to a camera."""
    return name.startswith("wireguard-") and name.endswith(".conf") and OWN_KEY not in text


def _png(text: str) -> bytes:
    out = BytesIO()
    segno.make(text, error="l").save(out, kind="png", scale=6, border=4)
    return out.getvalue()


def _manifest(folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST
    return dict(json.loads(path.read_text())) if path.exists() else {}


def _written(manifest: Mapping[str, Any]) -> dict[str, list[str]]:
    """File name -> hashes of what the bundle wrote there."""
    return {name: [hashes] if isinstance(hashes, str) else hashes for name, hashes in manifest.get("files", {}).items()}


def _write_manifest(folder: Path, stack: str, user: str, files: Mapping[str, list[str]]) -> None:
    _write(folder / MANIFEST, json.dumps({"stack": stack, "user": user, "files": files}).encode(), 0o600)


def _remove_own(folder: Path, name: str, digests: list[str]) -> None:
    _half(folder / name).unlink(missing_ok=True)
    if _there(folder / name) and _digest(folder / name) in digests:
        (folder / name).unlink()


def _there(path: Path) -> bool:
    return path.is_symlink() or path.exists()


def _digest(path: Path) -> str:
    """Of a regular file; anything else is nobody's bundle."""
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() and not path.is_symlink() else ""


def _half(path: Path) -> Path:
    """Where a file grows until it is whole; one name, so that the next run finds what this one left."""
    return path.with_name(f".{path.name}.half")


def _write(path: Path, content: bytes, mode: int) -> None:
    half = _half(path)
    half.unlink(missing_ok=True)
    # O_EXCL: in a folder that others may write, a link put here first would send the keys elsewhere.
    with os.fdopen(os.open(half, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        file.write(content)
    half.rename(path)
