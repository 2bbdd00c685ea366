"""Spearman's rank correlation of two numbers of the same questions, with its 95% interval.

Over questions the interval is a bootstrap; over several training seeds that differ it is Student's t over their
correlations, as everywhere in the report (`relay_verl.report.statistics`).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from relay_verl.report.alike import LEVEL
from relay_verl.report.seed_interval import over_seeds
from relay_verl.report.statistics import NUM_RESAMPLES, Estimate

MIN_QUESTIONS = 3
"""Fewest questions that a correlation says anything about."""
_BLOCK = 2_000_000
"""Numbers that are ranked at a time."""

Pairs = np.ndarray
"""Both numbers of each question, [num_questions, 2]."""


def rank_correlation(seeds: Sequence[Pairs], *, seed: int = 0) -> Estimate | None:
    """The mean over training seeds with its interval; None where there are too few questions, or one of the two numbers
    is the same for all of them."""
    values = [correlate_ranks(pairs[None])[0] for pairs in seeds if len(pairs) >= MIN_QUESTIONS]
    if not values or len(values) < len(seeds) or not np.isfinite(values).all():
        return None
    if (estimate := over_seeds(values, -1.0, 1.0)) is not None:
        return estimate
    # Seeds of one value: only the choice of questions is left to vary.
    resampled = _resample(seeds[0], np.random.default_rng(seed))
    low, high = np.nanquantile(resampled, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Estimate(float(values[0]), float(low), float(high), len(values), "questions")


def correlate_ranks(pairs: np.ndarray) -> np.ndarray:
    """Spearman's correlation of each sample, ties at their mean rank: [num_samples, num_questions, 2] -> [num_samples];
    NaN where one of the two numbers is the same for all questions."""
    from scipy.stats import rankdata  # takes most of a second to import

    ranks = rankdata(pairs, axis=1)
    ranks -= ranks.mean(axis=1, keepdims=True)
    over = (ranks[..., 0] * ranks[..., 1]).sum(axis=1)
    under = np.sqrt((ranks**2).sum(axis=1).prod(axis=-1))
    return np.divide(over, under, out=np.full_like(over, np.nan), where=under > 1e-9)


def _resample(pairs: Pairs, rng: np.random.Generator) -> np.ndarray:
    """The correlation of questions drawn with replacement: [NUM_RESAMPLES]."""
    step = max(1, _BLOCK // pairs.size)
    drawn = []
    for start in range(0, NUM_RESAMPLES, step):
        size = (min(step, NUM_RESAMPLES - start), len(pairs))
        drawn.append(correlate_ranks(pairs[rng.integers(len(pairs), size=size)]))
    return np.concatenate(drawn)
