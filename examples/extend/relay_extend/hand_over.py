"""PyroDash's rule (arXiv 2607.20327): one hand-over to the end. The student writes a prefix, a scorer decides once, and
then one of the two models writes the rest.

What differs from PyroDash: there a trained student writes a control token anywhere; here a scorer, the mean
log-probability of the prefix, decides at a fixed place.
"""

from __future__ import annotations

from collections.abc import Mapping
from statistics import fmean
from typing import Any, ClassVar

from relay_verl.engines import Generation
from relay_verl.errors import EngineError
from relay_verl.policy_base import COUNT, Interruption, Policy


class HandOver(Policy):
    """`--policy hand_over_32`, or `relay_extend.hand_over:HandOver_32`: after a prefix of 32 tokens. A subclass may
    have another threshold.

    Args:
        num_tokens: of the prefix.
    """

    allows_calls = False
    is_stateless = False
    is_baseline = True
    number = COUNT
    words = "one hand-over after {number} tokens"
    least_sure: ClassVar[float] = -0.3
    """Mean log-probability of the prefix below which the teacher writes the rest."""

    def __init__(self, num_tokens: int):
        self._num_tokens = num_tokens
        self._is_decided = False

    @classmethod
    def make(cls, number: str, seed: int) -> HandOver:
        return cls(int(number))

    def student_sampling(self) -> Mapping[str, Any]:
        return {"logprobs": True}

    def next_interruption(self) -> Interruption | None:
        return None if self._is_decided else Interruption(self._num_tokens, num_tokens=None, is_tentative=True)

    def settle(self, planned: Interruption, written: Generation) -> Interruption | None:
        self._is_decided = True
        if written.logprobs is None:
            raise EngineError("the hand-over reads log-probabilities, and the student's engine gives none")
        return planned if fmean(written.logprobs) < self.least_sure else None
