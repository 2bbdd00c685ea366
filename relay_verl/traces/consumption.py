"""What the responses of a run took: tokens, calls, what the teacher read, seconds. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from relay_verl.traces.records import ResponseRecord
from relay_verl.types import CallOutcome


@dataclass(frozen=True)
class Cost:
    """What some responses took. Tokens, seconds and calls of all of them together unless said otherwise."""

    num_responses: int
    num_tokens: int
    """Tokens of the responses, both writers together."""
    num_calls: int
    """Served calls."""
    num_requested: int
    """Tokens that the served calls asked for."""
    num_delivered: int
    """Tokens that the teacher wrote."""
    num_context: int
    """Tokens that the teacher was given to read."""
    num_cached: int | None
    """Those of them in its prefix cache; None if some engine did not say."""
    wall_s: float
    """Seconds in which some response was under way; a pause between two parts of a run does not count."""
    p50_s: float
    """Median latency of a response."""
    p95_s: float
    """95th percentile of it."""

    @property
    def num_prefilled(self) -> int | None:
        """Tokens that the teacher had to read anew; None if it did not say."""
        return None if self.num_cached is None else self.num_context - self.num_cached

    @property
    def tokens_per_s(self) -> float:
        """Response tokens a second of wall time; 0.0 if no time passed."""
        return self.num_tokens / self.wall_s if self.wall_s else 0.0


def cost(records: Sequence[ResponseRecord]) -> Cost:
    """What these responses of one run took.

    Raises:
        ValueError: no records.
    """
    if not records:
        raise ValueError("no records, no cost")
    served = [call for record in records for call in record.calls if call["outcome"] == CallOutcome.SERVED]
    cached = [call["num_cached"] for call in served]
    known = [num for num in cached if num is not None]
    p50, p95 = np.quantile([record.latency_s for record in records], [0.5, 0.95])
    return Cost(
        num_responses=len(records),
        num_tokens=sum(record.num_tokens for record in records),
        num_calls=sum(record.num_calls for record in records),
        num_requested=sum(record.num_requested_tokens for record in records),
        num_delivered=sum(record.num_teacher_tokens for record in records),
        num_context=sum(call["num_context"] for call in served),
        num_cached=sum(known) if len(known) == len(cached) else None,
        wall_s=union_length((record.started_at, record.started_at + record.latency_s) for record in records),
        p50_s=float(p50),
        p95_s=float(p95),
    )


def union_length(intervals: Iterable[tuple[float, float]]) -> float:
    """Length that the intervals cover together.

    >>> union_length([(0, 2), (1, 3), (10, 11)])
    4.0
    """
    length, end = 0.0, -math.inf
    for start, stop in sorted(intervals):
        length += max(0.0, stop - max(start, end))
        end = max(end, stop)
    return length
