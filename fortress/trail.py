"""What was written down on a stack's host: requests, commands, the tunnel's events and logins, oldest first.

Read through the container that writes it, so this needs no right but that of the engine, on whatever host.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from docker import DockerClient
from docker.errors import APIError
from docker.models.containers import Container

from fortress.errors import Stop
from fortress.in_gateway import TRIES, running


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

NOTHING_YET = 66
# Each piece is announced by a line of its own: `#` and the file's name; `#` alone is the end. $3: last name seen; $4:
# bytes read of the file that is being written; $5: seconds to wait for anything new, after which it ends by itself:
# nobody stops what runs in a container whose caller has gone.
_FOLLOW = f"""\
set -u; LC_ALL=C; cd "$1" 2> /dev/null || exit {NOTHING_YET}
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
printf '\\n#\\n'
"""


def moment(text: str) -> datetime:
    """A line's own time. Raises: ValueError, TypeError."""
    when = datetime.fromisoformat(text)
    return when if when.tzinfo else when.replace(tzinfo=UTC)


class Reader:
    """One source in one container, read on and on: nothing is lost and nothing read twice while files are set aside.

    Their names are in order of time, so the last one seen and the place in the file that is being written say it all.
    """

    def __init__(self, container: Container, source: Source, since: datetime | None = None) -> None:
        """since: files that were set aside before it are not read, and lines before it are left out."""
        self.container, self.source = container, source
        self.unreadable = 0
        """Lines so far that are no JSON object with a time: half a line stays where a disk was full."""
        self._since = since
        # A file's name says when its last line was written.
        self._after = "" if since is None else f"{source.stem}-{since.astimezone(UTC):%Y%m%dT%H%M%S}"
        self._offset = 0

    def lines(self, wait_s: int = 0) -> Iterator[dict[str, Any]]:
        """All lines since the last call; where there is none, what comes within `wait_s`. Raises: Stop."""
        rest, name, at = bytearray(), "", 0
        held: bytes | None = None
        for piece in self._pieces(wait_s):
            rest += piece
            if b"\n" not in piece:
                continue
            *ended, last = bytes(rest).split(b"\n")
            rest = bytearray(last)
            for line in ended:
                if line == b"#":
                    self._offset = at  # `held` has no end of its own: it is read again
                    return
                if held is not None:
                    yield from self._judged(held)
                    at += len(held) + 1
                held = line
                if line.startswith(b"#"):
                    if name:  # a file that was set aside, now read to its end
                        self._after, at = name, 0
                    else:
                        at = self._offset
                    name, held = line[1:].decode(), None
        if name:
            raise Stop(f"the trail in {self.source.folder} was cut off in the middle of a read; run this again")

    def _judged(self, text: bytes) -> Iterator[dict[str, Any]]:
        try:
            found = json.loads(text)
            when = moment(found["time"])
        except (ValueError, TypeError, KeyError):
            self.unreadable += bool(text.strip())
            return
        if self._since is None or when >= self._since:
            yield found

    def _pieces(self, wait_s: int) -> Iterator[bytes]:
        words = ["bash", "-c", _FOLLOW, "bash", self.source.folder, self.source.stem]
        words += [self._after, str(self._offset), str(wait_s)]
        assert self.container.client is not None, "a container that no client has listed"
        api, said = self.container.client.api, False
        try:
            for _ in range(TRIES):
                started = api.exec_create(self.container.id, words, stderr=False)
                for piece in api.exec_start(started["Id"], stream=True):
                    said = True
                    yield piece
                code = api.exec_inspect(started["Id"])["ExitCode"]
                if said or code == NOTHING_YET:
                    return
        except APIError as error:
            raise Stop(f"the trail in {self.source.folder} cannot be read: {error.explanation or error}") from None
        raise Stop(f"the trail in {self.source.folder} cannot be read; `fortress status` says how its container is")


def readers(there: DockerClient, stack: str, source: Source, since: datetime | None = None) -> list[Reader]:
    """One for each running container that has the source; none where its component is not there."""
    return [Reader(container, source, since) for container in running(there, stack, source.component)]
