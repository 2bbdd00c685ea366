"""What the teacher may still write: for one response, and for all clients in a minute. Pure.

Invariant: in any 60 s the teacher is granted at most `tokens_per_minute` tokens, whoever asks, and in one response at
most its `max_teacher_tokens`: tokens are reserved before the teacher is asked, and what it did not write is given back.
Where that is not known, as of a whole answer that no one waits for any more, nothing is.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any

from relay_verl.engines.base import Generation, TokenEngine, stream_of
from relay_verl.engines.deadlines import Pulse
from relay_verl.errors import DeclinedError
from relay_verl.policy_base import Interruption, Policy
from relay_verl.protocol import Call

MINUTE_S = 60.0


class Allowance:
    """A number of teacher tokens that is used up.

    Args:
        num_tokens: how many.
        period_s: seconds after which tokens that were written may be written again; None for never.
        clock: in seconds.
    """

    def __init__(self, num_tokens: int, period_s: float | None = None, clock: Callable[[], float] = time.monotonic):
        self.num_tokens = num_tokens
        self._period_s = period_s
        self._clock = clock
        self._grants: deque[list[float]] = deque()  # [time, tokens], the oldest first
        self._num_used = 0

    @property
    def num_left(self) -> int:
        """Tokens that may be written now."""
        if self._period_s is not None:
            oldest = self._clock() - self._period_s
            while self._grants and self._grants[0][0] <= oldest:
                self._num_used -= int(self._grants.popleft()[1])
        return self.num_tokens - self._num_used

    def reserve(self, num_tokens: int) -> list[float] | None:
        """Take up to that many, as a grant of [time, tokens] that `settle` is told of; None where none are left."""
        num_granted = min(num_tokens, self.num_left)
        if num_granted <= 0:
            return None
        grant = [self._clock(), num_granted]
        self._grants.append(grant)
        self._num_used += num_granted
        return grant

    def settle(self, grant: list[float], num_written: int) -> None:
        """Give back what of a grant was not written."""
        spare = int(grant[1]) - num_written
        # a grant does not count once its period has passed
        if spare > 0 and any(each is grant for each in self._grants):
            grant[1] -= spare
            self._num_used -= spare


class MeteredTeacher:
    """The teacher as one response may use it: it writes at most what every allowance still grants.

    Args:
        engine: the teacher.
        pulse: its signs of life.
        allowances: all of them hold.
    """

    def __init__(self, engine: TokenEngine, pulse: Pulse, allowances: Sequence[Allowance]):
        self.pulse = pulse
        self._engine = engine
        self._allowances = allowances
        self.is_refused = False
        """Whether it was asked when none was left."""

    @property
    def is_spent(self) -> bool:
        """Whether no token is left."""
        return any(allowance.num_left <= 0 for allowance in self._allowances)

    async def generate(
        self,
        prompt_ids: list[int],
        *,
        max_tokens: int,
        stop: Sequence[str] = (),
        sampling: Mapping[str, Any] = {},
        request_id: str | None = None,
    ) -> Generation:
        """See `TokenEngine.generate`.

        Raises:
            DeclinedError: none is left.
        """
        grants, num_tokens = self._reserve(max_tokens)
        num_written = 0
        try:
            generation = await self._engine.generate(
                prompt_ids, max_tokens=num_tokens, stop=stop, sampling=sampling, request_id=request_id
            )
            num_written = len(generation.token_ids)
            return generation
        except asyncio.CancelledError:
            num_written = num_tokens  # the engine may have written all of them by now
            raise
        finally:
            self._settle(grants, num_written)

    async def stream(
        self,
        prompt_ids: list[int],
        *,
        max_tokens: int,
        stop: Sequence[str] = (),
        sampling: Mapping[str, Any] = {},
        request_id: str | None = None,
    ) -> AsyncIterator[Generation]:
        """The same, piece by piece; in one piece where the engine does not stream."""
        open_stream = stream_of(self._engine)
        if open_stream is None:
            yield await self.generate(
                prompt_ids, max_tokens=max_tokens, stop=stop, sampling=sampling, request_id=request_id
            )
            return
        grants, num_tokens = self._reserve(max_tokens)
        num_written = 0
        pieces = open_stream(prompt_ids, max_tokens=num_tokens, stop=stop, sampling=sampling, request_id=request_id)
        try:
            async for piece in pieces:
                num_written += len(piece.token_ids)
                yield piece
        finally:
            self._settle(grants, num_written)
            await pieces.aclose()

    def _reserve(self, max_tokens: int) -> tuple[list[list[float]], int]:
        grants: list[list[float]] = []
        for allowance in self._allowances:
            grant = allowance.reserve(max_tokens)
            if grant is None:
                self._settle(grants, 0)
                self.is_refused = True
                raise DeclinedError("no teacher token is left of the budget")
            grants.append(grant)
            max_tokens = int(grant[1])
        return grants, max_tokens

    def _settle(self, grants: list[list[float]], num_written: int) -> None:
        # fewer grants than allowances: a later allowance refused
        for allowance, grant in zip(self._allowances, grants, strict=False):
            allowance.settle(grant, num_written)


class WithinAllowance(Policy):
    """A policy whose calls end when the teacher's tokens are spent: from then on a command is text.

    Args:
        policy: who calls and for how long.
        teacher: knows what is left.
    """

    def __init__(self, policy: Policy, teacher: MeteredTeacher):
        self._policy = policy
        self._teacher = teacher
        self._has_refused = False

    @property
    def has_refused(self) -> bool:
        """Whether a call was turned off because none was left."""
        return self._has_refused or self._teacher.is_refused

    @property
    def allows_calls(self) -> bool:  # type: ignore[override]
        """Whether commands are served at this moment."""
        return self._policy.allows_calls and not self._is_spent()

    def student_sampling(self) -> Mapping[str, Any]:
        return self._policy.student_sampling()

    def num_tokens(self, call: Call) -> int:
        return self._policy.num_tokens(call)

    def fixed_length(self) -> int | None:
        return self._policy.fixed_length()

    def next_interruption(self) -> Interruption | None:
        interruption = self._policy.next_interruption()
        return None if interruption is not None and self._is_spent() else interruption

    def defer_threshold(self, own: float) -> float | None:
        threshold = self._policy.defer_threshold(own)
        return None if threshold is not None and self._is_spent() else threshold

    def settle(self, planned: Interruption, written: Generation) -> Interruption | None:
        return self._policy.settle(planned, written)

    def _is_spent(self) -> bool:
        is_spent = self._teacher.is_spent
        self._has_refused |= is_spent
        return is_spent
