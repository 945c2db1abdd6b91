"""What the Gateway adds to the time to the first chunk, and to the gaps between chunks.

A paced stand-in takes Ollama's place behind the real sidecar. One client asks it over and over in pairs: once past the
Gateway, with the Gateway's own certificate, and once through it, on the port without PROXY protocol, with an API key.
Both connections are kept alive, both are TLS 1.3, and the sidecar and what is behind it are the same: the difference
of a pair is the Gateway alone. The tunnel is not in it.

On a busy machine the high percentiles say how long a process waited for a core. What that adds is measured too, as
the difference between two requests past the Gateway, where nothing can differ: the noise. A round that is noisier
than NOISE_MS is repeated, and the quietest round is judged: chosen by its noise, never by its result.
"""

import json
import subprocess
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from bench import scene
from bench.figures import halves_differ, interval, middle_half, percentile
from bench.results import Result
from render.nginx import OLLAMA_PORT
from tests.deployment import Deployment

Pairs = Sequence[Mapping[str, Mapping[str, Any]]]
"""Per pair, what bench/pairs.py's sample() says of `direct` and of `gateway`."""

HERE = Path(__file__).parent
PYTHON = ("python3", "-c")
PAIRS = 2000
SECONDS = 400
"""Most that one round may take; undisturbed it takes a quarter of it."""
ROUNDS = 3
NOISE_MS = 1.5
P50_MS, P99_MS = 0.5, 2.0


def measure(deployment: Deployment, user: str) -> list[Result]:
    """Ask 2,000 pairs a round as `user`, whose limits must allow it.

    Ollama is stopped meanwhile and started again afterwards.
    """
    rounds: list[Pairs] = []
    given = _given(deployment, user)
    address = str(scene.config(deployment).plan.heart.ollama)
    paced = (*PYTHON, (HERE / "stand_in.py").read_text(), address, str(OLLAMA_PORT), str(ROUNDS * (SECONDS + 60)))
    with scene.stand_in(deployment, *paced):
        while len(rounds) < ROUNDS and not any(noise_ms(pairs) <= NOISE_MS for pairs in rounds):
            with scene.client(deployment, *PYTHON, (HERE / "pairs.py").read_text()) as client:
                rounds.append(_ask(client, given))
    pairs = min(rounds, key=noise_ms)
    return [*_first(pairs), Result("rounds until one was quiet", len(rounds), "rounds"), *_gaps(pairs), *_where(pairs)]


def added_ms(pairs: Pairs, part: str) -> list[float]:
    """What the Gateway added to each pair."""
    return [(pair["gateway"][part] - pair["direct"][part]) / 1000 for pair in pairs]


def noise_ms(pairs: Pairs) -> float:
    """99th percentile of what differs between requests that go the same way, one pair after the other."""
    direct = [pair["direct"]["first"] for pair in pairs]
    return percentile([(later - earlier) / 1000 for earlier, later in pairwise(direct)], 99)


def _first(pairs: Pairs) -> list[Result]:
    added = added_ms(pairs, "first")
    name = "first chunk, added by the Gateway"
    low50, high50 = interval(added, lambda values: percentile(values, 50))
    low99, high99 = interval(added, lambda values: percentile(values, 99))
    return [
        Result(f"{name}: p50 of {len(added)} pairs", percentile(added, 50), "ms", P50_MS),
        Result(f"{name}: p50, from (95 %)", low50, "ms"),
        Result(f"{name}: p50, to (95 %)", high50, "ms"),
        Result(f"{name}: p90", percentile(added, 90), "ms"),
        Result(f"{name}: p99", percentile(added, 99), "ms", P99_MS),
        Result(f"{name}: p99, from (95 %)", low99, "ms"),
        Result(f"{name}: p99, to (95 %)", high99, "ms"),
        Result(f"{name}: max", max(added), "ms"),
        Result(f"{name}: middle half spans", middle_half(added), "ms"),
        Result(f"{name}: p50, halves of the run differ by", halves_differ(added, 50), "ms"),
        Result(f"{name}: p99, halves of the run differ by", halves_differ(added, 99), "ms"),
        Result("noise: the same between two requests past the Gateway: p99", noise_ms(pairs), "ms"),
    ]


def _gaps(pairs: Pairs) -> list[Result]:
    through = [gap / 1000 for pair in pairs for gap in pair["gateway"]["gaps"]]
    past = [gap / 1000 for pair in pairs for gap in pair["direct"]["gaps"]]
    added = [one - other for one, other in zip(through, past, strict=True)]
    return [
        Result("gap between chunks, through the Gateway: p50", percentile(through, 50), "ms"),
        Result("gap between chunks, through the Gateway: p99", percentile(through, 99), "ms"),
        Result("gap between chunks, through the Gateway: max", max(through), "ms"),
        Result("gap between chunks, past the Gateway: p99", percentile(past, 99), "ms"),
        Result("gap between chunks, added by the Gateway: p50", percentile(added, 50), "ms"),
        Result("gap between chunks, added by the Gateway: p99", percentile(added, 99), "ms"),
    ]


def _where(pairs: Pairs) -> list[Result]:
    """Where the time goes, and how far the bench itself can be believed."""
    request, chunk = added_ms(pairs, "way_in"), added_ms(pairs, "way_out")
    past = [pair["direct"]["first"] / 1000 for pair in pairs]
    late = [each["late"] / 1000 for pair in pairs for each in pair.values()]
    return [
        Result("first chunk, added on the request's way in: p50", percentile(request, 50), "ms"),
        Result("first chunk, added on the chunk's way out: p50", percentile(chunk, 50), "ms"),
        Result("first chunk, past the Gateway: p50", percentile(past, 50), "ms"),
        Result("first chunk, past the Gateway: p99", percentile(past, 99), "ms"),
        Result("the stand-in's own delay: p99", percentile(late, 99), "ms"),
    ]


def _given(deployment: Deployment, user: str) -> dict[str, Any]:
    """Everything the client must know. The Gateway's key is in it: it goes by stdin, and nowhere else."""
    body = {"model": "tiny", "prompt": "", "stream": True}
    body["prompt"] = ("word " * scene.KILOBYTE)[: scene.KILOBYTE - len(json.dumps(body))]
    return {
        "pairs": PAIRS,
        "seconds": SECONDS,
        "body": json.dumps(body),
        "direct": scene.past(deployment),
        "gateway": scene.through(deployment, user),
    }


def _ask(client: str, given: dict[str, Any]) -> Pairs:
    done = subprocess.run(
        ["docker", "start", "-ai", client],
        input=json.dumps(given),
        capture_output=True,
        text=True,
        check=False,
        timeout=SECONDS + 60,
    )
    if done.returncode != 0:
        raise AssertionError(f"the measuring client ended with {done.returncode}: {done.stderr.strip()[-1000:]}")
    return json.loads(done.stdout)
