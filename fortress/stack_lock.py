"""Pulumi's own lock on a stack: cleared where its holder is dead, respected where it may be alive.

`make up` keeps a lock of its own (fortress/up.py); this one is also taken by a plain `pulumi up` in another terminal,
and it outlives a killed one.
"""

import json
import os
import platform
from dataclasses import dataclass
from pathlib import Path

from fortress import paths
from settings import PROJECT


@dataclass(frozen=True)
class Holder:
    """Who wrote a lock, as Pulumi's file backend notes it (pkg/backend/diy/lock.go at 3.259.0)."""

    pid: int
    user: str
    machine: str
    since: str

    def __str__(self) -> str:
        return f"{self.user}@{self.machine} (process {self.pid}, since {self.since[:19].replace('T', ' ')})"

    @property
    def may_be_alive(self) -> bool:
        """False only where that is certain: a process of this machine that is gone, or is not `pulumi` any more."""
        if self.machine != platform.node():
            return True
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            return True
        name = Path(f"/proc/{self.pid}/comm")
        return not name.exists() or name.read_text().startswith("pulumi")


def holders(backend: str, stack: str) -> list[Holder]:
    """Everybody who holds the stack. Other backends than file:// are not read: there Pulumi's own refusal counts."""
    root = paths.file_backend(backend)
    if root is None:
        return []
    folder = root / ".pulumi" / "locks" / "organization" / PROJECT / stack
    return [holder for path in sorted(folder.glob("*.json")) if (holder := _read(path)) is not None]


def _read(path: Path) -> Holder | None:
    try:
        noted = json.loads(path.read_text())
        return Holder(int(noted["pid"]), str(noted["username"]), str(noted["hostname"]), str(noted["timestamp"]))
    except FileNotFoundError:
        return None  # given back between the listing and the reading
    except (ValueError, KeyError, TypeError):
        # A lock without a name on it: nobody can be asked, so the person decides.
        return Holder(0, "somebody", "an unknown machine", "an unknown time")
