"""R2R's rule (arXiv 2505.21600): the student proposes each token, a classifier looks at it, and the teacher writes the
token itself where the two would probably differ.

What differs from R2R: its classifier is a network, trained on tokens at which the two models part, over the student's
hidden state, its top 100 logits and the token. This one has three numbers set by hand, over what engines give: the
token's log-probability and the entropy of the likeliest tokens, where the engine has them. A proposed end is not
looked at: the response ends.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from relay_verl.engines import Generation
from relay_verl.errors import EngineError
from relay_verl.policy_base import SHARE, Interruption, Policy

NUM_TOP = 20
"""Likeliest tokens that the entropy is of."""
BIAS, SURPRISE, ENTROPY = -3.0, 2.0, 1.0
"""The classifier: weights of 1, of minus the log-probability, and of the entropy."""


@dataclass(frozen=True)
class R2R(Policy):
    """`--policy r2r_0.5`, or `relay_extend.r2r:R2R_0.5`: from this probability of a different token on, the teacher
    writes it."""

    allows_calls = False
    is_baseline = True
    number = SHARE
    words = "R2R's rule at {number}"

    threshold: float
    """Least probability of a different token."""

    @classmethod
    def make(cls, number: str, seed: int) -> R2R:
        return cls(float(number))

    def student_sampling(self) -> Mapping[str, Any]:
        return {"logprobs": NUM_TOP}

    def next_interruption(self) -> Interruption:
        return Interruption(num_student_tokens=1, num_tokens=1, is_tentative=True)

    def settle(self, planned: Interruption, written: Generation) -> Interruption | None:
        if written.logprobs is None:
            raise EngineError("R2R's rule reads log-probabilities, and the student's engine gives none")
        top = written.top_logprobs[0] if written.top_logprobs else []
        entropy = -sum(math.exp(logprob) * logprob for logprob in top)
        score = BIAS - SURPRISE * written.logprobs[0] + ENTROPY * entropy
        differs = 1 / (1 + math.exp(-score)) >= self.threshold
        return Interruption(num_student_tokens=0, num_tokens=1) if differs else None
