"""A large picture beside running streams: how long does anybody else wait for a chunk?

One worker serves all, so while it reads and judges a body of 15 MB, nobody else's chunk leaves. Rounds with and
without that body alternate.
"""

import base64
import os
import time
from collections.abc import Mapping
from typing import Any

from bench import chunks, scene
from bench.results import Result
from tests.deployment import Deployment

STREAMS = 50
CHUNKS, PAUSE_MS = 250, 20
BODY_MB = 15.0
ROUNDS = 3
AFTER_S = 2.0
"""From the streams' begin to the picture's."""
LIMIT_MS = 100.0


def picture() -> dict[str, Any]:
    """A body of BODY_MB: random bytes in base64, as a photograph is to whoever does not decode it."""
    data = base64.b64encode(os.urandom(int(BODY_MB * 1e6 * 3 / 4))).decode()
    made = scene.conversation("what is this?", stream=False)
    made["messages"][0]["images"] = [data]
    return made


def measure(deployment: Deployment, user: str) -> list[Result]:
    with scene.stand_in(deployment), scene.asker(deployment) as asker:
        way = scene.through(deployment, user)
        large = scene.job(way, scene.request(way, "/api/chat", picture()), Connections=1, Requests=1)
        gaps: dict[bool, list[float]] = {False: [], True: []}
        took: list[float] = []
        for number in range(2 * ROUNDS):
            beside = bool(number % 2)
            gap, seconds = _round(asker, way, large if beside else None)
            gaps[beside].append(gap)
            took += seconds
    alone, added = max(gaps[False]), max(gaps[True]) - max(gaps[False])
    name = f"{STREAMS} streams beside a body of {BODY_MB:g} MB"
    return [
        Result(f"{name}: longest gap grows by", added, "ms", LIMIT_MS),
        Result(f"{name}: longest gap without it", alone, "ms"),
        Result(f"{name}: longest gap with it", max(gaps[True]), "ms"),
        Result(f"{name}: longest gap with it, best round", min(gaps[True]), "ms"),
        Result(f"{name}: that body's answer after", max(took), "ms"),
    ]


def _round(asker: scene.Asker, way: Mapping[str, Any], large: Mapping[str, Any] | None) -> tuple[float, list[float]]:
    """The longest gap of all streams, and how long the picture's answer took (ms)."""
    text = scene.request(way, "/api/chat", chunks.paced(CHUNKS, PAUSE_MS))
    running = asker.start(scene.job(way, text, Connections=STREAMS, Requests=1, SpreadMs=PAUSE_MS))
    time.sleep(AFTER_S)
    took = [] if large is None else [each["last"] / 1000 for each in scene.answers(asker.ask(large))]
    answers = scene.answers(asker.finish(running))
    assert all(len(answer["chunks"]) == CHUNKS for answer in answers), "a stream was not whole"
    return max(answer["long_gap"] for answer in answers) / 1000, took
