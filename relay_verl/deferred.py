"""The policy of defer heads: the student's engine asks the teacher where the head's score is below a threshold."""

from __future__ import annotations

from dataclasses import dataclass

from relay_verl.deferral import MAX_THRESHOLD
from relay_verl.errors import UserError
from relay_verl.policy_base import Number, Policy
from relay_verl.protocol import Call

THRESHOLD = Number("TAU", "0.95", r"(?:[0-9]+(?:\.[0-9]+)?)?")
"""The score below which the teacher writes; without one it is that of the head's folder."""


@dataclass(frozen=True)
class Deferred(Policy):
    """Token-level routing, as in CITER and Co-LLM: `relay.defer.head` says by which head, `relay.defer.num_tokens` how
    much the teacher writes each time. A command is text; `max_calls` does not bind.

    Args:
        threshold: of the score, 0 never asks, above 1 always does; None takes the one of the head's folder.
    """

    allows_calls = False
    is_baseline = True
    number = THRESHOLD
    summary = "the student's defer head asks where its score is below TAU, by default the calibrated one"
    words = "deferred {number}"

    threshold: float | None = None

    @classmethod
    def make(cls, number: str, seed: int) -> Deferred:
        threshold = float(number) if number else None
        if threshold is not None and threshold >= MAX_THRESHOLD:
            raise UserError(
                f"policy: deferred_{number}: expected a threshold of at least 0 and below {MAX_THRESHOLD:g}; 0 never "
                "asks the teacher, above 1 always does"
            )
        return cls(threshold)

    def num_tokens(self, call: Call) -> int:
        return 0

    def defer_threshold(self, own: float) -> float:
        return own if self.threshold is None else self.threshold
