"""What is asked of `pulumi`, and what becomes of a running one when somebody presses Ctrl-C."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fortress import paths
from fortress.errors import Stop
from fortress.pulumi_cli import Pulumi

PULUMI = """#!/bin/sh
cancel() {
  trap "" INT
  kill "$work"
  echo cancelling > "$0.hears"
  sleep 1
  echo saved > "$0.state"
  exit 1
}
trap cancel INT
sleep 60 & work=$!
echo works > "$0.hears"
wait
"""
CALLER = """
import sys
from fortress.pulumi_cli import Pulumi
try:
    Pulumi("dev", {"PATH": sys.argv[1]}).METHOD("up")
except KeyboardInterrupt:
    print("interrupted")
"""


def heard(folder: Path, word: str) -> None:
    file, deadline = folder / "pulumi.hears", time.monotonic() + 20
    while not file.exists() or word not in file.read_text():
        assert time.monotonic() < deadline, f"pulumi is not {word}"
        time.sleep(0.02)


@pytest.mark.parametrize("method", ["run", "read"])
@pytest.mark.parametrize("presses", [1, 2])
def test_an_interrupted_pulumi_is_let_cancel_in_order_and_save_its_state(
    method: str, presses: int, tmp_path: Path
) -> None:
    (tmp_path / "pulumi").write_text(PULUMI)
    (tmp_path / "pulumi").chmod(0o755)
    caller = subprocess.Popen(
        [sys.executable, "-c", CALLER.replace("METHOD", method), f"{tmp_path}:{os.environ['PATH']}"],
        cwd=paths.CHECKOUT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,  # as a terminal, Ctrl-C is for the whole group
        # Who runs the tests in the background may ignore it, and so would everything below.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        heard(tmp_path, "works")
        os.killpg(caller.pid, signal.SIGINT)
        heard(tmp_path, "cancelling")
        for _ in range(presses - 1):
            time.sleep(0.1)
            os.killpg(caller.pid, signal.SIGINT)
        said, _ = caller.communicate(timeout=20)
        assert (tmp_path / "pulumi.state").read_text() == "saved\n", "it was killed while it cancelled"
        assert said.endswith("interrupted\n"), said
        assert caller.returncode == 0
    finally:
        if caller.poll() is None:
            os.killpg(caller.pid, signal.SIGKILL)
            caller.wait()


@pytest.mark.parametrize(
    ("says", "code", "known"),
    [("dev", 0, True), ("error: no stack named 'dev' found", 255, False), ("error: EOF", 255, None)],
)
def test_a_stack_is_known_or_not_and_a_question_without_an_answer_is_neither(
    says: str, code: int, known: bool | None, tmp_path: Path
):
    program = tmp_path / "pulumi"
    program.write_text(
        f'#!/bin/sh\n[ "$*" = "stack --show-name --stack dev" ] || exit 9\necho "{says}" >&2\nexit {code}\n'
    )
    program.chmod(0o755)
    pulumi = Pulumi("dev", {"PATH": f"{tmp_path}:{os.environ['PATH']}"})
    if known is None:
        with pytest.raises(Stop, match="EOF"):
            pulumi.exists()
    else:
        assert pulumi.exists() is known
