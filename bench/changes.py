"""How long `up` takes when little or nothing changes, and whether a preview right after `up` is silent."""

import time

from bench.results import Result
from tests.deployment import Deployment

UNCHANGED_S, USER_S = 20.0, 15.0


def measure(deployment: Deployment) -> list[Result]:
    """Each time is of the whole `fortress up`: images checked, and one question asked through the tunnel."""
    results = [
        Result("preview right after up: resources not unchanged", _not_unchanged(deployment), "resources", 0),
        Result(
            "preview --refresh right after up: resources not unchanged",
            _not_unchanged(deployment, "--refresh"),
            "resources",
            0,
        ),
        Result("up, nothing changed", _seconds_of_up(deployment), "s", UNCHANGED_S),
    ]
    deployment.config["users"]["bob"]["limits"]["requests_per_minute"] = 601
    results.append(Result("up, one user's limit changed", _seconds_of_up(deployment), "s", USER_S))
    deployment.config["users"]["carol"] = {}
    results.append(Result("up, one user added", _seconds_of_up(deployment), "s", USER_S))
    del deployment.config["users"]["carol"]
    results.append(Result("up, one user removed", _seconds_of_up(deployment), "s", USER_S))
    return results


def _not_unchanged(deployment: Deployment, *options: str) -> int:
    return sum(count for operation, count in deployment.planned(*options).items() if operation != "same")


def _seconds_of_up(deployment: Deployment) -> float:
    started = time.monotonic()
    deployment.up()
    return time.monotonic() - started
