"""Who holds a stack: the dead are passed over, the living and the unknown are not."""

import json
import os
import platform
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from fortress import paths, stack_lock
from settings import PROJECT

HERE = platform.node()


@pytest.fixture
def locks(tmp_path: Path) -> Path:
    folder = tmp_path / ".pulumi" / "locks" / "organization" / PROJECT / "dev"
    folder.mkdir(parents=True)
    return folder


def lock(folder: Path, pid: int, machine: str = HERE) -> None:
    noted = {"pid": pid, "username": "ada", "hostname": machine, "timestamp": "2026-11-24T10:11:12.123456789Z"}
    (folder / f"{pid}.json").write_text(json.dumps(noted))


def alive(tmp_path: Path) -> list[stack_lock.Holder]:
    return [holder for holder in stack_lock.holders(f"file://{tmp_path}", "dev") if holder.may_be_alive]


@pytest.fixture
def running(tmp_path: Path) -> Iterator[int]:
    """A living process that is called as Pulumi's is."""
    program = tmp_path / "pulumi"
    shutil.copy(shutil.which("sleep") or "", program)
    with subprocess.Popen([str(program), "60"]) as process:
        # Its name is there once exec is through.
        while not Path(f"/proc/{process.pid}/comm").read_text().startswith("pulumi"):
            pass
        yield process.pid
        process.kill()


def test_a_lock_of_a_living_pulumi_names_its_holder(tmp_path: Path, locks: Path, running: int) -> None:
    lock(locks, running)
    [holder] = alive(tmp_path)
    assert str(holder) == f"ada@{HERE} (process {running}, since 2026-11-24 10:11:12)"


def test_a_lock_of_a_dead_process_is_passed_over(tmp_path: Path, locks: Path) -> None:
    ended = subprocess.Popen(["true"])
    ended.wait()
    lock(locks, ended.pid)
    assert stack_lock.holders(f"file://{tmp_path}", "dev")
    assert alive(tmp_path) == []


def test_a_number_that_another_program_has_by_now_is_passed_over(tmp_path: Path, locks: Path) -> None:
    lock(locks, os.getpid())
    assert alive(tmp_path) == []


def test_a_lock_of_another_machine_may_be_alive(tmp_path: Path, locks: Path) -> None:
    lock(locks, 1, machine="elsewhere")
    assert len(alive(tmp_path)) == 1


def test_a_lock_that_cannot_be_read_may_be_alive(tmp_path: Path, locks: Path) -> None:
    (locks / "half.json").write_text('{"pid": 1')
    assert len(alive(tmp_path)) == 1


def test_another_stacks_lock_and_another_kind_of_backend_are_not_read(
    tmp_path: Path, locks: Path, running: int
) -> None:
    lock(locks, running)
    assert stack_lock.holders(f"file://{tmp_path}", "home") == []
    assert stack_lock.holders("s3://bucket", "dev") == []


@pytest.mark.parametrize("address", ["file://~", "file://~/", "file://~?no_tmp_dir=false", "file://."])
def test_a_backend_is_found_where_pulumi_finds_it(
    address: str, tmp_path: Path, locks: Path, running: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(paths, "CHECKOUT", tmp_path)
    lock(locks, running)
    assert [holder.pid for holder in stack_lock.holders(address, "dev")] == [running]
