"""The one-shot containers that write and remove a host's files: which image they run, and what is said without it."""

import os
import subprocess
from pathlib import Path

import pytest

from components.host import Consumer, _deliver, _remove

IMAGE = "fortress.invalid/gateway:0123456789ab"
CONSUMER = Consumer(image=IMAGE, uid=1, check="true", container="name")
DELIVERY = _deliver("# about", "0", "/var/lib/ollama-fortress/home/gateway", CONSUMER)
REMOVAL = _remove("/var/lib/ollama-fortress/home/gateway", IMAGE)

DOCKER = """#!/bin/sh
case "$1 $3" in
"images fortress.invalid/*") cat "$0.others" 2>/dev/null || : ;;
images*) [ -e "$0.gone" ] || echo 0123456789ab ;;
run*) echo "$*" >> "$0.ran" ;;
esac
"""


def with_docker(folder: Path, script: str) -> subprocess.CompletedProcess[str]:
    (folder / "docker").write_text(DOCKER)
    (folder / "docker").chmod(0o755)
    return subprocess.run(
        ["sh", "-c", f"set -eu\n{script}"],
        env={"PATH": f"{folder}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("script", [DELIVERY, REMOVAL], ids=["delivery", "removal"])
def test_a_missing_image_is_named_with_the_command_that_builds_it_and_nothing_runs(script: str, tmp_path: Path) -> None:
    (tmp_path / "docker.gone").touch()
    done = with_docker(tmp_path, script)
    assert done.returncode == 1
    said = " ".join(done.stderr.split())
    assert f"no image {IMAGE}; run `bin/fortress images build --stack home`, then this again" in said
    assert not (tmp_path / "docker.ran").exists()


@pytest.mark.parametrize(("gone", "removes"), [(False, "0123456789ab"), (True, "ba9876543210")])
def test_any_image_of_ours_removes_the_files_where_theirs_is_gone(gone: bool, removes: str, tmp_path: Path) -> None:
    """After an update and a wiped engine, no checkout builds the old one any more."""
    (tmp_path / "docker.others").write_text("ba9876543210\nfff\n")
    if gone:
        (tmp_path / "docker.gone").touch()
    done = with_docker(tmp_path, REMOVAL)
    assert done.returncode == 0, done.stderr
    assert f" {removes} -c rm -rf -- /root/home/gateway;" in (tmp_path / "docker.ran").read_text()
