"""Calls at random places, so that a model that was never trained to call can be measured while it relays.

Start Python with this folder on its path and name the policy as `scattered:Scattered_0.1`: the teacher writes a tenth
of the tokens.
"""

from __future__ import annotations

import numpy as np

from relay_verl.policy_base import SHARE, Interruption, Policy

LENGTH = 32
"""Teacher tokens of a call."""


class Scattered(Policy):
    """The engine listens for commands as for a trained student; the calls come by themselves.

    Args:
        share: of the tokens that the teacher writes, below 1.
        seed: of the places.
    """

    is_trainable = True
    is_stateless = False
    number = SHARE
    words = "calls at random places ({percent}% of tokens)"

    @classmethod
    def make(cls, number: str, seed: int) -> Scattered:
        return cls(float(number), seed)

    def __init__(self, share: float, seed: int = 0):
        # a call after each student token with this probability makes the share
        self.rate = share / (LENGTH * (1 - share))
        self._rng = np.random.default_rng(seed)

    def next_interruption(self) -> Interruption | None:
        if self.rate == 0:
            return None
        return Interruption(int(self._rng.geometric(min(1.0, self.rate))) - 1, LENGTH)
