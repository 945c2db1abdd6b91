"""Many streams held by the one worker: does each of them end as it should, and what does each need?"""

import time

from bench import chunks, scene, worker
from bench.results import Result
from tests.deployment import Deployment

STREAMS = 512
CHUNKS, PAUSE_MS = 20, 1000
"""Slow ones: counted is how many may be open, not how fast they are."""
OPENING_S = 8.0
LIMIT_MB = 0.5


def measure(deployment: Deployment, user: str) -> list[Result]:
    gateway = deployment.container("gateway")
    with scene.stand_in(deployment), scene.asker(deployment) as asker:
        way = scene.through(deployment, user)
        text = scene.request(way, "/api/chat", chunks.paced(CHUNKS, PAUSE_MS))
        worker.fresh(gateway)
        before = worker.used(gateway)
        running = asker.start(scene.job(way, text, Connections=STREAMS, Requests=1, SpreadMs=OPENING_S * 1000))
        seen: list[float] = []
        deadline = time.monotonic() + OPENING_S + CHUNKS * PAUSE_MS / 1000
        while time.monotonic() < deadline and running.poll() is None:
            time.sleep(1)
            seen.append(worker.used(gateway).megabytes)
        answers = scene.answers(asker.finish(running))
        after = worker.used(gateway)
    whole = sum(len(answer["chunks"]) == CHUNKS for answer in answers)
    return [
        Result(f"{STREAMS} streams at once: not finished, or not whole", STREAMS - whole, "streams", 0),
        Result(f"{STREAMS} streams at once: memory of each", (max(seen) - before.megabytes) / STREAMS, "MB", LIMIT_MB),
        Result(f"{STREAMS} streams at once: worker before", before.megabytes, "MB"),
        Result(f"{STREAMS} streams at once: worker at most", max(seen), "MB"),
        Result(f"{STREAMS} streams at once: worker afterwards", after.megabytes, "MB"),
        Result(
            f"{STREAMS} streams at once: longest gap (one chunk a second)",
            max(answer["long_gap"] for answer in answers) / 1000,
            "ms",
        ),
    ]
