"""One month of a stack, from what was written down and what its config and certificates say. Plain functions.

It counts and names; how it looks is in render/report.py.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from fortress.errors import Stop
from fortress.trail import moment
from settings import StackSettings

OLD_KEY_DAYS = 365
CERTIFICATE_DAYS = 30
ROAMED_OFTEN = 4
MANY_FAILURES = 30
NEAR_BUDGET = 0.8
UNPROVEN = ("no-identity", "not-in-the-list", "failed_auth_per_minute")
"""Reasons of requests that proved nobody, as gateway/audit.js counts them: above a limit of their own they are 429."""
TELLS = {"gateway": "requests and commands", "vpn-node": "new devices and moves", "login": "sign-ins"}
"""Component -> what only its trail tells."""


@dataclass
class UserMonth:
    role: str
    requests: int = 0
    refused: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    budget: int | None = None
    """Tokens a month, where there is one."""
    models: Counter[str] = field(default_factory=Counter[str])
    devices: set[str] = field(default_factory=set[str])
    last: datetime | None = None
    known: bool = True
    """Is the user still in the config?"""

    @property
    def tokens(self) -> int:
        return self.tokens_in + self.tokens_out


@dataclass(frozen=True)
class Key:
    """A key that is valid now. Its age is its seed's: a later epoch makes it younger, and nobody wrote down when."""

    owner: str
    kind: str
    epoch: str
    overlap: str | None
    """The epoch whose key is valid too, until `previous_epoch` is deleted."""
    days: int | None
    """At most so old; None where the state does not tell."""


@dataclass(frozen=True)
class Certificate:
    name: str
    until: datetime


@dataclass
class Review:
    stack: str
    month: str
    zone: str
    begin: datetime
    end: datetime
    """Exclusive."""
    made: datetime
    days: list[str]
    by_day: dict[str, list[int]]
    """Verdict -> requests of each day."""
    tokens_by_day: tuple[list[int], list[int]]
    users: dict[str, UserMonth]
    requests: int = 0
    first_token_s: list[float] = field(default_factory=list[float])
    reasons: Counter[str] = field(default_factory=Counter[str])
    failures: Counter[str] = field(default_factory=Counter[str])
    """Tunnel address, with its device where one is known -> requests without a valid proof."""
    forbidden: Counter[tuple[str, str, str]] = field(default_factory=Counter[tuple[str, str, str]])
    """(principal, route, reason) of what is not open to them."""
    agents: Counter[str] = field(default_factory=Counter[str])
    new_peers: list[tuple[datetime, str, str]] = field(default_factory=list[tuple[datetime, str, str]])
    """(when, user/device, tunnel address)."""
    roamed: Counter[str] = field(default_factory=Counter[str])
    commands: list[tuple[datetime, str, str, str, str]] = field(
        default_factory=list[tuple[datetime, str, str, str, str]]
    )
    """(when, command, about, by, result)."""
    signed_in: Counter[tuple[str, str]] = field(default_factory=Counter[tuple[str, str]])
    """(user, result)."""
    lost: list[tuple[datetime, int]] = field(default_factory=list[tuple[datetime, int]])
    """(when a line could be written again, how many could not be before it)."""
    unread: tuple[str, ...] = ()
    """Components of TELLS of which not all run: a trail is read through the container that writes it."""
    unreadable: int = 0
    first_line: datetime | None = None
    below_floors: tuple[str, ...] = ()
    keys: list[Key] = field(default_factory=list[Key])
    certificates: list[Certificate] = field(default_factory=list[Certificate])
    unknown: str = ""
    """Why keys' ages and certificates are not known."""

    @property
    def refused(self) -> int:
        return sum(self.by_day.get("refused", []))

    @property
    def tokens(self) -> int:
        return sum(map(sum, self.tokens_by_day))

    def first_token(self, share: float) -> float | None:
        ordered = sorted(self.first_token_s)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else None


VERDICTS = ("allowed", "refused", "failed", "cut")


def bounds(month: str, zone: str) -> tuple[datetime, datetime]:
    """The month's first moment and the next one's, in the stack's own time zone. Raises: Stop."""
    try:
        begin = datetime.strptime(month, "%Y-%m").replace(tzinfo=ZoneInfo(zone))
        year, number = divmod(begin.month, 12)
        end = begin.replace(year=begin.year + year, month=number + 1)
        begin.astimezone(UTC)  # the trail is in it; a calendar ends at both ends
    except (ValueError, OverflowError):
        raise Stop(f"{month!r} is no month; write it like 2026-11") from None
    return begin, end


def running(config: StackSettings, made: datetime) -> str:
    """The month that runs where the stack is."""
    return f"{made.astimezone(ZoneInfo(config.timezone)):%Y-%m}"


def empty(config: StackSettings, month: str, made: datetime) -> Review:
    begin, end = bounds(month, config.timezone)
    # By the calendar: a day has 23 or 25 hours where the clocks change.
    over = end.date() if made >= end else made.astimezone(begin.tzinfo).date() + timedelta(days=1)
    count = max(1, (over - begin.date()).days)
    days = [str(day) for day in range(1, count + 1)]
    return Review(
        stack=config.stack,
        month=month,
        zone=config.timezone,
        begin=begin,
        end=end,
        made=made,
        days=days,
        by_day={verdict: [0] * count for verdict in VERDICTS},
        tokens_by_day=([0] * count, [0] * count),
        users={
            name: UserMonth(user.role, budget=user.limits.over(config.limits).tokens_per_month)
            for name, user in sorted(config.users.items())
        },
    )


def count(
    review: Review,
    config: StackSettings,
    *,
    requests: Iterable[Mapping[str, Any]] = (),
    tunnel: Iterable[Mapping[str, Any]] = (),
    commands: Iterable[Mapping[str, Any]] = (),
    logins: Iterable[Mapping[str, Any]] = (),
) -> None:
    """Take in all lines of the month; those of other months, and what is no such line, change nothing."""
    owners = _owners(config)
    for when, line in _of_the_month(review, requests):
        if review.first_line is None or when < review.first_line:
            review.first_line = when
        if line.get("event") == "audit-lost" and (lines := _number(line, "lines")):
            review.lost.append((when, lines))
        if "verdict" in line:
            _request(review, owners, when, line)
    for when, line in _of_the_month(review, tunnel):
        who = f"{_word(line, 'user')}/{_word(line, 'device')}"
        if line.get("event") == "peer-new":
            review.new_peers.append((when, who, _word(line, "address")))
        elif line.get("event") == "peer-roamed":
            review.roamed[who] += 1
    for when, line in _of_the_month(review, commands):
        words = (_word(line, "command"), _word(line, "about"), _word(line, "by"), _word(line, "result"))
        review.commands.append((when, *words))
    for _, line in _of_the_month(review, logins):
        review.signed_in[(_word(line, "user"), _word(line, "result"))] += 1


def _request(review: Review, owners: Mapping[str, str], when: datetime, line: Mapping[str, Any]) -> None:
    # What is written while midnight passes, or by a clock that was ahead, counts as today's.
    day = min((when.astimezone(review.begin.tzinfo).date() - review.begin.date()).days, len(review.days) - 1)
    verdict, principal, reason = _word(line, "verdict"), _word(line, "principal"), _word(line, "reason")
    tokens = _number(line, "tokens_in"), _number(line, "tokens_out")
    review.requests += 1
    if verdict in review.by_day:
        review.by_day[verdict][day] += 1
    for into, spent in zip(review.tokens_by_day, tokens, strict=True):
        into[day] += spent
    first = line.get("first_token_s")
    if isinstance(first, int | float):
        review.first_token_s.append(float(first))
    if verdict == "refused":
        review.reasons[reason or "unknown"] += 1
        status, address = line.get("status"), _word(line, "address")
        if reason in UNPROVEN:
            review.failures[f"{address} ({owners[address]})" if address in owners else address] += 1
        elif principal and status in (403, 404, 405):
            review.forbidden[(principal, _word(line, "route"), reason)] += 1
    if not principal:
        return
    user = review.users.setdefault(principal, UserMonth("gone", known=False))
    user.requests += 1
    user.refused += verdict == "refused"
    user.tokens_in += tokens[0]
    user.tokens_out += tokens[1]
    user.last = when if user.last is None else max(user.last, when)
    review.agents[_word(line, "agent") or "unknown"] += 1
    if model := _word(line, "model"):
        user.models[model] += 1
    if device := _word(line, "device"):
        user.devices.add(device)


def _of_the_month(review: Review, lines: Iterable[Mapping[str, Any]]) -> Iterable[tuple[datetime, Mapping[str, Any]]]:
    for line in lines:
        when = moment(line["time"])
        if review.begin <= when < review.end:
            yield when, line


def _owners(config: StackSettings) -> dict[str, str]:
    """Tunnel address -> user/device, of the keys that are valid now."""
    if config.wireguard is None:
        return {}
    return {
        str(address): f"{user}/{device}"
        for (user, device), pair in config.device_addresses().items()
        for address in pair
    }


def _word(line: Mapping[str, Any], name: str) -> str:
    value = line.get(name, "")
    return "".join(c if c.isprintable() else " " for c in value[:128]) if isinstance(value, str) else ""


def _number(line: Mapping[str, Any], name: str) -> int:
    value = line.get(name)
    return int(value) if isinstance(value, int | float) and value > 0 else 0


def keys(config: StackSettings, seeds: Mapping[str, datetime], now: datetime) -> list[Key]:
    """Every key family of every user, oldest first. seeds: user -> when the seed was made, as the state says it."""
    found: list[Key] = []
    for name, user in sorted(config.users.items()):
        days = (now - seeds[name]).days if name in seeds else None
        found.append(Key(name, "API key", user.epoch, user.previous_epoch, days))
        for device in user.devices:
            brought = device.public_key is not None
            kind = "own tunnel key" if brought else "tunnel key"
            epoch, previous = device.epoch, device.previous_epoch
            found.append(Key(f"{name}/{device.name}", kind, epoch, previous, None if brought else days))
    return sorted(found, key=lambda key: -1 if key.days is None else key.days, reverse=True)


def to_do(review: Review) -> list[str]:
    """Sentences, the most pressing first."""
    said: list[str] = []
    for part in review.unread:
        said.append(
            f"The trail of {part} could not be read, for not all of it runs: {TELLS[part]} are missing here. Start it, "
            "then make this page again."
        )
    for each in review.certificates:
        left = (each.until - review.made).days
        if left < CERTIFICATE_DAYS:
            said.append(f"The certificate of {each.name} ends in {left} days: `make up` renews what is ours.")
    for address, times in review.failures.most_common():
        if times >= MANY_FAILURES:
            said.append(f"{times} requests without a valid proof came from {address}: ask its owner, or block it.")
    for who, times in review.roamed.most_common():
        if times >= ROAMED_OFTEN:
            said.append(
                f"{who} moved {times} times while connected: if its owner did not travel, its key may be in two hands; "
                "raise the device's epoch."
            )
    said += [f"{each[0].upper()}{each[1:]}: not for production." for each in review.below_floors]
    overlapping = sorted({key.owner for key in review.keys if key.overlap})
    if overlapping:
        said.append(f"Old keys are still valid beside new ones: {_listed(overlapping)}. Delete `previous_epoch`.")
    old = sorted({key.owner for key in review.keys if key.days is not None and key.days >= OLD_KEY_DAYS})
    if old:
        said.append(f"Keys that may be more than a year old: {_listed(old)}. Raise `epoch` to renew them.")
    for name, user in review.users.items():
        if user.known and user.budget and user.tokens >= NEAR_BUDGET * user.budget:
            said.append(f"{name} used {user.tokens / user.budget:.0%} of the month's tokens.")
    idle = [name for name, user in review.users.items() if user.known and not user.requests]
    if idle:
        said.append(f"Nobody heard of {_listed(idle)} this month: does the line in the stack file still have a use?")
    if review.lost:
        said.append(
            f"{sum(lines for _, lines in review.lost)} requests have no line in the trail and are in no figure here: "
            "it could not be written. Look whether the disk was full."
        )
    if review.unreadable:
        said.append(f"{review.unreadable} lines of the trail could not be read: look whether the disk was full.")
    return said


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:12])
    return shown if len(names) <= 12 else f"{shown} and {len(names) - 12} more"


def when(moment_: datetime | None, zone: str) -> str:
    return "" if moment_ is None else f"{moment_.astimezone(ZoneInfo(zone)):%d %b %H:%M}"


def now() -> datetime:
    return datetime.now(UTC)
