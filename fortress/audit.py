"""The audit trail as the gateways of a stack keep it: read from their containers, over whatever way leads there.

The gateway sets its file aside by a rename (gateway/trail.js). Names are in order of time, so a reader that knows the
last name it has seen and how far it is in the file that is being written loses nothing and reads nothing twice.
"""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from docker.errors import APIError
from docker.models.containers import Container

from fortress.blocklist import clock, lasting
from fortress.errors import Stop

NOTHING_YET = 66
# Each piece is announced by a line of its own: `#` and the file's name. $1: last name seen; $2: bytes read of the
# file that is being written; $3: seconds to wait for anything new, after which it ends by itself: nobody stops what
# runs in a container whose caller has gone.
READ = f"""\
set -u; LC_ALL=C; cd /var/log/gateway
SECONDS=0
while :; do
    if [ -e audit.json ]; then exec 3< audit.json; else exec 3< /dev/null; fi
    new=()
    for file in audit-*Z.json; do
        [ -e "$file" ] && [[ "$file" > "$1" ]] && new+=("$file")
    done
    # Renamed after it was opened: look again.
    if [ ${{#new[@]}} -gt 0 ] && [ /dev/fd/3 -ef "${{new[-1]}}" ]; then continue; fi
    size=$(stat -L -c %s /dev/fd/3)
    if [ ${{#new[@]}} -gt 0 ] || [ "$size" -gt "$2" ]; then break; fi
    [ "$SECONDS" -lt "$3" ] || exit {NOTHING_YET}
    sleep 0.3
done
from=$2
for file in "${{new[@]}}"; do
    printf '\\n#%s\\n' "$file"
    tail -c +$((from + 1)) -- "$file" 2>/dev/null
    from=0
done
printf '\\n#audit.json\\n'
tail -c +$((from + 1)) <&3
"""


class Trail:
    """One gateway's trail, read on and on."""

    def __init__(self, gateway: Container, since: datetime | None = None) -> None:
        """since: files that were set aside before it are left out, and lines that say so."""
        self.gateway = gateway
        self._since = "" if since is None else f"{since:%Y-%m-%dT%H:%M:%S}"
        # A file's name says when its last line was written.
        self._after = "" if since is None else f"audit-{since:%Y%m%dT%H%M%S}"
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
                if (said := parsed(line)) is not None and str(said["time"]) >= self._since:
                    yield said
        if name:
            self._offset = at

    def _pieces(self, wait_s: int) -> Iterator[bytes]:
        words = ["bash", "-c", READ, "bash", self._after, str(self._offset), str(wait_s)]
        try:
            assert self.gateway.client is not None, "a container that no client has listed"
            api = self.gateway.client.api
            started = api.exec_create(self.gateway.id, words, stderr=False)
            yield from api.exec_start(started["Id"], stream=True)
            code = api.exec_inspect(started["Id"])["ExitCode"]
        except APIError as error:
            raise Stop(f"the gateway's container cannot be asked: {error.explanation or error}") from None
        if code not in (0, NOTHING_YET):
            raise Stop(
                f"the audit files in the gateway's container cannot be read (code {code}); "
                "`fortress status` says how it is"
            )


def parsed(line: bytes) -> dict[str, Any] | None:
    """A line as it was written, or None where it is not whole."""
    try:
        said = json.loads(line)
    except ValueError:
        return None
    return dict(said) if isinstance(said, dict) and isinstance(said.get("time"), str) else None


def ago(gateway: Container, duration: str) -> datetime:
    """The time so long ago, by the gateway's own clock."""
    seconds = lasting(duration, "which is how far to look back")
    return datetime.fromtimestamp(clock(gateway) - seconds, UTC)
