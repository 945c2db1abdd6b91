"""What one nginx worker has used, as its kernel counts it."""

from collections.abc import Sequence
from dataclasses import dataclass

from tests.deployment import Client, docker

# The kernel's own files, read inside of the container: process numbers are its own there.
_SCRIPT = """\
for each in /proc/[0-9]*; do
    case "$(tr '\\0' ' ' <"$each/cmdline")" in
    "nginx: worker process "*) echo "$each"; cat "$each/schedstat"; grep VmRSS "$each/status" ;;
    esac
done
"""


@dataclass(frozen=True)
class Used:
    seconds: float
    """Processor time since it was started."""
    megabytes: float
    """Resident memory, what it shares with others included (RSS)."""


def used(container: str) -> Used:
    """Of a container's only worker.

    Raises: AssertionError where there is another number of them: after a reload an old one may still serve.
    """
    lines = _lines(container)
    assert len(lines) == 3, f"{len(lines) // 3} nginx workers instead of one"
    return Used(int(lines[1].split()[0]) / 1e9, int(lines[2].split()[1]) * 1024 / 1e6)


def fresh(container: str) -> None:
    """A reload, and a worker that nobody has asked yet, alone: memory that one has used once, it keeps."""
    before = _lines(container)
    docker("kill", "--signal", "HUP", container)
    Client.wait_until(lambda: _renewed(before, _lines(container)), "new worker", 60)


def _renewed(before: Sequence[str], now: Sequence[str]) -> bool:
    return len(now) == len(before) and now[0] != before[0]


def _lines(container: str) -> list[str]:
    """Of each worker its number, its times, and its memory."""
    return docker("exec", container, "sh", "-c", _SCRIPT).splitlines()
