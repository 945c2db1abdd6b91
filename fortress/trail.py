"""What was written down on a stack's host: requests, commands, the tunnel's events and logins, oldest first.

Read through the container that writes it, so this needs no right but that of the engine, on whatever host.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from docker import DockerClient
from docker.errors import APIError
from docker.models.containers import Container

from fortress.errors import Stop
from fortress.in_gateway import running


@dataclass(frozen=True)
class Source:
    """`<stem>.json` and its rotated forerunners `<stem>-<time>.json`, in the container of a component."""

    component: str
    folder: str
    stem: str


REQUESTS = Source("gateway", "/var/log/gateway", "audit")
COMMANDS = Source("gateway", "/var/log/gateway", "commands")
TUNNEL = Source("vpn-node", "/var/log/vpn-node", "events")
LOGINS = Source("login", "/var/log/login", "auth")

# The file being written is opened before the others are listed: one rotated meanwhile is read once, and whole.
_READ = """\
cd "$1" 2> /dev/null || exit 0
[ -e "$2.json" ] || exec cat "$2"-*.json 2> /dev/null
exec 3< "$2.json"
for file in "$2"-*.json; do
    if [ -e "$file" ] && ! [ "$file" -ef /dev/fd/3 ]; then cat "$file"; fi
done
cat <&3
"""


class Lines:
    """The lines of one source; `unreadable` counts those that are no JSON object, once they were passed."""

    def __init__(self, parts: Iterable[bytes], since: datetime | None = None) -> None:
        self.unreadable = 0
        self._parts = parts
        self._since = since

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for text in _split(self._parts):
            try:
                found = json.loads(text)
                when = moment(found["time"])
            except (ValueError, TypeError, KeyError):
                self.unreadable += bool(text.strip())
                continue
            if self._since is None or when >= self._since:
                yield found


def read(there: DockerClient, stack: str, source: Source, since: datetime | None = None) -> Lines:
    """Nothing where the component is not there. Raises: Stop where its container cannot be asked."""
    return Lines(_parts(running(there, stack, source.component), source), since)


def moment(text: str) -> datetime:
    """A line's own time. Raises: ValueError, TypeError."""
    when = datetime.fromisoformat(text)
    return when if when.tzinfo else when.replace(tzinfo=UTC)


def _parts(containers: Iterable[Container], source: Source) -> Iterator[bytes]:
    for container in containers:
        try:
            asked = container.exec_run(["sh", "-c", _READ, "sh", source.folder, source.stem], stream=True)
            parts: Iterable[bytes] = asked.output  # pyright: ignore[reportAssignmentType] - as a stream is asked for
            yield from parts
        except APIError as error:
            raise Stop(f"the trail in {source.folder} cannot be read: {error.explanation or error}") from None
        yield b"\n"


def _split(parts: Iterable[bytes]) -> Iterator[bytes]:
    rest = bytearray()
    for part in parts:
        rest += part
        if b"\n" in part:
            *whole, last = bytes(rest).split(b"\n")
            rest = bytearray(last)
            yield from whole
    if rest:
        yield bytes(rest)
