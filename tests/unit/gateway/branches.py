"""Which code V8 has not run, out of what it wrote down (NODE_V8_COVERAGE). Pure functions."""

import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

# A range of only this is no code: what V8 leaves between two ranges.
NOTHING = re.compile(r"[\s{}();,]*")
IF = re.compile(r"\bif \(")


def counts(source: str, functions: Sequence[Mapping[str, Any]]) -> list[int]:
    """How often each character of a module was run: the innermost range says it."""
    ranges = [each for function in functions for each in function["ranges"]]
    found = [0] * len(source)
    for each in sorted(ranges, key=lambda each: (each["startOffset"], -each["endOffset"])):
        start, end = each["startOffset"], min(each["endOffset"], len(source))
        found[start:end] = [each["count"]] * (end - start)
    return found


def merged(some: Sequence[int], others: Sequence[int]) -> list[int]:
    """Of two runs of the same module."""
    return [one + other for one, other in zip(some, others, strict=True)]


def not_run(source: str, run: Sequence[int]) -> list[str]:
    """What was never run, and each `if` that was always true and has no else: as `line: text`.

    V8 counts both arms of ?: and if-else, the right side of && and ||, loops and catch blocks. Where an `if` has one
    arm only, it shows by being run as often as the `if` itself that the condition was never false.
    """
    missed = {start: source[start:end] for start, end in _zeros(run) if not NOTHING.fullmatch(source[start:end])}
    for found in IF.finditer(source):
        arm = _after(source, found.end())
        if 0 < run[found.start()] == run[arm]:
            missed[found.start()] = f"{source[found.start() : arm].strip()} (never false)"
    return [f"{source.count(chr(10), 0, at) + 1}: {_short(text)}" for at, text in sorted(missed.items())]


def _zeros(run: Sequence[int]) -> list[tuple[int, int]]:
    edges = [at for at in range(1, len(run)) if (run[at] == 0) != (run[at - 1] == 0)]
    bounds = [0, *edges, len(run)]
    return [(start, end) for start, end in pairwise(bounds) if start < end and run[start] == 0]


def _after(source: str, at: int) -> int:
    """Where the statement begins behind a condition whose bracket is open at `at`; brackets in quotes do not count."""
    depth, quote = 1, ""
    while depth:
        char = source[at]
        if quote:
            at += char == "\\"
            quote = "" if char == quote else quote
        elif char in "'\"`":
            quote = char
        else:
            depth += (char == "(") - (char == ")")
        at += 1
    while source[at].isspace():
        at += 1
    return at


def _short(text: str) -> str:
    return " ".join(text.split())[:120]
