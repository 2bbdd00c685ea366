"""Which queries can the teacher solve? Its pass count, and what a threshold makes of it (paper 3.2.2). Pure.

Invariant: `is_solvable` never changes once it is known, whatever the samples that are still missing say; so sampling
may stop there, and one pass over a dataset serves every threshold at which all verdicts are known.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

COLUMN = "teacher_pass"
"""The dataset's column that holds a `PassCount`."""


@dataclass(frozen=True)
class PassCount:
    """How often the teacher solved one query."""

    num_samples: int
    """Responses that a full pass takes."""
    num_done: int
    """Responses sampled; fewer where sampling stopped early."""
    num_correct: int
    """Right ones among them."""

    def __post_init__(self) -> None:
        if not 0 <= self.num_correct <= self.num_done <= self.num_samples:
            raise ValueError(f"a pass count needs num_correct <= num_done <= num_samples, got {self}")

    @classmethod
    def of(cls, column: Mapping[str, int]) -> PassCount:
        """From a dataset's column."""
        return cls(column["num_samples"], column["num_done"], column["num_correct"])

    @property
    def pass_rate(self) -> float:
        """Share of right responses among those sampled; 0.0 before the first."""
        return self.num_correct / self.num_done if self.num_done else 0.0

    def is_solvable(self, min_pass_rate: float) -> bool | None:
        """Whether at least `min_pass_rate` of `num_samples` responses are right; None while that is open.

        >>> PassCount(num_samples=10, num_done=5, num_correct=5).is_solvable(0.5)
        True
        >>> PassCount(num_samples=10, num_done=6, num_correct=0).is_solvable(0.5)
        False
        >>> PassCount(num_samples=10, num_done=5, num_correct=0).is_solvable(0.5) is None
        True
        """
        needed = num_needed(self.num_samples, min_pass_rate)
        if self.num_correct >= needed:
            return True
        if self.num_correct + self.num_samples - self.num_done < needed:
            return False
        return None

    def next_wave(self, min_pass_rate: float | None) -> int:
        """How many samples to ask for next: as many as any outcome needs, or all that are left (None: no early stop).

        >>> PassCount(10, 0, 0).next_wave(0.5), PassCount(10, 5, 4).next_wave(0.5), PassCount(10, 6, 6).next_wave(0.5)
        (5, 1, 0)
        """
        left = self.num_samples - self.num_done
        if min_pass_rate is None:
            return left
        needed = num_needed(self.num_samples, min_pass_rate)
        missing = needed - self.num_correct
        spare = left - missing + 1  # this many wrong ones settle it too
        return max(0, min(missing, spare, left))


def num_needed(num_samples: int, min_pass_rate: float) -> int:
    """Right responses that make a query solvable.

    >>> num_needed(10, 0.5), num_needed(10, 0.3), num_needed(7, 0.5), num_needed(10, 0.0)
    (5, 3, 4, 0)
    """
    return math.ceil(round(min_pass_rate * num_samples, 9))


def solvable_rows(column: Iterable[Mapping[str, int] | None], min_pass_rate: float) -> list[int]:
    """Indices of the rows to train on, by the pass counts of a dataset; a row without one is kept.

    Raises:
        ValueError: a row is open at this threshold, or no row is left; the message is the end of a line that names the
            dataset.
    """
    kept, num_rows = [], 0
    for index, counts in enumerate(column):
        num_rows += 1
        verdict = True if counts is None else PassCount.of(counts).is_solvable(min_pass_rate)
        if verdict is None:
            raise ValueError(
                f"row {index} was filtered with --early-stop at another threshold and is open at {min_pass_rate:g}; "
                "filter again without it"
            )
        if verdict:
            kept.append(index)
    if not kept:
        raise ValueError(f"none of its {num_rows} queries has a pass rate of at least {min_pass_rate:g}")
    return kept
