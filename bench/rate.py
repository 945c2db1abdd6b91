"""Requests a second through the policy, against the same nginx as a bare proxy; and what being seen costs of them.

The load is bench/load's own: LINES kept-alive TLS connections that each send the next request when the last one is
answered, 1 KB of JSON to /api/chat that is not streamed. Rounds of both ways alternate, so that whatever else this
machine does meets both. How much of a core the load program takes is said too: where that comes near a whole one, the
load is what is measured.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from bench import bare, scene, unseen, worker
from bench.figures import percentile
from bench.results import Result
from tests.deployment import Deployment

ROUNDS = 7
LINES = 16
REQUESTS = 250
"""On each connection and in each round; few enough that no connection is renewed, and no user's burst is spent."""
AT_LEAST = 0.6
SEEN_AT_LEAST = 0.9
"""With audit line, figures and tokens counted, of the same policy without."""


def measure(deployment: Deployment, user: str) -> list[Result]:
    containers = {"gateway": deployment.container("gateway")}
    with (
        scene.stand_in(deployment),
        bare.proxy(deployment, user) as (containers["bare"], bare_way),
        unseen.gateway(deployment, user) as (containers["unseen"], unseen_way),
        scene.asker(deployment) as asker,
    ):
        ways = {"bare": bare_way, "gateway": scene.through(deployment, user), "unseen": unseen_way}
        rounds: list[dict[str, dict[str, float]]] = []
        for number in range(ROUNDS + 1):
            order = sorted(ways, reverse=bool(number % 2))
            rounds.append({name: _round(asker, containers[name], ways[name]) for name in order})
    return figures(rounds[1:])  # the first one warms both up


def _round(asker: scene.Asker, container: str, way: Mapping[str, Any]) -> dict[str, float]:
    text = scene.request(way, "/api/chat", scene.kilobyte())
    before = worker.used(container)
    result = asker.ask(scene.job(way, text, Connections=LINES, Requests=REQUESTS, Warm=10))
    spent = worker.used(container).seconds - before.seconds
    count = len(scene.answers(result))
    return {
        "rate": count / result["seconds"],
        "cpu_us": spent / (count + 10 * LINES) * 1e6,
        "load": result["cpu"] / result["seconds"],
    }


def figures(rounds: Sequence[Mapping[str, Mapping[str, float]]]) -> list[Result]:
    """rounds: of each way the requests a second, the worker's time for one, and the cores that the load took."""
    ratios = [each["gateway"]["rate"] / each["bare"]["rate"] for each in rounds]
    seen = [each["gateway"]["rate"] / each["unseen"]["rate"] for each in rounds]

    def middle(way: str, what: str) -> float:
        return percentile([each[way][what] for each in rounds], 50)

    return [
        Result("requests/s, policy on, of the bare proxy's: median", percentile(ratios, 50), "", at_least=AT_LEAST),
        Result("requests/s, policy on, of the bare proxy's: lowest round", min(ratios), ""),
        Result("requests/s, policy on, of the bare proxy's: highest round", max(ratios), ""),
        Result(
            "requests/s, seen, of the policy that writes nothing down: median",
            percentile(seen, 50),
            "",
            at_least=SEEN_AT_LEAST,
        ),
        Result("requests/s: bare proxy", middle("bare", "rate"), "1/s"),
        Result("requests/s: Gateway", middle("gateway", "rate"), "1/s"),
        Result("worker's time for one request: bare proxy", middle("bare", "cpu_us"), "us"),
        Result("worker's time for one request: Gateway", middle("gateway", "cpu_us"), "us"),
        Result("worker's time for one request: Gateway that writes nothing down", middle("unseen", "cpu_us"), "us"),
        Result("load program, at most", max(each[way]["load"] for each in rounds for way in each), "cores"),
    ]
