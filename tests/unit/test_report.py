"""The monthly report of a fixed trail: counted by hand here, reviewed as golden files, and closed to hostile text."""

import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any, cast

import pytest
from rich.console import Console

from fortress import report as command
from fortress import review, trail
from fortress.errors import Stop
from fortress.review import Certificate, Review
from render import pictures, report
from render.pictures import Series, Tile, short
from render.principals import POLICY
from settings import StackSettings, load
from tests.audit_line import LINE
from tests.unit.conftest import Golden
from tests.unit.gateway.harness import Authority

MADE = datetime(2026, 11, 26, 9, 0, tzinfo=UTC)
CONFIG: dict[str, Any] = {
    "timezone": "Europe/Berlin",
    "users": {
        "alice": {"role": "admin", "devices": ["laptop", {"name": "phone", "epoch": "2", "previous_epoch": "1"}]},
        "bob": {"limits": {"tokens_per_month": 110000}},
        "carol": {},
        "ci": {"service": True},
    },
    "wireguard": {"endpoint": "vpn.example.com:51820"},
}
SEEDS = {name: datetime(2025, 10, 1, tzinfo=UTC) for name in ("alice", "bob")} | {
    "ci": datetime(2026, 11, 2, tzinfo=UTC)
}


def config(**more: Any) -> StackSettings:
    return load("home", {f"ollama-fortress:{key}": value for key, value in (CONFIG | more).items()})


def at(day: int, hour: int = 12, minute: int = 0) -> str:
    return f"2026-11-{day:02d}T{hour:02d}:{minute:02d}:00.000Z"


def request(day: int = 5, **more: Any) -> dict[str, Any]:
    own = {
        "time": at(day),
        "request_id": "0" * 32,
        "device": "",
        "address": "10.66.0.9",
        "tokens_in": 10,
        "tokens_out": 20,
        "first_token_s": 0.25,
    }
    return LINE | own | more


def counted(*requests: dict[str, Any], of: StackSettings | None = None, **other: Any) -> Review:
    found = review.empty(of or config(), "2026-11", MADE)
    review.count(found, of or config(), requests=requests, **other)
    return found


def a_month() -> Review:
    """A small office's November, the same each time."""
    lot = Random(7)
    of = config()
    laptop = next(str(pair[0]) for (user, _), pair in of.device_addresses().items() if user == "carol")
    requests: list[dict[str, Any]] = []
    for day in range(1, 27):
        busy = 3 if datetime(2026, 11, day).weekday() > 4 else 14
        for name, share, agent in (("alice", 1.0, "ollama"), ("bob", 0.6, "openai"), ("ci", 0.3, "curl")):
            for _ in range(int(busy * share) + lot.randrange(4)):
                refused = lot.random() < 0.06
                requests.append(
                    request(
                        day,
                        time=at(day, lot.randrange(7, 20), lot.randrange(60)),
                        principal=name,
                        agent=agent,
                        model=lot.choice(["tiny", "llama3.2:3b"]),
                        device="laptop" if name == "alice" else "",
                        status=429 if refused else 200,
                        verdict="refused" if refused else "allowed",
                        reason=lot.choice(["requests_per_minute", "tokens_per_day"]) if refused else "",
                        tokens_in=0 if refused else lot.randrange(20, 400),
                        tokens_out=0 if refused else lot.randrange(30, 500),
                        first_token_s=None if refused else round(lot.uniform(0.1, 1.9), 3),
                    )
                )
    stranger = {"principal": "", "status": 401, "verdict": "refused", "reason": "no-identity", "model": ""}
    requests += [request(17, address=laptop, first_token_s=None, tokens_in=0, tokens_out=0, **stranger)] * 41
    there = {"status": 403, "verdict": "refused", "reason": "admin-only", "route": "/api/delete", "model": ""}
    requests += [request(18, first_token_s=None, tokens_in=0, tokens_out=0, **there)] * 3
    requests += [request(20, verdict="failed", status=502, tokens_in=0, tokens_out=0)] * 4
    requests += [{"time": at(21, 3), "event": "audit-lost", "lines": lines} for lines in (12, 1)]
    events = {"peer-new": 2, "peer-roamed": 6, "peer-came": 30}
    tunnel = [
        {
            "time": at(9 + n % 12),
            "event": event,
            "user": "alice",
            "device": "phone",
            "address": "10.66.3.4",
            "endpoint": "203.0.113.7:1",
        }
        for event, times in events.items()
        for n in range(times)
    ]
    commands = [
        {"time": at(2), "event": "command", "command": "up", "about": "home", "by": "ops", "result": "done"},
        {"time": at(17, 15), "event": "command", "command": "block", "about": "carol", "by": "ops", "result": "done"},
    ]
    logins = [{"time": at(4), "event": "login", "result": "success", "user": "alice"}] * 12
    logins += [{"time": at(6), "event": "login", "result": "success", "user": "unknown"}]
    found = counted(*requests, of=of, tunnel=tunnel, commands=commands, logins=logins)
    found.below_floors = ("nginx 1.30.6 is below the security floor 1.30.7",)
    found.keys = review.keys(of, SEEDS, MADE)
    found.certificates = [
        Certificate("fortress-pki-server", MADE + timedelta(days=12)),
        Certificate("fortress-pki-authority", MADE + timedelta(days=3600)),
    ]
    return found


def nothing() -> Review:
    found = counted()
    found.unknown = "the stack's state is not on this machine"
    found.keys = review.keys(config(), {}, MADE)
    return found


MONTHS = {"office": a_month, "nothing": nothing}


@pytest.mark.parametrize("name", MONTHS)
def test_the_golden_files_are_the_reviewed_ones(name: str, golden: Golden):
    golden.check(f"report/{name}.md", report.markdown(MONTHS[name]()))
    golden.check(f"report/{name}.html", report.html(MONTHS[name]()))


def test_what_is_counted_is_what_was_written():
    found = counted(
        request(1),
        request(1, principal="alice", tokens_in=1, tokens_out=2),
        request(2, verdict="refused", reason="tokens_per_day", status=429, tokens_in=0, tokens_out=0),
        request(2, verdict="cut", reason="blocked"),
        request(3, principal="", verdict="refused", status=401, reason="no-identity"),
        request(3, principal="", verdict="refused", status=429, reason="failed_auth_per_minute"),
        request(3, principal="", verdict="refused", status=403, reason="not-in-the-list"),
        request(3, verdict="refused", status=429, reason="requests_per_minute"),
        request(3, verdict="refused", status=404, reason="unknown-route", route="unknown"),
        request(3, principal="dave", tokens_in=0, tokens_out=0),
    )
    assert (found.requests, found.refused, found.tokens) == (10, 6, 30 + 3 + 30 + 30 + 30 * 4)
    assert found.by_day["allowed"][:4] == [2, 0, 1, 0]
    assert found.by_day["cut"][1] == 1
    assert (found.users["bob"].requests, found.users["bob"].refused, found.users["bob"].tokens) == (5, 3, 120)
    assert (found.users["dave"].role, found.users["dave"].known) == ("gone", False)
    assert found.failures == {"10.66.0.9": 3}
    assert found.forbidden == {("bob", "unknown", "unknown-route"): 1}
    assert (found.first_token(0.5), found.first_token(0.95)) == (0.25, 0.25)


def test_who_proved_nobody_is_who_the_gateway_counts_so():
    [reasons] = re.findall(r"^const UNPROVEN = \[(.*)\];$", (POLICY / "audit.js").read_text(), re.MULTILINE)
    assert tuple(reasons.replace("'", "").split(", ")) == review.UNPROVEN


def test_the_month_is_that_of_the_stacks_own_time_zone():
    before, after = request(1, time="2026-10-31T22:59:59.999Z"), request(1, time="2026-10-31T23:00:00.000Z")
    late = request(1, time="2026-11-30T22:59:59.000Z")
    found = counted(before, after, late, request(1, time="2026-11-30T23:00:00Z"))
    assert found.requests == 2
    assert found.by_day["allowed"][0] == 1
    assert review.bounds("2026-12", "UTC")[1] == datetime(2027, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize("month", ["2026", "2026-13", "november", "2026-11-01", "", "11-2026", "9999-12", "0001-01"])
def test_what_is_no_month_is_refused_with_the_way_to_write_one(month: str):
    """Of the first and the last that a calendar has, one moment is beyond it."""
    with pytest.raises(Stop, match="write it like 2026-11"):
        review.bounds(month, "Asia/Tokyo")


def test_a_line_of_another_shape_changes_nothing_and_stops_nothing():
    odd: list[dict[str, Any]] = [
        {"time": at(1)},
        {"time": at(1), "event": "audit-lost", "lines": "many"},
        {"time": at(1), "verdict": 5, "principal": ["x"], "tokens_in": "many", "address": None},
        {"time": at(1), "verdict": "allowed", "principal": "x" * 9999, "tokens_out": -5, "first_token_s": "soon"},
    ]
    found = counted(*odd, tunnel=odd, commands=odd, logins=odd)
    assert (found.requests, found.tokens, found.refused, found.lost) == (2, 0, 0, [])
    assert max(map(len, found.users)) == 128
    assert report.html(found)


def test_what_to_do_is_said_and_nothing_else():
    said = review.to_do(nothing())
    assert len(said) == 2
    assert "still valid beside new ones: alice/phone." in said[0]
    assert "Nobody heard of alice, bob, carol, ci this month" in said[1]
    said = "\n".join(review.to_do(a_month()))
    for word in (
        "fortress-pki-server ends in 12 days",
        "41 requests without a valid proof came from",
        "(carol/default)",
        "alice/phone moved 6 times",
        "Nginx 1.30.6 is below",
        "Old keys are still valid beside new ones: alice/phone",
        "Keys that may be more than a year old: alice, alice/laptop, alice/phone, bob, bob/default",
        "bob used ",
        "Nobody heard of carol",
        "13 requests have no line in the trail",
    ):
        assert word in said
    assert "fortress-pki-authority" not in said
    assert "ci/default" not in said


def test_a_key_is_at_most_as_old_as_its_seed_and_a_devices_own_is_not_known():
    own = "2lPbPSl3l2E4Li0JAJNgdbk3lIhaRlgCSi2RKlIVSkA="
    of = config(users={"alice": {"devices": [{"name": "laptop", "public_key": own}]}, "bob": {}})
    found = {(key.owner, key.kind): key.days for key in review.keys(of, SEEDS, MADE)}
    assert found[("alice", "API key")] == 421
    assert found[("alice/laptop", "own tunnel key")] is None
    assert review.keys(of, {}, MADE)[0].days is None


def test_seeds_and_certificates_are_read_from_the_state():
    pem, _ = Authority("report").leaf("ollama.fortress.internal")
    urn = "urn:pulumi:home::ollama-fortress::fortress:index:Fortress$x"
    resources: list[dict[str, Any]] = [
        {"type": command.SEED, "urn": f"{urn}::fortress-identity-bob", "created": "2026-01-02T03:04:05.678901Z"},
        {"type": command.SEED, "urn": f"{urn}::fortress-identity-gone", "created": "2026-01-02T03:04:05Z"},
        {"type": command.SEED, "urn": f"{urn}::fortress-vpn-node-seed", "created": "2026-01-02T03:04:05Z"},
        {"type": command.LEAF, "urn": f"{urn}::fortress-pki-server", "outputs": {"certPem": pem}},
        {"type": command.LEAF, "urn": f"{urn}::fortress-pki-pending"},
    ]
    assert {name: made.isoformat()[:10] for name, made in command.seeds(resources, config()).items()} == {
        "bob": "2026-01-02"
    }
    [certificate] = command.certificates(resources)
    assert certificate.name == "fortress-pki-server"


class Engine:
    """Its containers, and nothing in them."""

    def __init__(self, **states: str) -> None:
        self.states = {name.replace("_", "-"): state for name, state in states.items()}
        self.containers = self

    def list(self, filters: dict[str, Any], **_: Any) -> list[Any]:
        [part] = [label.removeprefix("fortress.component=") for label in filters["label"][1:]]
        state = self.states.get(part)
        wanted = state is not None and filters.get("status", state) == state
        return [SimpleNamespace(id=part, status=state, client=SimpleNamespace(api=self))] if wanted else []

    def exec_create(self, *_: Any, **__: Any) -> dict[str, str]:
        return {"Id": ""}

    def exec_start(self, *_: Any, **__: Any) -> tuple[bytes, ...]:
        return ()

    def exec_inspect(self, _: str) -> dict[str, int]:
        return {"ExitCode": trail.NOTHING_YET}


PROVIDER = {"provider": "oidc", "issuer_url": "https://id.example.com", "client_id": "x", "client_secret": "y" * 16}
BROWSER = {"browser": PROVIDER, "users": {"alice": {"email": "alice@example.com"}}}


@pytest.mark.parametrize(
    ("states", "more", "unread"),
    [
        ({"gateway": "running", "vpn_node": "running"}, {}, ()),
        ({"gateway": "running", "vpn_node": "exited"}, {}, ("vpn-node",)),
        ({"gateway": "running"}, BROWSER, ("vpn-node", "login")),
        ({"gateway": "running", "vpn_node": "running", "login": "restarting"}, BROWSER, ("login",)),
        ({"gateway": "running", "vpn_node": "running", "login": "running"}, BROWSER, ()),
    ],
)
def test_a_trail_that_could_not_be_read_is_not_a_clean_one(
    states: dict[str, str], more: dict[str, Any], unread: tuple[str, ...]
):
    found = command.gather(cast(Any, Engine(**states)), config(**more), "2026-11", MADE)
    assert found.unread == unread
    text = report.markdown(found)
    for part, title in (("vpn-node", "New devices"), ("vpn-node", "Moved while connected"), ("login", "Sign-ins in")):
        _, _, below = text.partition(f"### {title}")
        assert below.split("\n")[2].startswith("Not known: the trail of" if part in unread else "No")
        assert (f"The trail of {part} could not be read" in text.partition("## Use")[0]) == (part in unread)


HOSTILE = "<script>alert(1)</script>\"'&|`_*[x](y)\n## x"


def test_no_text_of_the_trail_becomes_markup():
    found = counted(
        request(principal=HOSTILE, reason=HOSTILE, model=HOSTILE, agent=HOSTILE, address=HOSTILE, route=HOSTILE),
        request(principal=HOSTILE, reason=HOSTILE, verdict="refused", status=403, route=HOSTILE),
        request(principal="", reason="no-identity", verdict="refused", status=401, address=HOSTILE),
        commands=[{"time": at(1), "command": HOSTILE, "about": HOSTILE, "by": HOSTILE, "result": HOSTILE}],
        logins=[{"time": at(1), "user": HOSTILE, "result": HOSTILE}],
        tunnel=[{"time": at(1), "event": "peer-new", "user": HOSTILE, "device": HOSTILE, "address": HOSTILE}],
    )
    page = report.html(found)
    assert "<script" not in page
    assert not re.search(r"<[^>]+\son\w+=", page)
    text = report.markdown(found)
    assert "\n## x" not in text
    for table in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}) == 1


def test_the_page_needs_nothing_from_elsewhere():
    page = report.html(a_month())
    assert "script" not in page.lower()
    assert [link for link in re.findall(r"(?:https?:)?//[^\s'\"]+", page) if "www.w3.org/2000/svg" not in link] == []
    assert "src=" not in page


def _svgs() -> list[str]:
    month = a_month()
    return [
        *re.findall(r"<svg.*?</svg>", report.html(month), re.DOTALL),
        pictures.columns(HOSTILE, [], []),
        pictures.columns("zero", ["1"], [Series("a", [0])]),
        pictures.lines(HOSTILE, ["1", "2", "3"], [Series(HOSTILE, [1, None, float("nan")])], "s"),
        pictures.bars(HOSTILE, [(HOSTILE, 0.0), *((str(n), float(n)) for n in range(20))]),
        pictures.bars("none", []),
        pictures.table(HOSTILE, [("a", "b"), (HOSTILE, HOSTILE)]),
        pictures.number(HOSTILE, HOSTILE),
        pictures.bars(HOSTILE, [(str(n), float(n)) for n in range(20)], size=pictures.room(6, 8)),
        pictures.lines(HOSTILE, ["1"], [Series("long name of a series", [1])] * 6, size=pictures.room(12, 8)),
        pictures.board(HOSTILE, [Tile(pictures.number("a", "1"), 0, 1, 4, 4)], {0: HOSTILE}),
    ]


@pytest.mark.parametrize("svg", _svgs())
def test_every_picture_is_well_formed_and_inside_its_frame(svg: str):
    root = ElementTree.fromstring(svg)
    width, height = map(float, root.attrib["viewBox"].split()[2:])
    for shape in root.iter("{http://www.w3.org/2000/svg}rect"):
        x, y = float(shape.attrib.get("x", 0)), float(shape.attrib.get("y", 0))
        assert -0.1 <= x <= width
        assert x + float(shape.attrib["width"]) <= width + 0.1
        assert -0.1 <= y <= y + float(shape.attrib["height"]) <= height + 0.1
    assert {child.tag.rpartition("}")[2] for child in root.iter()} <= {"svg", "text", "rect", "line", "path", "title"}


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0, "", "0"),
        (12, "", "12"),
        (1234, "", "1.2k"),
        (1_234_567, "", "1.2M"),
        (0.25, "s", "250 ms"),
        (1.5, "s", "1.5 s"),
        (7200, "s", "2 h"),
        (0.82, "percentunit", "82 %"),
        (3 * 1024**3, "bytes", "3 GiB"),
        (61, "celsius", "61 °C"),
        (285.51, "watt", "286 W"),
        (float("nan"), "", "none"),
    ],
)
def test_a_number_is_written_as_people_read_it(value: float, unit: str, text: str):
    assert short(value, unit) == text


def test_an_old_month_has_all_its_days_and_a_new_one_those_until_now():
    assert len(review.empty(config(), "2026-10", MADE).days) == 31
    assert len(review.empty(config(), "2026-11", MADE).days) == 26
    assert len(review.empty(config(), "2026-12", MADE).days) == 1


@pytest.mark.parametrize(
    ("month", "made", "zone", "days"),
    [
        ("2027-03", "2027-03-29T22:30:00Z", "Europe/Berlin", 30),  # half past midnight, after a day of 23 hours
        ("2027-03", "2027-03-29T21:30:00Z", "Europe/Berlin", 29),
        ("2026-10", "2026-10-30T22:30:00Z", "Europe/Berlin", 30),  # before midnight, after a day of 25
        ("2026-10", "2026-10-31T23:00:00Z", "Europe/Berlin", 31),  # over
        ("2026-10", "2026-10-31T23:00:00Z", "America/New_York", 31),
        ("2026-10", "2026-10-01T00:00:01Z", "UTC", 1),
    ],
)
def test_days_are_those_of_the_calendar_where_the_clocks_change(month: str, made: str, zone: str, days: int):
    of, now = config(timezone=zone), datetime.fromisoformat(made)
    found = review.empty(of, month, now)
    assert len(found.days) == days
    review.count(found, of, requests=[request(time=(now - timedelta(seconds=1)).isoformat(), verdict="refused")])
    assert (found.by_day["refused"][-1], found.refused, found.tokens) == (1, 1, 30)


def test_a_line_that_is_newer_than_the_page_is_todays():
    found = counted(request(27), request(30, verdict="refused"))
    assert (found.requests, found.refused, found.tokens) == (2, 1, 60)
    assert (found.by_day["allowed"][25], found.by_day["refused"][25]) == (1, 1)


@pytest.fixture
def of_a_stack(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """`write` without a stack. Returns: the months that were asked for."""
    asked: list[str] = []

    @contextmanager
    def reached(*_: Any) -> Iterator[Any]:
        yield config(), None

    def gather(_: Any, __: StackSettings, month: str, ___: datetime) -> Review:
        asked.append(month)
        return a_month()

    monkeypatch.setattr(command.up, "reached", reached)
    monkeypatch.setattr(command, "gather", gather)
    monkeypatch.setattr(command, "_from_the_state", lambda *_: "")
    return asked


def test_both_pages_are_written(tmp_path: Path, of_a_stack: list[str]):
    written = command.write(Console(), "home", "2026-11", tmp_path / "new")
    assert [path.name for path in written] == ["report-home-2026-11.html", "report-home-2026-11.md"]
    assert all(path.stat().st_size > 1000 for path in written)


def test_without_a_month_it_is_the_one_that_runs_where_the_stack_is(
    tmp_path: Path, of_a_stack: list[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(review, "now", lambda: datetime(2026, 10, 31, 23, 30, tzinfo=UTC))
    [page, _] = command.write(Console(), "home", None, tmp_path)
    assert (page.name, of_a_stack) == ("report-home-2026-11.html", ["2026-11"])
    assert review.running(config(timezone="America/New_York"), datetime(2026, 11, 1, 1, tzinfo=UTC)) == "2026-10"
