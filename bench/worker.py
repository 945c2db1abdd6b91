"""What one nginx worker has used, as its kernel counts it."""

from dataclasses import dataclass

from tests.deployment import docker

# The kernel's own files, read inside of the container: process numbers are its own there.
_SCRIPT = """\
for each in /proc/[0-9]*; do
    case "$(tr '\\0' ' ' <"$each/cmdline")" in
    "nginx: worker process "*) cat "$each/schedstat"; grep VmRSS "$each/status" ;;
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
    lines = docker("exec", container, "sh", "-c", _SCRIPT).splitlines()
    assert len(lines) == 2, f"{len(lines) // 2} nginx workers instead of one"
    return Used(int(lines[0].split()[0]) / 1e9, int(lines[1].split()[1]) * 1024 / 1e6)
