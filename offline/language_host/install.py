"""Puts the language host beside the `pulumi` that will call it."""

from pathlib import Path

from offline.plugins.install import launcher, source


def install(bin_dir: Path, python: Path, digest: str) -> None:
    launcher(bin_dir / "pulumi-language-python", python, "offline.language_host", source(digest))
