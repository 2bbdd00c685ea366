"""Retries with backoff and a circuit breaker around an engine that may be down.

An error that would come again is not tried again: a refusal (`PermanentError`), which says nothing about the engine's
health either, and what a client of its own has retried already.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from relay_verl.engines.base import Generation, TokenEngine
from relay_verl.engines.breaker import Breaker, CircuitOpenError
from relay_verl.engines.deadlines import pulse_of
from relay_verl.engines.failures import RetriedError
from relay_verl.engines.load import EngineLoad
from relay_verl.errors import PermanentError

NO_BREAKER = sys.maxsize
"""A threshold for long jobs: they stop by themselves when an engine is dead (`relay_verl.jobs.job.Job.max_failures`);
a moment's trouble must not fail queries."""


MAX_WAIT_S = 10.0
"""Longest wait between two tries."""

_FINAL = (PermanentError, RetriedError, CircuitOpenError)


def retrying(num_retries: int, first_wait_s: float) -> Any:
    """tenacity's loop of tries, which raises the last error.

    Args:
        num_retries: further tries after a failed one.
        first_wait_s: seconds before the first retry; doubles each time, with jitter.
    """
    from tenacity import AsyncRetrying, retry_if_exception, stop_after_attempt, wait_exponential_jitter

    return AsyncRetrying(
        stop=stop_after_attempt(1 + num_retries),
        wait=wait_exponential_jitter(initial=first_wait_s, max=MAX_WAIT_S, jitter=first_wait_s),
        # not on a cancellation: it is the caller's deadline
        retry=retry_if_exception(lambda error: isinstance(error, Exception) and not isinstance(error, _FINAL)),
        reraise=True,
    )


class GuardedEngine:
    """Tries again when `engine` fails, and fails at once while it looks dead.

    The caller's deadline (`relay_verl.engines.ask`) bounds all tries together. Can be sent to a Ray worker; each worker
    counts for itself.

    Args:
        engine: whom to ask.
        num_retries: further tries after a failed one.
        breaker_threshold: failures in a row, over all trajectories, that open the circuit.
        breaker_reset_s: seconds until one call is let through to try.
        first_wait_s: seconds before the first retry; doubles each time, with jitter.
    """

    def __init__(
        self,
        engine: TokenEngine,
        *,
        num_retries: int = 2,
        breaker_threshold: int = 8,
        breaker_reset_s: float = 30.0,
        first_wait_s: float = 0.5,
    ):
        self._engine = engine
        self._num_retries = num_retries
        self._breaker = Breaker(breaker_threshold, breaker_reset_s)
        self._first_wait_s = first_wait_s
        self.pulse = pulse_of(engine)

    @property
    def inner(self) -> TokenEngine:
        """The engine that is asked, without retries and breaker."""
        return self._engine

    async def load(self) -> EngineLoad | None:
        """The engine's, if it tells."""
        load = getattr(self._engine, "load", None)
        return None if load is None else await load()

    async def generate(
        self,
        prompt_ids: list[int],
        *,
        max_tokens: int,
        stop: Sequence[str] = (),
        sampling: Mapping[str, Any] = {},
        request_id: str | None = None,
    ) -> Generation:
        """See `TokenEngine.generate`."""
        async for attempt in retrying(self._num_retries, self._first_wait_s):
            with attempt, self._breaker.calling():
                return await self._engine.generate(
                    prompt_ids, max_tokens=max_tokens, stop=stop, sampling=sampling, request_id=request_id
                )
        raise AssertionError("unreachable: the last attempt returns or raises")
