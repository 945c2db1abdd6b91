"""Where things lie on this machine. Everything outside the checkout is shared by all checkouts of this user."""

import os
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent


def _xdg(variable: str, default: str) -> Path:
    return Path(os.environ.get(variable) or Path.home() / default) / "ollama-fortress"


def cache() -> Path:
    """What can be made again: built tools, base images."""
    return _xdg("XDG_CACHE_HOME", ".cache")


def state() -> Path:
    """What must not be lost: Pulumi's state and the passphrase that opens it."""
    return _xdg("XDG_STATE_HOME", ".local/state")


def file_backend(url: str) -> Path | None:
    """The folder of Pulumi's state, read from a file:// address as Pulumi does (massageBlobPath at 3.259.0).

    Returns: None where the state lies in another kind of backend.
    """
    if not url.startswith("file://"):
        return None
    folder = url.removeprefix("file://").partition("?")[0]
    # `pulumi` runs in the checkout, wherever this was called.
    return Path.home() / folder[2:] if folder.startswith("~") else CHECKOUT / folder


def stack_file(stack: str) -> Path:
    return CHECKOUT / "stacks" / f"Pulumi.{stack}.yaml"


def bundles(stack: str) -> Path:
    return CHECKOUT / "bundles" / stack
