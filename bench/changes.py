"""How long `up` takes when little or nothing changes, and whether a preview right after `up` is silent.

Each time is of the whole `fortress up`: images checked, and one question asked through the tunnel. Beside it stands
the processor time of everything that it ran on this machine, which other work here makes hardly longer.
"""

import resource
import time

from bench.results import Result
from tests.deployment import Deployment

UNCHANGED_S, USER_S = 20.0, 15.0


def measure(deployment: Deployment) -> list[Result]:
    users = deployment.config["users"]
    results = [
        Result("preview right after up: not unchanged", _not_unchanged(deployment), "resources", 0),
        Result(
            "preview --refresh right after up: not unchanged", _not_unchanged(deployment, "--refresh"), "resources", 0
        ),
        *_up(deployment, "nothing changed", UNCHANGED_S),
    ]
    users["bob"]["limits"]["requests_per_minute"] += 1
    results += _up(deployment, "one user's limit changed", USER_S)
    users["carol"] = {}
    results += _up(deployment, "one user added", USER_S)
    del users["carol"]
    results += _up(deployment, "one user removed", USER_S)
    return results


def _not_unchanged(deployment: Deployment, *options: str) -> int:
    return sum(count for operation, count in deployment.planned(*options).items() if operation != "same")


def _up(deployment: Deployment, what: str, limit: float) -> list[Result]:
    started, used = time.monotonic(), _processor_s()
    deployment.up()
    return [
        Result(f"up, {what}", time.monotonic() - started, "s", limit),
        Result(f"up, {what}: processor time", _processor_s() - used, "s"),
    ]


def _processor_s() -> float:
    """Of all programs that this one has started and seen end, and of theirs."""
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    return spent.ru_utime + spent.ru_stime
