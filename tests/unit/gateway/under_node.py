"""The policy's plain functions under Node, which can tell what of them was run: njs cannot.

Takes the place of the gateway (harness.Bench) where BRANCHES names a folder, for the tests that only call functions;
test_branches.py runs them so. What those tests prove, they prove in njs.
"""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from render.principals import policy_files

HERE = Path(__file__).parent
BRANCHES = "FORTRESS_BRANCHES"
OWN_IMPORT = re.compile(r"from '(\w+\.js)';")


def asked_for() -> bool:
    return BRANCHES in os.environ


class UnderNode:
    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self.process = process

    def call(self, name: str, *args: Any) -> Any:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(json.dumps({"name": name, "args": args}) + "\n")
        self.process.stdin.flush()
        result = json.loads(self.process.stdout.readline())
        assert "error" not in result, result["error"]
        return result.get("value")

    def __getattr__(self, name: str) -> Any:
        pytest.skip(f"{name} needs nginx, so this test says nothing about which plain functions are run by a test")


@contextmanager
def running(folder: Path) -> Iterator[UnderNode]:
    """Node with the policy; when it has ended, what it ran lies in the folder that BRANCHES names."""
    node = shutil.which("node")
    assert node, "node is missing: Node 20 or newer must be on PATH to see which branches of the policy are run"
    files = {name: text for name, text in policy_files().items() if "ngx." not in text}
    for name, text in (files | {name: (HERE / name).read_text() for name in ("calls.js", "under_node.mjs")}).items():
        (folder / name).write_text(OWN_IMPORT.sub(r"from './\1';", text))  # njs finds them by their bare names
    (folder / "package.json").write_text('{"type": "module"}')
    with subprocess.Popen(
        [node, "under_node.mjs"],
        cwd=folder,
        env=os.environ | {"NODE_V8_COVERAGE": os.environ[BRANCHES]},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        yield UnderNode(process)
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(timeout=30) == 0
