"""What VpnNode, Gateway and sidecar need while nobody asks.

Counted is what `docker stats` shows: the memory the kernel charges to each container's control group, without file
cache that it would give back at once (inactive). Rather that than the processes' own shares (PSS): the kernel's
buffers and the shared zones of the policy are in it, and other containers of the same image, whose pages a share
would be divided by, do not make it smaller. The health checks that run now and then are in some of the samples, so
the median of several counts.
"""

import time

import docker

from bench.figures import percentile
from bench.results import Result
from tests.deployment import Deployment

COMPONENTS = ("vpn-node", "gateway", "ollama-sidecar")
LIMIT_MB = 60.0
SAMPLES = 9
EVERY_S = 0.7
"""Out of step with the health checks, which come every 5 s."""


def charged(memory: dict[str, object]) -> int:
    """Bytes that count, out of the engine's `memory_stats`."""
    usage, details = memory["usage"], memory["stats"]
    assert isinstance(usage, int) and isinstance(details, dict)
    # Control groups of version 1 name the sum over all children apart; version 2 has that only.
    return max(0, usage - int(details.get("total_inactive_file", details.get("inactive_file", 0))))


def measure(deployment: Deployment, when: str, limit: float | None) -> list[Result]:
    """when: what came before, in the figure's name."""
    engine = docker.from_env()
    seen: dict[str, list[float]] = {name: [] for name in COMPONENTS}
    for _ in range(SAMPLES):
        for name in COMPONENTS:
            stats = engine.api.stats(deployment.container(name), stream=False, one_shot=True)
            seen[name].append(charged(stats["memory_stats"]) / 1e6)
        time.sleep(EVERY_S)
    medians = {name: percentile(values, 50) for name, values in seen.items()}
    return [
        Result(f"memory, {when}: VpnNode, Gateway and sidecar", sum(medians.values()), "MB", limit),
        *(Result(f"memory, {when}: {name}", value, "MB") for name, value in medians.items()),
    ]
