"""The answers of an engine as a request that still waits looks at them: which were sent after it and came before. Pure.

Invariant: to note an answer costs the same however many requests wait; only a look adds up, over blocks of answers that
were sent one after the other.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

BLOCK = 256
"""Requests, in the order in which they were sent, whose answers are added up together."""


class Later(NamedTuple):
    """Answers to requests that were sent after a moment."""

    first_at: float
    """When the first of them came; infinity if none did."""
    num_tokens: int
    """Their tokens ..."""
    seconds: float
    """... and the seconds that each of these requests took, added up."""


@dataclass(eq=False)
class _Block:
    """Answers to requests that were sent one after the other."""

    answers: list[tuple[float, float, int]] = field(default_factory=list)
    """When each request was sent, when its answer came, and the answer's tokens."""
    sent_from: float = math.inf
    sent_to: float = -math.inf
    first_at: float = math.inf
    num_tokens: int = 0
    seconds: float = 0.0


class AnswerLog:
    """What an engine has answered, as far back as a request that waits may ask."""

    def __init__(self) -> None:
        self._blocks: dict[int, _Block] = {}
        self._num_kept = 2
        """Blocks up to which none is looked at to be forgotten."""

    def note(self, number: int, sent_at: float, answered_at: float, num_tokens: int) -> None:
        """Note an answer.

        Args:
            number: of its request, in the order in which they were sent.
            sent_at, answered_at: by one clock; requests of higher numbers were not sent earlier.
            num_tokens: of the answer.
        """
        block = self._blocks.get(number // BLOCK)
        if block is None:
            block = self._blocks[number // BLOCK] = _Block()
        block.answers.append((sent_at, answered_at, num_tokens))
        block.sent_from = min(block.sent_from, sent_at)
        block.sent_to = max(block.sent_to, sent_at)
        block.first_at = min(block.first_at, answered_at)
        block.num_tokens += num_tokens
        block.seconds += answered_at - sent_at

    def after(self, moment: float) -> Later:
        """The answers to all requests that were sent after `moment`."""
        first_at, num_tokens, seconds = math.inf, 0, 0.0
        for block in self._blocks.values():
            if block.sent_from > moment:
                first_at = min(first_at, block.first_at)
                num_tokens += block.num_tokens
                seconds += block.seconds
            elif block.sent_to > moment:
                for sent_at, answered_at, num in block.answers:
                    if sent_at > moment:
                        first_at = min(first_at, answered_at)
                        num_tokens += num
                        seconds += answered_at - sent_at
        return Later(first_at, num_tokens, seconds)

    def forget(self, moments: Iterable[float]) -> None:
        """Drop what no request asks for that waits since one of `moments`, once there is enough of it."""
        if len(self._blocks) <= self._num_kept:
            return
        oldest = min(moments, default=math.inf)
        self._blocks = {number: block for number, block in self._blocks.items() if block.sent_to > oldest}
        self._num_kept = 2 * len(self._blocks) + 2
