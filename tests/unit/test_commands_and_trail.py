"""What a command writes down, and how all that was written down is read again: by the same shell, in folders here."""

import getpass
import json
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from docker.errors import APIError
from rich.console import Console
from typer.testing import CliRunner

import images
from fortress import cli, commands, docker_engine, in_gateway, trail
from fortress.errors import Stop
from render import trails
from settings import PROJECT, ConfigRefused, load

NOW = 1_800_000_000
DAY_S = 86400
CONFIG: dict[str, Any] = {"users": {"bob": {}}, "wireguard": {"endpoint": "vpn.example.com:51820"}}
BY_SSH = {"ssh": {"address": "box.example.com", "user": "deploy", "host_key": "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5"}}
WRITER = Path(images.__file__).parent / "trails" / "write-down"


class Inside:
    """A container whose shell is this machine's, with its log folder elsewhere."""

    id = "inside"

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.client = SimpleNamespace(api=self)

    def exec_run(self, words: list[str]) -> Any:
        done = self._run(words)
        return SimpleNamespace(exit_code=done.returncode, output=done.stdout)

    def exec_create(self, _: str, words: list[str], **__: Any) -> Any:
        return {"Id": words}

    def exec_start(self, words: list[str], **_: Any) -> Iterator[bytes]:
        done = self._run(words)
        self.code = done.returncode
        return (done.stdout[at : at + 7] for at in range(0, len(done.stdout), 7))

    def exec_inspect(self, _: list[str]) -> Any:
        return {"ExitCode": self.code}

    def _run(self, words: list[str]) -> "subprocess.CompletedProcess[bytes]":
        moved = [word.replace("/var/log/gateway", str(self.folder)) for word in words]
        environment = {**os.environ, "PATH": f"{WRITER.parent}:{os.environ['PATH']}"}
        return subprocess.run(moved, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment)


class Engine:
    def __init__(self, *inside: Any) -> None:
        self.containers = SimpleNamespace(list=lambda **_: list(inside))


@pytest.fixture
def inside(tmp_path: Path) -> Any:
    return Inside(tmp_path)


def told(folder: Path) -> list[Any]:
    file = folder / "commands.json"
    return [json.loads(text) for text in file.read_text().splitlines()] if file.exists() else []


def test_a_line_says_who_did_what_and_when_and_how_it_ended(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("SUDO_USER", raising=False)
    assert json.loads(commands.line(NOW, "block", "bob", "done", until=commands.stamp(NOW + 60))) == {
        "time": "2027-01-15T08:00:00.000Z",
        "event": "command",
        "command": "block",
        "about": "bob",
        "by": getpass.getuser(),
        "result": "done",
        "until": "2027-01-15T08:01:00.000Z",
    }
    monkeypatch.setenv("SUDO_USER", "ops")
    assert json.loads(commands.line(NOW, "up", "dev", "failed"))["by"] == "ops"


@pytest.mark.parametrize("about", ["bob", "it's", 'a"b\n{c}', "$(id) `id`", "10.0.0.1 and fd::1 (bob/phone)"])
def test_whatever_it_is_about_it_stays_one_line(about: str, inside: Inside, tmp_path: Path):
    assert commands.write(inside, "block", about) is None  # pyright: ignore[reportArgumentType]
    assert commands.write(inside, "unblock", about) is None  # pyright: ignore[reportArgumentType]
    assert [(each["command"], each["about"]) for each in told(tmp_path)] == [("block", about), ("unblock", about)]
    assert (tmp_path / "commands.json").stat().st_mode & 0o777 == 0o644


def test_what_cannot_be_written_is_said_and_raises_nothing(inside: Inside, tmp_path: Path):
    (tmp_path / "commands.json").mkdir()
    assert "/var/log/gateway is full or not writable" in str(commands.write(inside, "up", "dev"))  # pyright: ignore[reportArgumentType]

    class Gone:
        name = "gateway"

        def exec_run(self, *_: Any) -> Any:
            raise APIError("no such container")

    assert "cannot be asked" in str(commands.write(Gone(), "up", "dev"))  # pyright: ignore[reportArgumentType]


def test_a_time_that_a_busy_engine_lost_is_asked_for_again():
    class Busy:
        def __init__(self, *said: bytes) -> None:
            self.said = [*said]

        def exec_run(self, _: list[str]) -> Any:
            return SimpleNamespace(exit_code=0, output=self.said.pop(0))

    assert in_gateway.clock(Busy(b"", b"1800000000\n")) == NOW  # pyright: ignore[reportArgumentType]
    with pytest.raises(Stop, match="does not say what time it is"):
        in_gateway.clock(Busy(b"", b"", b""))  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("ends", [None, Stop("no"), KeyboardInterrupt()])
def test_a_command_is_recorded_however_it_ends(
    ends: BaseException | None, inside: Inside, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    _reached(monkeypatch, tmp_path, Engine(inside))
    said = Console(record=True)
    if ends is None:
        with commands.recorded(said, "dev", "up", "dev"):
            pass
    else:
        with pytest.raises(type(ends)), commands.recorded(said, "dev", "up", "dev"):
            raise ends
    assert [each["result"] for each in told(tmp_path)] == ["failed" if ends else "done"]
    assert said.export_text() == ""


@pytest.mark.parametrize(("ends", "results"), [(None, ["begun"]), (Stop("half-way"), ["begun", "failed"])])
def test_what_ends_the_trail_is_in_it_before_it_begins(
    ends: Stop | None, results: list[str], inside: Inside, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    _reached(monkeypatch, tmp_path, Engine(inside))

    def down(*_: Any) -> None:
        assert [(each["command"], each["about"], each["result"]) for each in told(tmp_path)] == [
            ("down", "dev", "begun")
        ]
        if ends is not None:
            raise ends

    monkeypatch.setattr(commands.up, "down", down)
    done = CliRunner().invoke(cli.app, ["down", "--stack", "dev"])
    assert done.exception is ends
    assert [each["result"] for each in told(tmp_path)] == results


def test_a_failure_that_took_the_gateway_with_it_leaves_the_line_and_says_no_more(
    inside: Inside, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    _reached(monkeypatch, tmp_path, Engine(inside))
    said = Console(record=True)
    with pytest.raises(Stop), commands.recorded(said, "dev", "down", "dev", last=True):
        _reached(monkeypatch, tmp_path, Engine())
        raise Stop("half-way")
    assert ([each["result"] for each in told(tmp_path)], said.export_text()) == (["begun"], "")


def test_a_refused_config_has_changed_nothing(inside: Inside, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    _reached(monkeypatch, tmp_path, Engine(inside))
    with pytest.raises(ConfigRefused), commands.recorded(Console(), "dev", "up", "dev"):
        raise ConfigRefused("no")
    assert told(tmp_path) == []


def test_without_a_gateway_the_command_stays_done_and_the_gap_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    _reached(monkeypatch, tmp_path, Engine())
    said = Console(record=True, width=200)
    with commands.recorded(said, "dev", "bundle", "bob"):
        pass
    assert "this command is not in the trail: no gateway of stack 'dev' is running" in said.export_text()


@pytest.mark.parametrize(("host", "results"), [(BY_SSH, ["failed"]), (None, [])], ids=["by ssh", "here"])
def test_a_failure_is_told_to_the_host_whether_or_not_this_machine_has_an_engine(
    host: Any, results: list[str], inside: Inside, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Only an engine of this machine would be started, or even installed, to hear of it."""
    _reached(monkeypatch, tmp_path, Engine(inside), host=host, answers=False)
    with pytest.raises(Stop), commands.recorded(Console(), "dev", "up", "dev"):
        raise Stop("half-way")
    assert [each["result"] for each in told(tmp_path)] == results


def _reached(
    monkeypatch: pytest.MonkeyPatch, folder: Path, engine: Any, *, host: Any = None, answers: bool = True
) -> None:
    @contextmanager
    def reached(*_: Any) -> Iterator[Any]:
        yield None, engine

    config = CONFIG | ({} if host is None else {"host": host})
    stack = {"config": {f"{PROJECT}:{key}": value for key, value in config.items()}}
    (folder / "Pulumi.dev.yaml").write_text(json.dumps(stack))
    monkeypatch.setattr(commands.up, "reached", reached)
    monkeypatch.setattr(docker_engine, "answers", lambda: answers)
    monkeypatch.setattr(commands.paths, "stack_file", lambda _: folder / "Pulumi.dev.yaml")


def row(second: int, **more: Any) -> str:
    return json.dumps({"time": commands.stamp(NOW + second), **more})


def reader(folder: Path, since: datetime | None = None) -> trail.Reader:
    [made] = trail.readers(Engine(Inside(folder)), "dev", trail.REQUESTS, since)  # pyright: ignore[reportArgumentType]
    return made


def lines(folder: Path, since: datetime | None = None) -> list[int]:
    return [each["n"] for each in reader(folder, since).lines()]


def test_rotated_files_come_first_and_each_line_once(tmp_path: Path):
    (tmp_path / "audit-20270116T000000Z.json").write_text(row(1, n=1) + "\n" + row(2, n=2) + "\n")
    (tmp_path / "audit-20270117T000000Z.json").write_text(row(3, n=3) + "\n")
    (tmp_path / "audit.json").write_text(row(4, n=4) + "\n")
    (tmp_path / "commands.json").write_text(row(5, n=5) + "\n")
    assert lines(tmp_path) == [1, 2, 3, 4]
    since = datetime.fromtimestamp(NOW + 3, UTC)
    assert lines(tmp_path, since) == [3, 4]


@pytest.mark.parametrize("after", ['exec 3< "$2.json"; else exec 3< /dev/null; fi\n', "from=$4\n"])
def test_a_file_that_is_set_aside_while_it_is_read_is_read_once(
    after: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Before the others are listed, and behind that."""
    name = "audit-20270101T000000Z.json"
    (tmp_path / "audit.json").write_text(row(1, n=1) + "\n")
    script = trail._FOLLOW.replace(after, f"{after}mv -n audit.json {name} 2> /dev/null\n")
    assert script != trail._FOLLOW
    following = reader(tmp_path)
    with monkeypatch.context() as changed:
        changed.setattr(trail, "_FOLLOW", script)
        assert [each["n"] for each in following.lines()] == [1]
    assert (tmp_path / name).exists()
    (tmp_path / "audit.json").write_text(row(2, n=2) + "\n")
    assert [each["n"] for each in following.lines()] == [2]


def test_what_is_no_line_is_counted_once_and_passed_over(tmp_path: Path):
    """Half a line is one where its file was set aside; in the file that is being written it may still get its end."""
    bad = [b"{", b"[]", b"null", b'{"n":1}', b'{"time":"soon"}', b'{"time":5}', b"\xff\xfe", b"x" * 1_000_000]
    text = b"\n".join([*bad, row(1, n=1).encode(), b"", b"  "])
    (tmp_path / "audit-20270101T000000Z.json").write_bytes(text + b'\n{"time":"2027')
    (tmp_path / "audit.json").write_bytes(row(2, n=2).encode() + b'\n{"time":"2027')
    following = reader(tmp_path)
    for found in ([1, 2], []):
        assert [each["n"] for each in following.lines()] == found
        assert following.unreadable == len(bad) + 1


def test_since_is_a_moment_wherever_one_is(tmp_path: Path):
    (tmp_path / "audit-20270115T080000Z.json").write_text(row(0, n=1) + "\n")
    (tmp_path / "audit.json").write_text(row(1, n=2) + "\n")
    assert lines(tmp_path, datetime.fromtimestamp(NOW, ZoneInfo("Asia/Tokyo"))) == [1, 2]
    assert lines(tmp_path, datetime.fromtimestamp(NOW + 1, ZoneInfo("Asia/Tokyo"))) == [2]


def test_nothing_is_there_yet(tmp_path: Path):
    assert lines(tmp_path) == []
    assert lines(tmp_path / "missing") == []
    (tmp_path / "audit-20270101T000000Z.json").write_text(row(1, n=1) + "\n")
    assert lines(tmp_path) == [1]


def written(folder: Path, text: str, size: int = 1, days: int = 400) -> int:
    """By a deployment whose trails may grow so old."""
    config = folder.with_name(f"{folder.name}-config")
    config.mkdir(exist_ok=True)
    kept = load("dev", {f"{PROJECT}:{key}": value for key, value in (CONFIG | _kept(days)).items()})
    (config / trails.FILE).write_text(trails.age(kept))
    command = [WRITER, folder, "audit", str(size)]
    environment = {**os.environ, "WRITE_DOWN_CONFIG": str(config)}
    return subprocess.run(command, input=text.encode(), capture_output=True, env=environment).returncode


def _kept(days: int) -> dict[str, Any]:
    return {"observability": {"audit_files_days": days}}


def names(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.glob("audit-*"))


def test_what_is_written_down_is_set_aside_by_size_and_bounded(tmp_path: Path):
    for n in range(8):
        assert written(tmp_path, row(n, n=n) + "\n") == 0
    assert len(names(tmp_path)) == 4
    assert lines(tmp_path) == [3, 4, 5, 6, 7], "in the order in which they came, though all within a second"
    assert written(tmp_path, row(8, n=8) + "\n", size=1_000_000) == 0
    assert len(names(tmp_path)) == 4


def old(seconds: float) -> str:
    """A line of so long ago."""
    return f'{{"time":"{commands.stamp(int(time.time() - seconds))}","n":0}}\n'


@pytest.mark.parametrize(
    ("days", "age_s", "goes"),
    [(400, 80 * DAY_S, True), (400, 80 * DAY_S - 60, False), (1, DAY_S // 5, True), (1, -DAY_S, False)],
)
def test_what_is_written_down_is_set_aside_by_age(days: int, age_s: int, goes: bool, tmp_path: Path):
    (tmp_path / "audit.json").write_text(old(age_s) + old(0))
    assert written(tmp_path, row(1, n=1) + "\n", size=1_000_000, days=days) == 0
    assert len(names(tmp_path)) == goes
    assert lines(tmp_path) == [0, 0, 1]


def test_no_line_grows_older_than_the_age_that_is_set_whoever_writes(tmp_path: Path):
    """A fifth of 10 days, five times: as often as the file begins anew, with nothing in it too."""
    (tmp_path / "audit.json").write_text(old(2 * DAY_S))
    for fifth in range(5):
        assert lines(tmp_path) == [0], f"gone after {fifth} fifths"
        assert written(tmp_path, "", size=1_000_000, days=10) == 0
        assert written(tmp_path, "", size=1_000_000, days=10) == 0, "an empty file is not set aside at once"
        assert len(names(tmp_path)) == min(fifth + 1, 4)
        os.utime(tmp_path / "audit.json", (time.time() - 2 * DAY_S,) * 2)
    assert lines(tmp_path) == []


def test_a_clock_that_was_ahead_takes_no_new_file_with_it(tmp_path: Path):
    """By the clock's time alone each new file would be the oldest, and deleted before anybody has read it."""
    for n in range(4):
        (tmp_path / f"audit-2099123{1}T23595{n + 6}Z.json").write_text(row(n, n=n) + "\n")
    (tmp_path / "audit.json").write_text(row(4, n=4) + "\n")
    assert written(tmp_path, row(5, n=5) + "\n") == 0
    assert names(tmp_path)[-1] == "audit-21000101T000000Z.json"
    assert lines(tmp_path) == [1, 2, 3, 4, 5]


def test_a_full_disk_keeps_whole_lines_only(tmp_path: Path):
    """A disk of four pages, filled by somebody else; needs a mount of its own, so only where that is allowed."""
    script = """
        mount -t tmpfs -o size=16k tmpfs "$0" && cd "$0" || exit 77
        printf '{"n":1}\\n' | "$1" . audit || exit 2
        head -c 16384 /dev/zero > other 2> /dev/null
        head -c 9000 /dev/zero | tr '\\0' x | "$1" . audit && exit 3
        rm other
        printf '{"n":2}\\n' | "$1" . audit || exit 4
        cat audit.json
    """
    isolated = ["unshare", "--mount", "--user", "--map-root-user"]
    done = subprocess.run([*isolated, "sh", "-c", script, tmp_path, WRITER], capture_output=True, text=True)
    if done.returncode == 77 or "unshare:" in done.stderr:
        pytest.skip("nobody may mount anything here")
    assert (done.returncode, done.stdout) == (0, '{"n":1}\n{"n":2}\n'), done.stderr
