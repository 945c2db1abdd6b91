"""What the Gateway adds to each chunk of many streams at once, and whether each leaves by itself.

STREAMS streams of CHUNKS chunks, one each PAUSE_MS, go past the Gateway and through it in turn. Each chunk says when
the stand-in wrote it, on the clock that all containers of one machine share. Both ways have the same streams, which
begin by the same lot, so chunk i of stream s is compared with itself: that difference is what the Gateway added.

Streams come through the Gateway one write per chunk: the load program reads TLS records, and counts those with more
than one chunk in them. A machine that is too busy merges chunks before they reach the Gateway: those past it are
counted too, and the quietest round is judged, chosen by what went past the Gateway and never by its result.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from bench import scene, worker
from bench.figures import percentile
from bench.results import Result
from tests.deployment import Deployment

STREAMS = 100
CHUNKS = 400
PAUSE_MS = 20
ROUNDS = 3
P99_MS = 1.0


def paced(chunks: int, pause_ms: int) -> dict[str, Any]:
    """A body whose answer comes at that pace; its size is that of a short conversation."""
    return scene.conversation(f"{chunks} {pause_ms} " + "word " * 100, stream=True)


def measure(deployment: Deployment, user: str) -> list[Result]:
    gateway = deployment.container("gateway")
    with scene.stand_in(deployment), scene.asker(deployment) as asker:
        ways = {"past": scene.past(deployment), "through": scene.through(deployment, user)}
        rounds: list[dict[str, list[dict[str, Any]]]] = []
        before = worker.used(gateway).seconds
        for number in range(ROUNDS):
            order = sorted(ways, reverse=bool(number % 2))
            rounds.append({name: _streams(asker, ways[name]) for name in order})
        spent = worker.used(gateway).seconds - before
    each_us = spent / (ROUNDS * STREAMS * CHUNKS) * 1e6
    return [*figures(rounds), Result("chunks of many streams: worker's time for one", each_us, "us")]


def _streams(asker: scene.Asker, way: Mapping[str, Any]) -> list[dict[str, Any]]:
    text = scene.request(way, "/api/chat", paced(CHUNKS, PAUSE_MS))
    return scene.answers(asker.ask(scene.job(way, text, Connections=STREAMS, Requests=1, SpreadMs=1000)))


def figures(rounds: Sequence[Mapping[str, Sequence[Mapping[str, Any]]]]) -> list[Result]:
    """rounds: the answers of all streams past the Gateway and through it, in the same order.

    Raises: AssertionError where a chunk is missing.
    """
    quietest = min(rounds, key=lambda each: percentile(_late(each["past"]), 99))
    past, through = _late(quietest["past"]), _late(quietest["through"])
    added = [(one - other) / 1000 for one, other in zip(through, past, strict=True)]
    noise = [percentile(_late(each["past"]), 99) / 1000 for each in rounds]
    coalesced = sum(answer["coalesced"] for answer in quietest["through"])
    outside = sum(answer["coalesced"] for answer in quietest["past"])
    longest = max(answer["long_gap"] for answer in quietest["through"]) / 1000
    streams, name = len(quietest["past"]), "chunks of many streams"
    return [
        Result(f"{name}, added by the Gateway: p99 of {len(added)}", percentile(added, 99), "ms", P99_MS),
        Result(f"{name}, added by the Gateway: p50", percentile(added, 50), "ms"),
        Result(f"{name}, p99 through less p99 past", (percentile(through, 99) - percentile(past, 99)) / 1000, "ms"),
        Result(f"{name}, written to read, past the Gateway: p50", percentile(past, 50) / 1000, "ms"),
        Result(f"{name}, written to read, past the Gateway: p99", percentile(past, 99) / 1000, "ms"),
        Result(f"{name}, written to read, through the Gateway: p99", percentile(through, 99) / 1000, "ms"),
        Result(f"{name}, noise: p99 past differs between rounds by", _spread(noise), "ms"),
        Result(f"{name}: longest gap through the Gateway", longest, "ms"),
        Result(f"{name}, not in a write of their own, through the Gateway", coalesced, "chunks", 0),
        Result(f"{name}, not in a write of their own, past the Gateway", outside, "chunks"),
        Result(f"{name}: streams", streams, "streams"),
    ]


def _late(answers: Sequence[Mapping[str, Any]]) -> list[float]:
    """Of all chunks in order: microseconds from written to read."""
    short = [len(answer["chunks"]) for answer in answers if len(answer["chunks"]) != len(answers[0]["chunks"])]
    assert not short, f"streams of {len(answers[0]['chunks'])} chunks, but one has {short[0]}"
    return [late for answer in answers for late in answer["chunks"]]


def _spread(values: Sequence[float]) -> float:
    return max((abs(one - other) for one, other in pairwise(values)), default=0.0)
