"""The law of a head's scores on held-out tokens, as its quantiles at fixed levels: where to look for the threshold at
which a given share of the tokens is the teacher's. Pure.

The levels are dense at both ends, since ratios of interest are about 1%.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

_NUM_LEVELS = 80
_SMALLEST = 1e-5


def levels() -> list[float]:
    """The levels, ascending, between 0 and 1."""
    step = (math.log(0.5) - math.log(_SMALLEST)) / (_NUM_LEVELS - 1)
    low = [math.exp(math.log(_SMALLEST) + step * number) for number in range(_NUM_LEVELS)]
    return [*low, *(1 - level for level in reversed(low[:-1]))]


def quantiles(scores: Sequence[float]) -> list[float]:
    """The score at each of `levels`.

    Args:
        scores: ascending, at least one.
    """
    return [scores[min(int(level * len(scores)), len(scores) - 1)] for level in levels()]


def threshold_at(level: float, known: Sequence[float]) -> float:
    """The threshold below which this share of the scores lies, between quantiles on a straight line; 0 at level 0, and
    above every score at level 1.

    Args:
        level: from 0 to 1.
        known: of `quantiles`.

    >>> threshold_at(0.0, quantiles([0.2])), threshold_at(1.0, quantiles([0.2]))
    (0.0, 1.001)
    """
    grid = [0.0, *levels(), 1.0]
    scores = [0.0, *known, 1.001]
    upper = next(number for number in range(1, len(grid)) if level <= grid[number])
    share = (level - grid[upper - 1]) / (grid[upper] - grid[upper - 1])
    return scores[upper - 1] + share * (scores[upper] - scores[upper - 1])
