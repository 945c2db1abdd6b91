"""`make bench`: measures a fortress of its own, which is gone afterwards, and says whether the limits are kept.

Load goes to containers that the bench itself made, and is bounded in count and time. Whatever else runs on this
machine is in the figures, so each group of them starts with the load average.
"""

import os
import signal
import sys
from collections.abc import Callable

from rich.console import Console

from bench import changes, chunks, first_chunk, held, memory, proof, rate, results, vision
from bench.results import Result
from fortress import docker_engine
from tests.deployment import Deployment, deployed

USER = "bench"
WIDE = {
    "requests_per_minute": 100_000,
    "burst": 100_000,
    "concurrent": 1000,
    "reads_per_minute": 100_000,
    "tokens_per_day": 10**12,
    "tokens_per_month": 10**12,
}
"""Every limit is counted and none is met."""
GATEWAY = {"slots": 1024, "failed_auth_per_minute": 100_000}


def steps(deployment: Deployment) -> dict[str, Callable[[], list[Result]]]:
    """What is measured, in this order: memory first, while nobody has asked much yet."""
    return {
        "memory": lambda: memory.measure(deployment, "idle after up", memory.LIMIT_MB),
        "changes": lambda: changes.measure(deployment),
        "pairs": lambda: first_chunk.measure(deployment, USER),
        "requests a second": lambda: rate.measure(deployment, USER),
        "chunks of many streams": lambda: chunks.measure(deployment, USER),
        "a picture beside streams": lambda: vision.measure(deployment, USER),
        "proof of who asks": lambda: proof.measure(deployment, USER),
        "streams held": lambda: held.measure(deployment, USER),
        "memory again": lambda: memory.measure(deployment, "idle after all that", None),
    }


def measurable(deployment: Deployment) -> Deployment:
    """With a user whose every request passes the whole policy."""
    deployment.config["users"][USER] = {"service": True, "models": ["tiny"], "limits": WIDE}
    deployment.config["gateway"] = GATEWAY
    return deployment


def load(what: str) -> Result:
    return Result(f"load average before: {what}", os.getloadavg()[0], f"on {os.cpu_count()} cores")


def console() -> Console:
    made = Console()
    if not made.is_terminal:
        made.width = 120  # a log has no width of its own
    # Ended from outside, it cleans up too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    return made


def main() -> int:
    own = console()
    docker_engine.ensure(own)
    measured: list[Result] = []
    own.print("deploying a fortress of its own")
    deployment = measurable(Deployment.fresh("bench"))
    with deployed(deployment):
        for what, measure in steps(deployment).items():
            own.print(f"measuring: {what}")
            measured += [load(what), *measure()]
    results.write(measured)
    own.print(results.table(measured))
    return results.exit_code(measured)


if __name__ == "__main__":
    sys.exit(main())
