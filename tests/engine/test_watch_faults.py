"""What can go wrong below those who watch: full disks, and clocks that jump. No line that was written is lost."""

import json
import re
import secrets
import shutil
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.audit_line import LINE
from tests.deployment import DOMAIN, Client, Deployment, deployed, docker, printed
from tests.watched import Watched

SMALL_MB = {"loki": 64, "collector": 8, "prometheus": 64}
"""Part -> size of the disk that its volume gets; an idle one needs a few MB of it."""
ROOM_MB = 1
"""What is left on a disk that is nearly full: below a tenth for DiskFilling, and for Loki's own limit of 3 %."""
LOKI_LOOKS_EVERY_S = 10
BACK_WITHIN_S = 120
"""The engine starts again what dies, at last once a minute."""

ASK = f"""
import http.client, json, ssl, statistics, sys, time
tls = ssl.create_default_context(cafile="/tmp/bundle/ca.pem")
there = http.client.HTTPSConnection("{DOMAIN}", context=tls, timeout=60)
ids, times = [], []
for _ in range(int(sys.argv[1])):
    began = time.monotonic()
    there.request("GET", "/api/tags", headers={{"Authorization": f"Bearer {{sys.argv[2]}}"}})
    answer = there.getresponse()
    answer.read()
    times.append(time.monotonic() - began)
    assert answer.status == 200, answer.status
    ids.append(answer.headers["X-Request-Id"])
print(json.dumps([ids, statistics.median(times)]))
"""


class Disk:
    """The volume of one part, moved to a small disk of its own while the part stands still."""

    def __init__(self, deployment: Deployment, part: str) -> None:
        volume = json.loads(docker("volume", "inspect", f"fortress-{deployment.stack}-{part}"))[0]
        self.name, self.folder = f"small-{part}", Path(volume["Mountpoint"])
        self.filler = self.folder / "filler"
        staging = tempfile.mkdtemp()
        _run("mount", "-t", "tmpfs", "-o", f"size={SMALL_MB[part]}m", self.name, staging)
        try:
            _run("cp", "-a", f"{self.folder}/.", staging)
            _run("mount", "--bind", staging, str(self.folder))
        finally:
            _run("umount", staging)
            Path(staging).rmdir()

    def fill(self, room_mb: int = 0) -> None:
        free = shutil.disk_usage(self.folder).free - (room_mb << 20)
        with self.filler.open("ab", buffering=0) as file:
            try:
                while free > 0:
                    free -= file.write(bytes(min(free, 1 << 20)))
            except OSError:
                return  # somebody else took the last page

    def free(self) -> None:
        self.filler.unlink(missing_ok=True)

    def remove(self) -> None:
        _run("umount", "--lazy", str(self.folder))


def _run(*words: str) -> None:
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, f"{' '.join(words)}: {done.stderr}"


class Place(Watched):
    """A fortress whose watching parts have small disks."""

    def __init__(self, deployment: Deployment, disks: dict[str, Disk]) -> None:
        super().__init__(deployment)
        self.disks = disks

    @contextmanager
    def full(self, *parts: str) -> Iterator[None]:
        """First nearly, and then to the last byte: a disk takes its time, too."""
        try:
            for part in parts:
                self.disks[part].fill(ROOM_MB)
            if "loki" in parts:
                time.sleep(LOKI_LOOKS_EVERY_S + 1)
            for part in parts:
                self.disks[part].fill()
            yield
        finally:
            for part in parts:
                self.disks[part].free()

    def value(self, query: str) -> float | None:
        return next(iter(self.prometheus(query).values()), None)

    def shows(self, query: str) -> bool:
        try:
            return bool(self.value(query))
        except AssertionError:
            return False  # it is on its way back

    def noticed(self, part: str) -> bool:
        """Has it met its full disk?"""
        there = self.plan.telemetry
        if part == "collector":
            return True  # its positions are a few numbers, rewritten in the room that they have
        figure, url = {
            "loki": ("loki_ingester_wal_disk_full_failures_total", f"http://{there.loki}:3100/metrics"),
            "prometheus": ("prometheus_tsdb_wal_writes_failed_total", f"http://{there.prometheus}:9090/metrics"),
        }[part]
        return not re.search(rf"^{figure} 0$", self.text(part, url), re.MULTILINE)

    def found(self, since: float) -> Counter[str]:
        try:
            return self.ids(since)
        except AssertionError:
            return Counter()


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    deployment = Deployment.fresh()
    deployment.config["observability"] = "full"
    with deployed(deployment) as made, ExitStack() as kept:
        # The exporter sees a disk that was there when it began.
        moved = [*SMALL_MB, "node-exporter"]
        docker("stop", *map(made.container, moved))
        disks: dict[str, Disk] = {}
        for part in SMALL_MB:
            disks[part] = Disk(made, part)
            kept.callback(disks[part].remove)
        docker("start", *map(made.container, moved))
        found = Place(made, disks)
        Client.wait_until(lambda: found.shows('up{job="loki"} == 1'), "figures", BACK_WITHIN_S)
        yield found
        docker("stop", *map(made.container, moved))


@pytest.fixture
def bob(place: Place) -> Iterator[Client]:
    made = Client(place.deployment, "bob")
    yield made
    made.close()


def asked(bob: Client, count: int) -> tuple[list[str], float]:
    """Returns: ids of requests, and the seconds that one of them took in the middle."""
    ids, median = json.loads(bob.python(ASK, str(count), bob.key, timeout=300))
    return ids, median


def test_a_disk_that_fills_shows_in_its_figure_and_its_alert(place: Place):
    free = 'min(node_filesystem_avail_bytes{device="small-loki"} / node_filesystem_size_bytes)'
    pending = 'count(ALERTS{alertname="DiskFilling",device="small-loki"})'
    Client.wait_until(lambda: place.shows(f"{free} > 0.1"), "room", 60)
    with place.full("loki"):
        Client.wait_until(lambda: place.shows(f"{free} * 100 + 1 < 11"), "its figure", 60)
        Client.wait_until(lambda: place.shows(pending), "its alert, which waits for five minutes", 60)
    Client.wait_until(lambda: not place.shows(pending), "the alert's end", 120)


@pytest.mark.timeout(900)
@pytest.mark.parametrize("parts", [("loki",), ("collector",), ("loki", "collector", "prometheus")])
def test_full_disks_delay_lines_and_lose_none_and_the_gateway_does_not_notice(
    parts: tuple[str, ...], place: Place, bob: Client
):
    """Each part is also killed while its disk is full: what it has taken must be on it."""
    began = time.time()
    ids, quiet = asked(bob, 300)
    with place.full(*parts):
        for part in parts:
            assert shutil.disk_usage(place.disks[part].folder).free < 1 << 16
        more, busy = asked(bob, 600)
        ids += more
        for part in parts:
            Client.wait_until(lambda part=part: place.noticed(part), f"trouble of {part}", 90)
        for part in parts:
            place.kill(part)
        more, after = asked(bob, 300)
        ids += more
        print(f"{parts} full: {quiet * 1e3:.1f} ms a request before, {busy * 1e3:.1f} and {after * 1e3:.1f} ms then")
        assert max(busy, after) < 2 * quiet + 0.005, "the gateway waits for those who watch it"
        assert len(ids) == len(set(ids))
    found: Counter[str] = Counter()

    def all_there() -> bool:
        nonlocal found
        found = place.found(began)
        return set(ids) <= set(found)

    deadline = time.monotonic() + BACK_WITHIN_S
    while not all_there() and time.monotonic() < deadline:
        time.sleep(1)
    missing, doubled = set(ids) - set(found), [id_ for id_ in ids if found[id_] > 1]
    words = "".join(printed(place.deployment.container(part))[-2000:] for part in parts) if missing or doubled else ""
    assert not missing, f"{len(missing)} of {len(ids)} lines are not in Loki; {words}"
    assert not doubled, f"{len(doubled)} of {len(ids)} lines are twice in Loki; {words}"
    for part in parts:
        Client.wait_until(lambda part=part: place.health(part) == "healthy", f"health of {part}", BACK_WITHIN_S)
    Client.wait_until(lambda: place.shows("sum(up) == count(up)"), "figures of all parts", BACK_WITHIN_S)


def test_lines_of_a_clock_that_jumps_are_all_there(place: Place, bob: Client):
    """As the gateway writes them while its machine's clock is a day ahead, then behind, then without a battery.

    Behind by weeks is also what waited through a long outage, or for the day on which `full` was chosen.
    """
    mark, now = secrets.token_hex(6), datetime.now(UTC)
    jumps = [timedelta(), *[timedelta(days=1)] * 2, timedelta(), *[timedelta(hours=-5)] * 2, timedelta(days=-1)]
    jumps += [timedelta(days=-20), datetime(1970, 1, 1, tzinfo=UTC) - now, timedelta()]
    text = "".join(
        json.dumps(LINE | {"time": f"{now + jump:%Y-%m-%dT%H:%M:%S}.{n:03}Z", "request_id": f"{mark}-{n}"}) + "\n"
        for n, jump in enumerate(jumps)
    )
    gateway = place.deployment.container("gateway")
    docker("exec", "-i", gateway, "sh", "-c", "cat >> /var/log/gateway/audit.json", stdin=text)
    asked(bob, 50)  # and the gateway goes on behind them

    def told(since: datetime, until: datetime) -> dict[int, datetime]:
        """The line's number -> its time in Loki."""
        rows: Any = place.loki(
            "query_range",
            query=f'{{kind="audit"}} |= "{mark}-"',
            start=int(since.timestamp() * 1e9),
            end=int(until.timestamp() * 1e9),
            limit=1000,
        )
        pairs = [
            (int(json.loads(text)["request_id"].rpartition("-")[2]), datetime.fromtimestamp(int(when) / 1e9, UTC))
            for stream in rows["result"]
            for when, text in stream["values"]
        ]
        assert len(dict(pairs)) == len(pairs), "a line is there twice"
        return dict(pairs)

    day, soon = timedelta(days=1), timedelta(minutes=10)
    Client.wait_until(
        lambda: len(told(now - 22 * day, now + soon)) == len(jumps),
        f"all {len(jumps)} lines; {told(now - 22 * day, now + soon)}",
        30,
    )
    read = {0, 1, 2, 3, 8, 9}  # those of the future, and from before there was such a program, have the time of reading
    assert set(told(now - soon, now + soon)) == read
    assert set(told(now - 6 * day / 24, now - 4 * day / 24)) == {4, 5}
    assert set(told(now - 2 * day, now - day / 2)) == {6}
    assert set(told(now - 21 * day, now - 19 * day)) == {7}

    def shown(since: str) -> list[int]:
        lines = place.deployment.fortress("logs", "--since", since, "--json").splitlines()
        found = [json.loads(line)["request_id"] for line in lines if f'"{mark}-' in line]
        return [int(each.rpartition("-")[2]) for each in found]

    assert shown("1h") == [0, 1, 2, 3, 9], "by the line's own time, the future's too"
    assert shown("25d") == [0, 1, 2, 3, 4, 5, 6, 7, 9]
