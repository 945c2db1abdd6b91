"""What a command writes down, and how all that was written down is read again: by the same shell, in folders here."""

import getpass
import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from docker.errors import APIError
from rich.console import Console

from fortress import commands, trail
from fortress.errors import Stop
from settings import ConfigRefused

NOW = 1_800_000_000


class Inside:
    """A container whose shell is this machine's, with its log folder elsewhere."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def exec_run(self, words: list[str], stream: bool = False) -> Any:
        moved = [word.replace("/var/log/gateway", str(self.folder)) for word in words]
        done = subprocess.run(moved, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        pieces = (done.stdout[at : at + 7] for at in range(0, len(done.stdout), 7))
        return SimpleNamespace(exit_code=done.returncode, output=pieces if stream else done.stdout)


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
    assert "commands.json" in str(commands.write(inside, "up", "dev"))  # pyright: ignore[reportArgumentType]

    class Gone:
        def exec_run(self, *_: Any) -> Any:
            raise APIError("no such container")

    assert "cannot be asked" in str(commands.write(Gone(), "up", "dev"))  # pyright: ignore[reportArgumentType]


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


def _reached(monkeypatch: pytest.MonkeyPatch, folder: Path, engine: Any) -> None:
    @contextmanager
    def reached(*_: Any) -> Iterator[Any]:
        yield None, engine

    (folder / "Pulumi.dev.yaml").touch()
    monkeypatch.setattr(commands.up, "reached", reached)
    monkeypatch.setattr(commands.docker_engine, "answers", lambda: True)
    monkeypatch.setattr(commands.paths, "stack_file", lambda _: folder / "Pulumi.dev.yaml")


def row(second: int, **more: Any) -> str:
    return json.dumps({"time": commands.stamp(NOW + second), **more})


def lines(folder: Path, since: datetime | None = None) -> trail.Lines:
    return trail.read(Engine(Inside(folder)), "dev", trail.REQUESTS, since)  # pyright: ignore[reportArgumentType]


def test_rotated_files_come_first_and_each_line_once(tmp_path: Path):
    (tmp_path / "audit-20270101T000000Z.json").write_text(row(1, n=1) + "\n" + row(2, n=2) + "\n")
    (tmp_path / "audit-20270102T000000Z.json").write_text(row(3, n=3) + "\n")
    (tmp_path / "audit.json").write_text(row(4, n=4) + "\n")
    (tmp_path / "commands.json").write_text(row(5, n=5) + "\n")
    assert [each["n"] for each in lines(tmp_path)] == [1, 2, 3, 4]
    since = datetime.fromtimestamp(NOW + 3, UTC)
    assert [each["n"] for each in lines(tmp_path, since)] == [3, 4]


def test_a_file_that_is_rotated_while_it_is_read_is_read_once(tmp_path: Path):
    (tmp_path / "audit.json").write_text(row(1, n=1) + "\n")
    script = trail._READ.replace("\nfor file", '\nmv "$2.json" "$2-2.json"\nfor file')
    assert script != trail._READ
    done = subprocess.run(["sh", "-c", script, "sh", str(tmp_path), "audit"], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == (row(1, n=1) + "\n", "")


def test_what_is_no_line_is_counted_and_passed_over(tmp_path: Path):
    bad = [b"{", b"[]", b"null", b'{"n":1}', b'{"time":"soon"}', b'{"time":5}', b"\xff\xfe", b"x" * 1_000_000]
    text = b"\n".join([*bad, row(1, n=1).encode(), b"", b"  "])
    (tmp_path / "audit.json").write_bytes(text + b'\n{"time":"2027')
    read = lines(tmp_path)
    assert [each["n"] for each in read] == [1]
    assert read.unreadable == len(bad) + 1


def test_nothing_is_there_yet(tmp_path: Path):
    assert list(lines(tmp_path)) == []
    assert list(lines(tmp_path / "missing")) == []
    (tmp_path / "audit-20270101T000000Z.json").write_text(row(1, n=1) + "\n")
    assert [each["n"] for each in lines(tmp_path)] == [1]
