"""A number of questions, such as their grade, in few levels: each value where they are few, else ranges of equal size.

Pure. Invariant: every value belongs to exactly one level, and each level has a value.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

MAX_VALUES = 12
"""Most different values that are a level each."""
NUM_RANGES = 8
"""Ranges that more values are put into, of about as many questions each."""


@dataclass(frozen=True)
class Level:
    """The values from `low` to `high`, both included."""

    low: float
    high: float

    @property
    def label(self) -> str:
        """What tables call it.

        >>> Level(3, 3).label, Level(4, 7.5).label
        ('3', '4 to 7.5')
        """
        return f"{self.low:g}" if self.low == self.high else f"{self.low:g} to {self.high:g}"

    def has(self, value: float | None) -> bool:
        """Whether a value belongs to it; what is not known belongs to none."""
        return value is not None and self.low <= value <= self.high


def levels_of(values: Iterable[float]) -> tuple[Level, ...]:
    """The levels of these values, from low to high.

    >>> [level.label for level in levels_of([3, 1, 1, 6])]
    ['1', '3', '6']
    """
    ordered = np.sort(np.asarray(list(values), dtype=float))
    distinct = np.unique(ordered)
    if len(distinct) <= MAX_VALUES:
        return tuple(Level(float(value), float(value)) for value in distinct)
    starts = np.unique(np.quantile(ordered, np.arange(NUM_RANGES) / NUM_RANGES, method="higher"))
    parts = np.split(distinct, np.searchsorted(distinct, starts[1:]))
    return tuple(Level(float(part[0]), float(part[-1])) for part in parts if len(part))
