"""How a running container is told of new files, with a `docker` that answers as the engine did."""

import os
import subprocess
from pathlib import Path

import pytest

from components.host import Consumer, _deliver

DOCKER = """#!/bin/sh
case $1 in
run) exit 0 ;;
images) echo 0123456789ab ;;
ps)
  case " $* " in *" --filter name=^name\\$ "*) ;; *) exit 2 ;; esac
  word=$(head -n 1 "$0.says"); sed -i 1d "$0.says"
  case $word in "no answer") echo "the engine's words" >&2; exit 1 ;; esac
  case " $* " in *" --filter status=$word "*) echo 0123456789ab ;; esac ;;
exec) echo "$*" >> "$0.told"; [ ! -e "$0.refuses" ] || { echo "the engine's words" >&2; exit 1; } ;;
*) exit 2 ;;
esac
"""


@pytest.mark.parametrize(
    ("says", "refuses", "told", "passes"),
    [
        (["running"], False, 1, True),
        (["restarting"], True, 0, True),
        (["exited"], True, 0, True),
        ([""], True, 0, True),
        (["running", "restarting"], True, 1, True),
        (["running", "running", "running"], True, 3, False),
        (["paused", "paused", "paused"], True, 3, False),
        (["no answer", "no answer", "no answer"], True, 0, False),
        (["no answer", "running"], False, 1, True),
    ],
    ids=[
        "running",
        "crash loop",
        "stopped",
        "not made yet",
        "crashed after the question",
        "running and deaf",
        "paused",
        "engine silent",
        "engine silent once",
    ],
)
def test_what_runs_is_told_and_what_may_go_on_with_the_old_files_fails(
    says: list[str], refuses: bool, told: int, passes: bool, tmp_path: Path
) -> None:
    (tmp_path / "docker").write_text(DOCKER)
    (tmp_path / "docker").chmod(0o755)
    (tmp_path / "docker.says").write_text("".join(f"{word}\n" for word in says))
    if refuses:
        (tmp_path / "docker.refuses").touch()
    consumer = Consumer(image="image", uid=1, check="true", container="name")
    done = subprocess.run(
        ["sh", "-c", "set -eu\n" + _deliver("# about", "0", "/nowhere", consumer)],
        env={"PATH": f"{tmp_path}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode == 0) == passes, done.stderr
    words = (tmp_path / "docker.told").read_text().splitlines() if told else []
    assert words == ["exec name /bin/sh -c kill -HUP 1"] * told
    assert done.stderr == ("" if passes else "the engine's words\n")
