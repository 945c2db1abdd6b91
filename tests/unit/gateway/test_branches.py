"""The policy stays small, and every branch of its plain functions is run by a test."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import pytest

from fortress import paths
from render.principals import POLICY
from tests.unit.gateway import branches, under_node

# What decides.
MOST_LINES = 1200
# What only tells of it: the audit trail and the figures.
TELLING = {"audit.js", "exporter.js", "metrics.js", "observe.js", "trail.js"}
MOST_TELLING = 360
COMMENT = re.compile(r"\s*(//|/\*|\*)")
PLAIN = sorted(path.name for path in POLICY.glob("*.js") if "ngx." not in path.read_text())


def code(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.strip() and not COMMENT.match(line)]


def test_the_policy_is_small_enough_to_be_read():
    lines = {path.name: len(code(path.read_text())) for path in POLICY.glob("*.js")}
    telling = sum(lines.pop(name) for name in TELLING)
    assert sum(lines.values()) <= MOST_LINES, lines
    assert telling <= MOST_TELLING


def test_what_asks_nginx_is_in_four_files():
    asking = {"exporter.js", "gateway.js", "ledger.js", "observe.js"}
    assert {path.name for path in POLICY.glob("*.js")} - set(PLAIN) == asking


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[int]]:
    """How often each character of each plain module was run by the tests that call functions."""
    folder: Path = tmp_path_factory.mktemp("branches")
    here = "tests/unit/gateway"
    command = [sys.executable, "-m", "pytest", here, "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "--timeout=300"]
    # The fuzzer finds its own way, another one each time; and this file would run itself.
    command += [f"--ignore={here}/{name}" for name in ("test_body_fuzz.py", "test_branches.py")]
    done = subprocess.run(
        command,
        cwd=paths.CHECKOUT,
        env=os.environ | {under_node.BRANCHES: str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:]
    found: dict[str, list[int]] = {}
    for file in folder.glob("*.json"):
        for script in json.loads(file.read_text())["result"]:
            path = Path(urlparse(script["url"]).path)
            if path.name in PLAIN and path.parent != POLICY:
                counted = branches.counts(path.read_text(), script["functions"])
                found[path.name] = branches.merged(found[path.name], counted) if path.name in found else counted
    return found


@pytest.mark.parametrize("name", PLAIN)
def test_every_branch_of_the_plain_functions_is_run_by_a_test(name: str, run: dict[str, list[int]]):
    source = under_node.OWN_IMPORT.sub(r"from './\1';", (POLICY / name).read_text())
    missed = branches.not_run(source, run[name])
    if missed:
        pytest.fail(f"{name}: no test runs\n" + "\n".join(missed), pytrace=False)


def covered(source: str, *ranges: tuple[str, int]) -> Any:
    """not_run() of a source that V8 ran once, but for these pieces of it."""
    rows = [{"startOffset": 0, "endOffset": len(source), "count": 1}]
    for text, count in ranges:
        at = source.index(text)
        rows.append({"startOffset": at, "endOffset": at + len(text), "count": count})
    return branches.not_run(source, branches.counts(source, [{"ranges": rows}]))


def test_a_branch_that_is_not_run_is_named_by_its_line():
    assert covered("a();\nb ? c() : d();", ("d()", 0)) == ["2: d()"]
    assert covered("a();\nb ? c() : d();") == []


def test_an_if_that_is_always_true_is_named_too():
    assert covered("if (f(')')) return 1;") == ["1: if (f(')')) (never false)"]
    assert covered("if (f(')')) return 1;", ("return 1;", 0)) == ["1: return 1;"]
    assert covered("if (f(')')) return 1;\nx", ("x", 2), ("if (f(')'))", 3)) == []
