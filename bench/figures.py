"""Numbers out of many measurements. Pure functions."""

import math
import random
from collections.abc import Callable, Sequence

RESAMPLES = 500


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest value that at least `percent` of all do not exceed (nearest rank), so it is one that was seen.

    >>> percentile([4, 1, 3, 2], 50), percentile([4, 1, 3, 2], 99)
    (2, 4)
    """
    if not values:
        raise ValueError("no measurements, so no percentile")
    return sorted(values)[max(0, math.ceil(percent / 100 * len(values)) - 1)]


def middle_half(values: Sequence[float]) -> float:
    """How far apart the quarters are (interquartile range): the spread, whatever the extremes are."""
    return percentile(values, 75) - percentile(values, 25)


def halves_differ(values: Sequence[float], percent: float) -> float:
    """By how much a percentile of the first half of a run differs from that of the second: what a rerun may change."""
    half = len(values) // 2
    return abs(percentile(values[:half], percent) - percentile(values[half:], percent))


def interval(values: Sequence[float], figure: Callable[[Sequence[float]], float]) -> tuple[float, float]:
    """Where a figure lies in 95 of 100 resamples (bootstrap). The same for the same values."""
    chance = random.Random(0)  # noqa: S311 - drawn for statistics
    seen = [figure(chance.choices(values, k=len(values))) for _ in range(RESAMPLES)]
    return percentile(seen, 2.5), percentile(seen, 97.5)
