"""What tunnel-watch tells of recorded dumps: run as the container runs it, without root or a tunnel."""

import json
import os
import re
import subprocess
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Any

import pytest

import images
from render import wireguard
from render.wireguard import Peer

FOLDER = Path(images.__file__).parent / "vpn-node"
PATH = f"{FOLDER.parent / 'trails'}:{os.environ['PATH']}"
NOW, UP = 1_800_000_000, 50_000
PRIVATE, SHARED = "sMacC3PLvAkSfjo0u4jjW05IwQBx1lbHLDWk51Qq0Vk=", "iN4xaOPQvTfkGRc0rByn/ljUzABJZwlK8i0bxDuyLFk="
HOME, CAFE, SIX = "203.0.113.7:51820", "198.51.100.9:40001", "[2001:db8::7]:51820"
NAMES = ["2lPbPSl3l2E4Li0JAJNgdbk3lIhaRlgCSi2RKlIVSkA=", "oF0NiqnBSqn8f4Y0BHHHDvZmSTjAIVwVKGBhqDGWNHM="]
ALICE = Peer("alice", "laptop", NAMES[0], SHARED, IPv4Address("10.66.124.206"), IPv6Address("fd66::a1"))
BOB = Peer("bob", "default", NAMES[1], SHARED, IPv4Address("10.66.211.253"), IPv6Address("fd66::b1"))
RENEWED = Peer("alice", "laptop", "A" * 43 + "=", SHARED, IPv4Address("10.66.124.207"), IPv6Address("fd66::a2"))


class Watch:
    """One container's watch: each look has its own time, and a dump as `wg show IF dump` prints it."""

    def __init__(self, folder: Path, *peers: Peer) -> None:
        self.folder = folder
        for part in ("config", "log", "run"):
            (folder / part).mkdir()
        self.knows(*peers)
        self.read = 0

    def knows(self, *peers: Peer) -> None:
        (self.folder / "config" / "devices").write_text(wireguard.devices(peers))

    def look(self, *rows: str, at: int, clock: int | None = None, answers: bool = True, **more: str) -> list[Any]:
        """Returns: the events of this look. at: seconds since the start; clock: what the clock says, if it lies."""
        head = [f"{PRIVATE}\t{NAMES[0]}\t51820\toff"] if answers else []
        environment = {
            "VPN_NODE_CONFIG": str(self.folder / "config"),
            "TUNNEL_WATCH_LOG": str(self.folder / "log"),
            "TUNNEL_WATCH_RUN": str(self.folder / "run"),
            "TUNNEL_WATCH_AWK": str(FOLDER / "tunnel-watch.awk"),
            "TUNNEL_WATCH_NOW": str(NOW + (at if clock is None else clock)),
            "TUNNEL_WATCH_UP": str(UP + at),
        }
        done = subprocess.run(
            ["sh", str(FOLDER / "tunnel-watch"), "look"],
            input="".join(f"{line}\n" for line in [*head, *rows]),
            env={"PATH": PATH, **environment, **more},
            capture_output=True,
            text=True,
            timeout=20,
        )
        self.said = done.stderr
        told = self.events()[self.read :]
        self.read += len(told)
        return told

    def new_container(self) -> None:
        for file in (self.folder / "run").iterdir():
            file.unlink()

    def events(self) -> list[Any]:
        file = self.folder / "log" / "events.json"
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []

    def figures(self) -> dict[str, float]:
        lines = (self.folder / "log" / "metrics.prom").read_text().splitlines()
        pairs = [line.rpartition(" ") for line in lines if not line.startswith("#")]
        assert len({name for name, _, _ in pairs}) == len(pairs), "the same series twice"
        return {name: float(number) for name, _, number in pairs}


def row(peer: Peer, endpoint: str = "(none)", handshake: int | None = None, received: int = 0, sent: int = 0) -> str:
    """handshake: seconds since the start of the test; None for never."""
    when = 0 if handshake is None else NOW + handshake
    allowed = f"{peer.ip4}/32,{peer.ip6}/128"
    return "\t".join(map(str, (peer.public_key, SHARED, endpoint, allowed, when, received, sent, "off")))


def names(told: Sequence[Any]) -> list[tuple[str, str]]:
    return [(line["event"], line["user"]) for line in told]


@pytest.fixture
def watch(tmp_path: Path) -> Watch:
    made = Watch(tmp_path, ALICE, BOB)
    assert names(made.look(row(ALICE), row(BOB), at=0)) == [("peer-new", "alice"), ("peer-new", "bob")]
    return made


def test_a_device_comes_roams_and_goes(watch: Watch):
    [came] = watch.look(row(ALICE, HOME, 4), row(BOB), at=5)
    assert came == {
        "time": "2027-01-15T08:00:05.000Z",
        "event": "peer-came",
        "user": "alice",
        "device": "laptop",
        "address": "10.66.124.206",
        "endpoint": HOME,
    }
    assert watch.look(row(ALICE, HOME, 4), row(BOB), at=10) == []
    assert watch.look(row(ALICE, HOME, 120), row(BOB), at=121) == []
    [roamed] = watch.look(row(ALICE, SIX, 120), row(BOB), at=125)
    assert (roamed["event"], roamed["endpoint"]) == ("peer-roamed", SIX)
    assert watch.look(row(ALICE, SIX, 120), row(BOB), at=300) == []
    [went] = watch.look(row(ALICE, SIX, 120), row(BOB), at=302)
    assert (went["event"], went["endpoint"]) == ("peer-went", SIX)
    assert watch.look(row(ALICE, SIX, 120), row(BOB), at=900) == []
    # From another place after a silence is a coming, not a roaming.
    [back] = watch.look(row(ALICE, CAFE, 901), row(BOB), at=905)
    assert (back["event"], back["endpoint"]) == ("peer-came", CAFE)


@pytest.mark.parametrize("place", ["203.0.113.7", "[2001:db8::7]"])
def test_another_port_alone_is_no_other_place(place: str, watch: Watch):
    """A router that translates addresses changes the port of an idle device whenever it likes."""
    assert names(watch.look(row(ALICE, f"{place}:51820", 4), row(BOB), at=5)) == [("peer-came", "alice")]
    assert watch.look(row(ALICE, f"{place}:40001", 4), row(BOB), at=10) == []
    assert watch.figures()['fortress_peer_endpoint_changes_total{user="alice",device="laptop"}'] == 0
    [roamed] = watch.look(row(ALICE, CAFE, 4), row(BOB), at=15)
    assert (roamed["event"], roamed["endpoint"]) == ("peer-roamed", CAFE)


def test_the_figures_are_those_of_the_contract(watch: Watch):
    watch.look(row(ALICE, HOME, 4, 7_000_000_000, 9), row(BOB), at=5)
    watch.look(row(ALICE, CAFE, 4, 7_000_000_001, 10), row(BOB), at=10)
    alice, bob = '{user="alice",device="laptop"}', '{user="bob",device="default"}'
    assert watch.figures() == {
        "fortress_tunnel_up": 1,
        f"fortress_peer_last_handshake_timestamp_seconds{alice}": NOW + 4,
        f"fortress_peer_last_handshake_timestamp_seconds{bob}": 0,
        f"fortress_peer_received_bytes_total{alice}": 7_000_000_001,
        f"fortress_peer_received_bytes_total{bob}": 0,
        f"fortress_peer_sent_bytes_total{alice}": 10,
        f"fortress_peer_sent_bytes_total{bob}": 0,
        f"fortress_peer_endpoint_changes_total{alice}": 1,
        f"fortress_peer_endpoint_changes_total{bob}": 0,
        'fortress_tunnel_events_total{event="peer-came"}': 1,
        'fortress_tunnel_events_total{event="peer-went"}': 0,
        'fortress_tunnel_events_total{event="peer-roamed"}': 1,
        'fortress_tunnel_events_total{event="peer-new"}': 2,
    }
    text = (watch.folder / "log" / "metrics.prom").read_text()
    assert re.findall(r"^# TYPE (\S+) counter$", text, re.MULTILINE) == [
        name for name in re.findall(r"^# TYPE (\S+) ", text, re.MULTILINE) if name.endswith("_total")
    ]


def test_no_key_is_in_any_file(watch: Watch):
    watch.look(row(ALICE, HOME, 4), row(BOB), at=5)
    left = [file.read_text() for part in ("log", "run") for file in (watch.folder / part).iterdir()]
    for text in left:
        assert PRIVATE not in text
        assert SHARED not in text
    for text in (file.read_text() for file in (watch.folder / "log").iterdir()):
        assert not [key for key in NAMES if key in text]


def test_a_device_of_two_keys_is_one_series_and_two_addresses(watch: Watch):
    watch.knows(ALICE, RENEWED, BOB)
    assert names(watch.look(row(ALICE, HOME, 4, 10), row(RENEWED), row(BOB), at=5)) == [
        ("peer-came", "alice"),
        ("peer-new", "alice"),
    ]
    [came] = watch.look(row(ALICE, HOME, 4, 10), row(RENEWED, HOME, 9, 5), row(BOB), at=10)
    assert came["address"] == "10.66.124.207"
    assert watch.figures()['fortress_peer_received_bytes_total{user="alice",device="laptop"}'] == 15
    watch.knows(RENEWED, BOB)
    [went] = watch.look(row(RENEWED, HOME, 9, 5), row(BOB), at=15)
    assert (went["event"], went["address"]) == ("peer-went", "10.66.124.206")


def test_a_removed_user_goes_and_a_new_one_is_told_once_for_good(watch: Watch):
    watch.look(row(ALICE, HOME, 4), row(BOB), at=5)
    watch.knows(BOB)
    # Between the switch of the files and the reload of the tunnel the old peer is still in the dump.
    assert names(watch.look(row(ALICE, HOME, 4), row(BOB), at=10)) == [("peer-went", "alice")]
    assert watch.look(row(BOB), at=15) == []
    assert 'user="alice"' not in (watch.folder / "log" / "metrics.prom").read_text()
    watch.knows(ALICE, BOB)
    assert watch.look(row(BOB), at=20) == []
    watch.new_container()
    assert watch.look(row(ALICE), row(BOB), at=25) == []


def test_a_new_container_finds_whoever_is_there(watch: Watch):
    watch.look(row(ALICE, HOME, 4), row(BOB), at=5)
    watch.new_container()
    assert names(watch.look(row(ALICE, HOME, 100), row(BOB, HOME, 100 - 181), at=100)) == [("peer-came", "alice")]


@pytest.mark.parametrize("clock", [-86_400, 86_400])
def test_a_clock_that_jumps_moves_nobody(clock: int, watch: Watch):
    assert names(watch.look(row(ALICE, HOME, 4), row(BOB), at=5)) == [("peer-came", "alice")]
    assert watch.look(row(ALICE, HOME, 4), row(BOB), at=10, clock=clock) == []
    assert watch.look(row(ALICE, HOME, clock + 20), row(BOB), at=120, clock=clock + 110) == []
    assert names(watch.look(row(ALICE, HOME, clock + 20), row(BOB), at=301, clock=clock + 291)) == [
        ("peer-went", "alice")
    ]


def test_a_tunnel_that_does_not_answer_is_down_and_sends_nobody_away(watch: Watch):
    watch.look(row(ALICE, HOME, 4), row(BOB), at=5)
    assert watch.look(at=10, answers=False) == []
    figures = watch.figures()
    assert figures["fortress_tunnel_up"] == 0
    assert figures['fortress_peer_last_handshake_timestamp_seconds{user="alice",device="laptop"}'] == NOW + 4
    assert watch.look(row(ALICE, HOME, 4), row(BOB), at=15) == []
    assert watch.figures()["fortress_tunnel_up"] == 1


def test_no_text_of_an_endpoint_leaves_its_place(watch: Watch):
    [came] = watch.look(row(ALICE, '1.2.3.4:5","x":"\\\n', 4).replace("\n", ""), row(BOB), at=5)
    assert came["endpoint"] == "1.2.3.4:5x:"


def test_files_are_rotated_and_bounded_and_a_reader_keeps_its_own(watch: Watch):
    for turn in range(12):
        far = turn * 1000 + 1000
        watch.read = 0
        watch.look(row(ALICE, HOME, far), row(BOB), at=far, TUNNEL_WATCH_BYTES="200")
        watch.look(row(ALICE, HOME, far), row(BOB), at=far + 200, TUNNEL_WATCH_BYTES="200")
    old = sorted((watch.folder / "log").glob("events-*.json"))
    assert len(old) == 4
    assert all(re.fullmatch(r"events-\d{8}T\d{6}Z\.json", file.name) for file in old)
    times = [json.loads(line)["time"] for file in old for line in file.read_text().splitlines()]
    assert times == sorted(times)


def test_old_events_go_where_nothing_happens(watch: Watch):
    old = '{"time":"2020-01-01T00:00:00.000Z","event":"peer-went"}\n'
    (watch.folder / "log" / "events.json").write_text(old)
    assert watch.look(row(BOB, "(none)", 0), at=5) == []
    assert [file.read_text() for file in (watch.folder / "log").glob("events-*.json")] == [old]


def test_a_full_disk_delays_what_is_told_and_doubles_nothing(watch: Watch, tmp_path: Path):
    """A disk of four pages, filled by somebody else; needs a mount of its own, so only where that is allowed."""
    script = """
        mount -t tmpfs -o size=16k tmpfs "$0/log" && cd "$0" || exit 77
        head -c 16384 /dev/zero > log/other 2> /dev/null
        look() { printf '%s\\n' "$3" | TUNNEL_WATCH_NOW=$1 TUNNEL_WATCH_UP=$2 sh "$WATCH" look; }
        look 1800000005 50005 "$ROWS" && exit 1
        [ "$(cat log/events.json 2> /dev/null)" = "" ] || exit 2
        rm log/other
        look 1800000010 50010 "$ROWS" || exit 3
        look 1800000015 50015 "$ROWS" || exit 4
        cat log/events.json
    """
    rows = "\n".join([f"{PRIVATE}\t{NAMES[0]}\t51820\toff", row(ALICE, HOME, 4), row(BOB)])
    environment = {
        "PATH": PATH,
        "WATCH": str(FOLDER / "tunnel-watch"),
        "ROWS": rows,
        "VPN_NODE_CONFIG": str(tmp_path / "config"),
        "TUNNEL_WATCH_LOG": str(tmp_path / "log"),
        "TUNNEL_WATCH_RUN": str(tmp_path / "run"),
        "TUNNEL_WATCH_AWK": str(FOLDER / "tunnel-watch.awk"),
    }
    isolated = ["unshare", "--mount", "--user", "--map-root-user"]
    done = subprocess.run(
        [*isolated, "sh", "-c", script, str(tmp_path)], env=environment, capture_output=True, text=True
    )
    if done.returncode == 77 or "unshare:" in done.stderr:
        pytest.skip("nobody may mount anything here")
    assert done.returncode == 0, done.stderr
    assert "is full or not writable: events wait" in done.stderr
    assert names([json.loads(line) for line in done.stdout.splitlines()]) == [("peer-came", "alice")]


def test_a_missing_list_of_devices_is_said_and_leaves_the_old_figures(watch: Watch):
    before = (watch.folder / "log" / "metrics.prom").stat().st_mtime_ns
    (watch.folder / "config" / "devices").unlink()
    assert watch.look(row(ALICE, HOME, 4), at=5) == []
    assert "devices cannot be read" in watch.said
    assert (watch.folder / "log" / "metrics.prom").stat().st_mtime_ns == before
