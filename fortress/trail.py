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


NOTHING_YET = 66
# Each piece is announced by a line of its own: `#` and the file's name. $3: last name seen; $4: bytes read of the file
# that is being written; $5: seconds to wait for anything new, after which it ends by itself: nobody stops what runs in
# a container whose caller has gone.
_FOLLOW = f"""\
set -u; LC_ALL=C; cd "$1"
SECONDS=0
while :; do
    if [ -e "$2.json" ]; then exec 3< "$2.json"; else exec 3< /dev/null; fi
    new=()
    for file in "$2"-*Z.json; do
        [ -e "$file" ] && [[ "$file" > "$3" ]] && new+=("$file")
    done
    # Renamed after it was opened: look again.
    if [ ${{#new[@]}} -gt 0 ] && [ /dev/fd/3 -ef "${{new[-1]}}" ]; then continue; fi
    size=$(stat -L -c %s /dev/fd/3)
    if [ ${{#new[@]}} -gt 0 ] || [ "$size" -gt "$4" ]; then break; fi
    [ "$SECONDS" -lt "$5" ] || exit {NOTHING_YET}
    sleep 0.3
done
from=$4
for file in "${{new[@]}}"; do
    printf '\\n#%s\\n' "$file"
    tail -c +$((from + 1)) -- "$file" 2>/dev/null
    from=0
done
printf '\\n#%s\\n' "$2.json"
tail -c +$((from + 1)) <&3
"""


class Reader:
    """One source in one container, read on and on: nothing is lost and nothing read twice while files are set aside.

    Their names are in order of time, so the last one seen and the place in the file that is being written say it all.
    """

    def __init__(self, container: Container, source: Source, since: datetime | None = None) -> None:
        """since: files that were set aside before it are not read, and lines before it are left out."""
        self.container, self.source = container, source
        self._since = since
        # A file's name says when its last line was written.
        self._after = "" if since is None else f"{source.stem}-{since:%Y%m%dT%H%M%S}"
        self._offset = 0

    def lines(self, wait_s: int = 0) -> Iterator[dict[str, Any]]:
        """All lines since the last call; where there is none, what comes within `wait_s`.

        What is no JSON is left out: half a line stays where a disk was full.
        """
        rest, name, at = b"", "", 0
        for piece in self._pieces(wait_s):
            *ended, rest = (rest + piece).split(b"\n")
            for line in ended:
                if line.startswith(b"#"):
                    if name:  # a file that was set aside, now read to its end
                        self._after, at = name, 0
                    else:
                        at = self._offset
                    name = line[1:].decode()
                    continue
                at += len(line) + 1  # what has no end yet is read again
                yield from Lines([line], self._since)
        if name:
            self._offset = at

    def _pieces(self, wait_s: int) -> Iterator[bytes]:
        words = ["bash", "-c", _FOLLOW, "bash", self.source.folder, self.source.stem]
        words += [self._after, str(self._offset), str(wait_s)]
        try:
            assert self.container.client is not None, "a container that no client has listed"
            api = self.container.client.api
            started = api.exec_create(self.container.id, words, stderr=False)
            yield from api.exec_start(started["Id"], stream=True)
            code = api.exec_inspect(started["Id"])["ExitCode"]
        except APIError as error:
            raise Stop(f"the trail in {self.source.folder} cannot be read: {error.explanation or error}") from None
        if code not in (0, NOTHING_YET):
            raise Stop(f"the trail in {self.source.folder} cannot be read; `fortress status` says how its container is")
