"""Asking an engine that several trajectories share and that may be down: retries and a circuit breaker.

`GuardedEngine` tries again, and fails at once while the engine looks dead; the deadline at the boundary
(`relay_verl.engines.boundary`) bounds all its tries together. A stream is tried again until its first piece has come.

An error that would come again is not tried again: a refusal (`PermanentError`), and what a client of its own has
retried already. A refusal is an answer, so it says nothing against the engine's health either.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import aclosing, contextmanager
from copy import copy
from functools import cached_property
from typing import Any

from pybreaker import CircuitBreaker, CircuitBreakerError
from tenacity import AsyncRetrying, retry_if_exception, stop_after_attempt, wait_exponential_jitter

from relay_verl.engines.base import Generation, TokenEngine, open_engine, reads_chat, stream_of
from relay_verl.engines.deadlines import CALLER_LEFT, pulse_of
from relay_verl.engines.failures import RetriedError
from relay_verl.engines.load import EngineLoad
from relay_verl.errors import EngineError, PermanentError

NO_BREAKER = sys.maxsize
"""A threshold for long jobs: they stop by themselves when an engine is dead (`relay_verl.jobs.job.Job.max_failures`);
a moment's trouble must not fail queries."""

MAX_WAIT_S = 10.0
"""Longest wait between two tries."""


class CircuitOpenError(EngineError):
    """The engine was not asked: the circuit is open."""


_FINAL = (PermanentError, RetriedError, CircuitOpenError)


def retrying(num_retries: int, first_wait_s: float) -> AsyncRetrying:
    """tenacity's loop of tries, which raises the last error.

    Args:
        num_retries: further tries after a failed one.
        first_wait_s: seconds before the first retry; doubles each time, with jitter.
    """
    return AsyncRetrying(
        stop=stop_after_attempt(1 + num_retries),
        wait=wait_exponential_jitter(initial=first_wait_s, max=MAX_WAIT_S, jitter=first_wait_s),
        # not on a cancellation: it is the caller's deadline
        retry=retry_if_exception(lambda error: isinstance(error, Exception) and not isinstance(error, _FINAL)),
        reraise=True,
    )


def _is_no_failure(error: BaseException) -> bool:
    """Whether this says nothing against the engine: a refusal, or a caller who went away."""
    has_left = isinstance(error, asyncio.CancelledError) and error.args == (CALLER_LEFT,)
    return has_left or isinstance(error, PermanentError)


class Breaker:
    """pybreaker's circuit breaker, with one trial at a time while the circuit is not closed.

    Can be sent to a Ray worker, where it starts closed: each process counts for itself.

    Args:
        threshold: failures in a row that open the circuit.
        reset_s: seconds until one call is let through to try.
    """

    def __init__(self, threshold: int, reset_s: float):
        self._threshold = threshold
        self._reset_s = reset_s
        self._is_trying = False
        self._last_failure = ""

    def __reduce__(self) -> Any:
        return Breaker, (self._threshold, self._reset_s)

    @cached_property
    def _breaker(self) -> CircuitBreaker:
        return CircuitBreaker(
            fail_max=self._threshold,
            reset_timeout=self._reset_s,
            exclude=[_is_no_failure],
            throw_new_error_on_trip=False,
        )

    @contextmanager
    def calling(self) -> Iterator[None]:
        """The block is a call that may fail, which any exception is.

        Raises:
            CircuitOpenError: the circuit is open, or another call is trying; the block is not entered.
        """
        # pybreaker lets every call through once it is half open, since its own calls are synchronous: here dozens of
        # trajectories may be waiting, and each would send a request to an engine that is down.
        is_trial = self._breaker.current_state != "closed"
        if is_trial and self._is_trying:
            raise CircuitOpenError(f"{self._open}; another call is trying")
        self._is_trying = self._is_trying or is_trial
        try:
            with self._breaker.calling():
                yield
        except CircuitBreakerError as error:
            raise CircuitOpenError(self._open) from error
        except Exception as error:
            if not isinstance(error, PermanentError):
                self._last_failure = str(error) or type(error).__name__
            raise
        finally:
            if is_trial:
                self._is_trying = False

    @property
    def _open(self) -> str:
        last = f", the last one: {self._last_failure}" if self._last_failure else ""
        return f"circuit open after {self._threshold} failures in a row{last}"


class GuardedEngine:
    """Tries again when `engine` fails, and fails at once while it looks dead. Can be sent to a Ray worker; each worker
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

    @property
    def open(self) -> Callable[[Iterable[Mapping[str, Any]], int], GuardedEngine] | None:
        """See `open_engine`; None if the engine reads ids."""
        return self._open_for if reads_chat(self._engine) else None

    def _open_for(self, messages: Iterable[Mapping[str, Any]], num_prompt_tokens: int) -> GuardedEngine:
        """The same for one response, with the breaker of all."""
        opened = copy(self)
        opened._engine = open_engine(self._engine, messages, num_prompt_tokens)
        return opened

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
            # the breaker counts each try, so that retries open it sooner; an open circuit is not retried
            with attempt, self._breaker.calling():
                return await self._engine.generate(
                    prompt_ids, max_tokens=max_tokens, stop=stop, sampling=sampling, request_id=request_id
                )
        raise AssertionError("unreachable: the last attempt returns or raises")

    @property
    def stream(self) -> Callable[..., AsyncGenerator[Generation, None]] | None:
        """See `StreamingEngine.stream`; None if the engine cannot stream."""
        return None if stream_of(self._engine) is None else self._stream

    async def _stream(self, prompt_ids: list[int], **options: Any) -> AsyncGenerator[Generation, None]:
        open_stream = stream_of(self._engine)
        assert open_stream is not None
        async for attempt in retrying(self._num_retries, self._first_wait_s):
            # Only up to the first piece: what a reader has seen cannot be written once more.
            with attempt:
                pieces: Any = open_stream(prompt_ids, **options)
                with self._breaker.calling():
                    first = await anext(pieces, None)
        async with aclosing(pieces):
            if first is not None:
                yield first
            async for piece in pieces:
                yield piece
