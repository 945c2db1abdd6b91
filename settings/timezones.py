"""Time zones by their IANA names, from the locked `tzdata` package: a machine's own tables would change the plan."""

import difflib
from datetime import UTC, datetime, timedelta, tzinfo
from functools import cache
from importlib import resources
from typing import Annotated
from zoneinfo import ZoneInfo

from pydantic import AfterValidator

FIRST, LAST = datetime(2026, 1, 1, tzinfo=UTC), datetime(2046, 1, 1, tzinfo=UTC)
"""Offsets are given for these years, not from today on: the same config gives the same plan on every day."""

_DATA = resources.files("tzdata")


@cache
def names() -> tuple[str, ...]:
    return tuple((_DATA / "zones").read_text().split())


def _known(value: str) -> str:
    if value not in names():
        near = difflib.get_close_matches(value, names(), 1, 0.5) or ["Europe/Berlin"]
        raise ValueError(f"{value!r} is not a time zone; write an IANA name like {near[0]!r}, or leave it out for UTC")
    return value


Timezone = Annotated[str, AfterValidator(_known)]


@cache
def timezone(name: str) -> tzinfo:
    with (_DATA / "zoneinfo" / name).open("rb") as file:
        return ZoneInfo.from_file(file, key=name)


@cache
def offsets(name: str) -> tuple[tuple[int, int], ...]:
    """What a clock in this zone is ahead of UTC, for whoever has no time zones: (from, seconds), in order of time.

    from: milliseconds since 1970. The first row counts before its time too, the last one for ever.
    """
    zone = timezone(name)

    def ahead(moment: datetime) -> int:
        offset = moment.astimezone(zone).utcoffset()
        assert offset is not None
        return int(offset.total_seconds())

    rows = [(0, ahead(FIRST))]
    day = FIRST
    while day < LAST:
        following = day + timedelta(days=1)
        if ahead(following) != rows[-1][1]:
            before, after = day, following
            while after - before > timedelta(seconds=1):
                middle = before + timedelta(seconds=(after - before) // timedelta(seconds=2))
                before, after = (middle, after) if ahead(middle) == rows[-1][1] else (before, middle)
            rows.append((int(after.timestamp()) * 1000, ahead(after)))
        day = following
    return tuple(rows)
