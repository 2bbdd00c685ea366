"""The mean of one number over training seeds with Student's t interval: what each training gives is one value."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from relay_verl.report.statistics import Estimate
from relay_verl.report.student_t import t_quantile


def over_seeds(values: Sequence[float], lowest: float, highest: float) -> Estimate | None:
    """The mean and its interval, which ends at `lowest` and at `highest`; None for fewer than two seeds that differ.

    >>> over_seeds([0.4, 0.6], 0, 1)
    Estimate(value=0.5, low=0, high=1, num_seeds=2, basis='seeds')
    """
    if len(values) < 2 or np.ptp(values) < 1e-12:
        return None
    mean = float(np.mean(values))
    reach = t_quantile(len(values) - 1) * float(np.std(values, ddof=1)) / math.sqrt(len(values))
    return Estimate(mean, max(lowest, mean - reach), min(highest, mean + reach), len(values), "seeds")
