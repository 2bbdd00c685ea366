"""The width of an interval where all questions of a benchmark were answered alike. Pure.

A bootstrap of such questions has no width, though 40 right answers of 40 do not show that all are right. Where a
measure counts right answers, such a stratum has the interval of a binomial proportion at its end (Wilson's, which is
z²/(n+z²) wide), combined with those of the others as independent errors are.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist

import numpy as np

LEVEL = 0.95
"""Of every interval."""
Z = NormalDist().inv_cdf((1 + LEVEL) / 2)
"""Where the normal law has that much of its mass around 0."""


def shares_of(stratum: np.ndarray) -> np.ndarray:
    """The ratio of each question, a mean over seeds: [num_questions, num_seeds, 2] -> [num_questions]."""
    return (stratum[..., 0] / np.maximum(stratum[..., 1], 1)).mean(axis=1)


def reach_of_alike(strata: Sequence[np.ndarray], lowest: float, highest: float) -> tuple[float, float]:
    """How far below and above the mean of the strata its interval reaches for those whose questions are all alike.

    >>> down, up = reach_of_alike([np.ones(40)], 0.0, 1.0)
    >>> round(1 - down, 3), up  # Wilson's interval of 40 out of 40 is 91.2% to 100%
    (0.912, 0.0)
    """
    down, up = [0.0], [0.0]
    for values in strata:
        if np.ptp(values) < 1e-12:
            reach = Z**2 / (len(values) + Z**2) / len(strata)
            down.append(reach if values[0] > lowest else 0.0)
            up.append(reach if values[0] < highest else 0.0)
    return math.hypot(*down), math.hypot(*up)
