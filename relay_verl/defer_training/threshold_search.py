"""The search for the threshold at which the teacher writes a given share of all tokens. Pure.

It bisects levels, the share of the head's held-out scores below a threshold, and not thresholds, which may lie close
together: a level near the target is where it starts, and the routed system's own ratio decides. A threshold is a number
of DECIMALS digits, as a policy's name writes it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from relay_verl.defer_training.score_levels import threshold_at

DECIMALS = 7
MOST_FACTOR = 16.0
"""How far a level moves at most while the target is on one side of all that was measured."""


@dataclass(frozen=True)
class Measured:
    """One threshold that was tried."""

    threshold: float
    """The teacher writes where the score is below it."""
    ratio: float
    """Teacher tokens over all tokens of the routed system."""
    level: float
    """Share of the head's held-out scores below it."""


class ThresholdSearch:
    """Asks for one ratio after another until one is near enough.

    Args:
        target: the ratio, between 0 and 1.
        known: quantiles of the head's held-out scores, see `relay_verl.defer_training.score_levels`.
        tolerance: how far a ratio may be from the target, as a share of the target.
        most: measurements.
    """

    def __init__(self, target: float, known: Sequence[float], *, tolerance: float = 0.1, most: int = 10):
        self.target = target
        self.measured: list[Measured] = []
        self._known = list(known)
        self._tolerance = tolerance
        self._most = most
        # without a teacher's token, and with no other: known without a measurement
        self._low, self._high = Measured(0.0, 0.0, 0.0), Measured(threshold_at(1.0, known), 1.0, 1.0)
        self._level = 0.0

    @property
    def nearest(self) -> Measured:
        """The measurement that is nearest to the target, one at least."""
        return min(self.measured, key=lambda each: abs(each.ratio - self.target))

    @property
    def is_reached(self) -> bool:
        """Whether it is near enough."""
        return bool(self.measured) and abs(self.nearest.ratio - self.target) <= self._tolerance * self.target

    def next_threshold(self) -> float | None:
        """The threshold to measure next; None where the search ends: reached, out of measurements, or between two
        thresholds that are neighbours."""
        if self.is_reached or len(self.measured) >= self._most:
            return None
        low, high = self._low.threshold, self._high.threshold
        self._level = self._propose()
        threshold = round(threshold_at(self._level, self._known), DECIMALS)
        if not low < threshold < high:  # many scores are one number, or it is below or above all of them
            self._level = (self._low.level + self._high.level) / 2
            threshold = round((low + high) / 2, DECIMALS)
        return threshold if low < threshold < high else None

    def add(self, threshold: float, ratio: float) -> None:
        """The routed system has `ratio` at the threshold that `next_threshold` gave last."""
        measured = Measured(threshold, ratio, self._level)
        self.measured.append(measured)
        if ratio <= self.target:
            self._low = measured
        else:
            self._high = measured

    def _propose(self) -> float:
        low, high, target = self._low, self._high, self.target
        if not self.measured:
            return target
        if low.level == 0.0:  # the ratio is about proportional to the level where both are small
            return min(max(high.level * target / high.ratio, high.level / MOST_FACTOR), 0.9 * high.level)
        if high.level == 1.0:
            scaled = low.level * (target / low.ratio if low.ratio else MOST_FACTOR)
            return min(max(scaled, 1.1 * low.level), MOST_FACTOR * low.level, (low.level + 1.0) / 2)
        width = high.level - low.level
        share = (target - low.ratio) / (high.ratio - low.ratio) if high.ratio > low.ratio else 0.5
        return low.level + width * min(max(share, 0.1), 0.9)


def policy_at(threshold: float) -> str:
    """The policy of a threshold, without an exponent.

    >>> policy_at(0.95), policy_at(0.00001), policy_at(1.0)
    ('deferred_0.95', 'deferred_0.00001', 'deferred_1')
    """
    return f"deferred_{threshold:.{DECIMALS}f}".rstrip("0").rstrip(".")
