"""How the student's engine says by itself that the teacher writes next: a defer head (`relay_verl.defer`) scores each
position, and below a threshold the engine writes a reserved id, which ends its request. Pure.

Invariant: no response has the reserved id in it. The decoder drops it and asks the teacher.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

THRESHOLD_ARG = "relay_defer_threshold"
"""Sampling parameter of a request, in vLLM's `extra_args`: the teacher writes where the score is below it. A request
without it asks no head."""
MAX_THRESHOLD = 2.0
"""A threshold is below this. A score is at most 1, so any threshold above 1 asks the teacher for every token."""


@dataclass(frozen=True)
class Deferral:
    """What the decoder knows of the head in the student's engine."""

    token_id: int
    """The reserved id."""
    threshold: float
    """The head's own, where the policy names none."""
    num_tokens: int = 1
    """Teacher tokens that are asked for each time; 1 in CITER and in Co-LLM."""

    def sampling(self, threshold: float, sampling: Mapping[str, Any]) -> dict[str, Any]:
        """Sampling parameters of a student that defers below `threshold`, under vLLM's names.

        >>> Deferral(356, 0.95).sampling(0.9, {"temperature": 0.0, "stop_token_ids": [7]})
        {'temperature': 0.0, 'stop_token_ids': [7, 356], 'extra_args': {'relay_defer_threshold': 0.9}}
        """
        return {
            **sampling,
            "stop_token_ids": [*(sampling.get("stop_token_ids") or ()), self.token_id],
            "extra_args": {**(sampling.get("extra_args") or {}), THRESHOLD_ARG: threshold},
        }
