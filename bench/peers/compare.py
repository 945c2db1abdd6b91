"""The fortress and other gateways side by side: the same stand-in, the same requests, in turn.

OpenAI's chat completions, as all of them speak it. What a way adds is measured against the stand-in asked directly.
Each figure of the fortress is judged against the best of the others.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from bench import scene
from bench.figures import percentile
from bench.results import Result

OWN, DIRECT = "fortress", "direct"
PATH = "/v1/chat/completions"
ROUNDS = 5
LINES, REQUESTS = 16, 40
FIRST = 100
STREAMS, CHUNKS, PAUSE_MS = 10, 60, 50


def measure(asker: scene.Asker, ways: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, list[float]]]:
    """Of each way: requests a second by round; microseconds to the first chunk, and of each chunk."""
    seen: dict[str, dict[str, list[float]]] = {name: {"rate": [], "first": [], "chunk": []} for name in ways}
    for number in range(ROUNDS + 1):
        for name in sorted(ways, reverse=bool(number % 2)):
            found = {
                "rate": [_rate(asker, ways[name])],
                "first": [each["first"] for each in _streams(asker, ways[name], "1 0", 1, FIRST)],
                "chunk": [
                    late
                    for each in _streams(asker, ways[name], f"{CHUNKS} {PAUSE_MS}", STREAMS, 1)
                    for late in each["chunks"]
                ],
            }
            for what, values in found.items():
                seen[name][what] += values if number else []  # the first round warms all of them up
    return seen


def _rate(asker: scene.Asker, way: Mapping[str, Any]) -> float:
    text = scene.request(way, PATH, scene.kilobyte())
    result = asker.ask(scene.job(way, text, Connections=LINES, Requests=REQUESTS, Warm=2))
    return len(scene.answers(result)) / result["seconds"]


def _streams(asker: scene.Asker, way: Mapping[str, Any], pace: str, lines: int, requests: int) -> list[dict[str, Any]]:
    text = scene.request(way, PATH, scene.conversation(f"{pace} " + "word " * 100, stream=True))
    job = scene.job(way, text, Connections=lines, Requests=requests, Warm=1, SpreadMs=PAUSE_MS)
    return scene.answers(asker.ask(job))


def figures(seen: Mapping[str, Mapping[str, Sequence[float]]], memory: Mapping[str, float]) -> list[Result]:
    """Raises: ValueError where there is nobody to compare with."""
    names = [name for name in seen if name != DIRECT]

    def added(name: str, what: str, percent: float) -> float:
        return (percentile(seen[name][what], percent) - percentile(seen[DIRECT][what], percent)) / 1000

    rows = {
        ("requests/s", "1/s"): {name: percentile(seen[name]["rate"], 50) for name in names},
        ("first chunk, added: p50", "ms"): {name: added(name, "first", 50) for name in names},
        ("first chunk, added: p99", "ms"): {name: added(name, "first", 99) for name in names},
        ("each chunk, added: p50", "ms"): {name: added(name, "chunk", 50) for name in names},
        ("each chunk, added: p99", "ms"): {name: added(name, "chunk", 99) for name in names},
        ("memory after that", "MB"): {name: memory[name] for name in names},
    }
    results: list[Result] = []
    for (what, unit), values in rows.items():
        others = [value for name, value in values.items() if name != OWN]
        limits = {"at_least": max(others)} if unit == "1/s" else {"limit": min(others)}
        results.append(Result(f"{what}: {OWN}", values[OWN], unit, **limits))
        results += [Result(f"{what}: {name}", value, unit) for name, value in values.items() if name != OWN]
    return results
