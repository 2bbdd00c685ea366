"""A policy: the student decides, but a call asks for at most N tokens."""

from __future__ import annotations

from dataclasses import dataclass

from relay_verl.policy_base import COUNT, Policy
from relay_verl.protocol import Call


@dataclass(frozen=True)
class Capped(Policy):
    """`relay.policy=capped_30`, or `relay_extend.policy:Capped_30`."""

    is_trainable = True
    number = COUNT
    words = "at most {number} tokens a call"

    limit: int
    """Most teacher tokens of a call."""

    @classmethod
    def make(cls, number: str, seed: int) -> Capped:
        return cls(int(number))

    def num_tokens(self, call: Call) -> int:
        return min(call.num_tokens, self.limit)
