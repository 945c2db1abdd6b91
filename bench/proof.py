"""What it costs to find out who asks: a key is random, so one SHA-256 is enough, and a slow hash would stop everybody.

The worker's own processor time for requests that do nothing else (`GET /api/version`), with a right key and with wrong
ones. One bcrypt of its cheapest useful cost (5) takes 2.4 ms, of the usual one (10) 73 ms.
"""

import secrets
from collections.abc import Mapping
from typing import Any

from bench import scene, worker
from bench.results import Result
from tests.deployment import Deployment

REQUESTS = 40
"""On each of LINES connections, slower than what nginx lets a stranger send before anybody looks at its key."""
LINES = 4
PER_SECOND = 10
LIMIT_MS = 1.0


def measure(deployment: Deployment, user: str) -> list[Result]:
    way = scene.through(deployment, user)
    asked = {
        "a right key": (way, 200),
        "a wrong key": (way | {"api_key": secrets.token_hex(32)}, 401),
        "what is no key": (way | {"api_key": "x" * 64}, 401),
    }
    with scene.stand_in(deployment), scene.asker(deployment) as asker:
        return [
            Result(f"worker's time for one GET, with {what}", _ms(deployment, asker, *how), "ms", LIMIT_MS)
            for what, how in asked.items()
        ]


def _ms(deployment: Deployment, asker: scene.Asker, way: Mapping[str, Any], status: int) -> float:
    """Everything in it: also the TLS records, the audit line, and what the worker does of its own every second."""
    gateway, text = deployment.container("gateway"), scene.request(way, "/api/version", None)
    before = worker.used(gateway).seconds
    result = asker.ask(scene.job(way, text, Connections=LINES, Requests=REQUESTS, PerSecond=PER_SECOND))
    spent = worker.used(gateway).seconds - before
    return spent / len(scene.answers(result, status)) * 1000
