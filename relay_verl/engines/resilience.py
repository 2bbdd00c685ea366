"""Asking an engine that may be slow, down or wrong: a deadline that holds, an answer that is one, retries, a breaker.

Two layers, each of which guards once. `ask_within` is the boundary, where a caller asks any engine for tokens: behind
it an answer is a well-formed Generation and a failure is an EngineError, in time. `GuardedEngine` stands in front of an
engine that several trajectories share: it tries again, and fails at once while the engine looks dead; the deadline at
the boundary bounds all its tries together.

An error that would come again is not tried again: a refusal (`PermanentError`), and what a client of its own has
retried already. A refusal is an answer, so it says nothing against the engine's health either.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import replace
from functools import cached_property
from typing import Any

from pybreaker import CircuitBreaker, CircuitBreakerError
from tenacity import AsyncRetrying, retry_if_exception, stop_after_attempt, wait_exponential_jitter

from relay_verl.engines.base import Billed, Generation, TokenEngine, open_engine
from relay_verl.engines.deadlines import DeadlineError, Pulse, pulse_of
from relay_verl.engines.failures import RetriedError
from relay_verl.engines.load import EngineLoad
from relay_verl.errors import EngineError, PermanentError

MAX_CAUSE_CHARS = 400
"""Longest text of another library's error that a message repeats."""

NO_BREAKER = sys.maxsize
"""A threshold for long jobs: they stop by themselves when an engine is dead (`relay_verl.jobs.job.Job.max_failures`);
a moment's trouble must not fail queries."""

MAX_WAIT_S = 10.0
"""Longest wait between two tries."""


class CircuitOpenError(EngineError):
    """The engine was not asked: the circuit is open."""


_FINAL = (PermanentError, RetriedError, CircuitOpenError)


# ---- the boundary ----


async def ask_within(
    timeout_s: float,
    ask: Callable[[], Awaitable[Generation]],
    *,
    pulse: Pulse | None = None,
    max_tokens: int = 1,
    writer: str = "engine",
    vocab_size: int | None = None,
) -> Generation:
    """Call an engine with a hard deadline, which holds even if the engine ignores its cancellation, and validate its
    answer.

    Args:
        timeout_s: seconds of silence after which it fails; `relay_verl.engines.deadlines` has the whole rule.
        ask: the request.
        pulse: the engine's, from `relay_verl.engines.deadlines.pulse_of`; None if nothing else is asked of it.
        max_tokens: most tokens of the answer.
        writer: what a message calls the engine.
        vocab_size: the answer's ids are below this; None does not check.

    Raises:
        EngineError: it failed, was late, or its answer is not a Generation of the vocabulary.
    """

    async def call() -> Generation:
        try:
            return _check(await ask())
        except asyncio.CancelledError:
            # The engine may cancel by itself, which must not end the caller's task. Where the caller is cancelled,
            # `Pulse.wait` has left this task alone, and the error reaches no reader.
            raise EngineError("the engine cancelled the request") from None

    pulse = pulse or Pulse()
    try:
        generation = await pulse.wait(
            timeout_s, call(), num_tokens=max_tokens, measure=lambda answer: len(answer.token_ids)
        )
    except EngineError:
        raise
    except Exception as error:
        # engines are other projects' code and raise what they like; a deadline's message is complete as it is
        raise EngineError(str(error) if isinstance(error, DeadlineError) else describe(error)) from error
    pulse.num_tokens += len(generation.token_ids)
    # After the pulse has seen the answer: an engine that writes ids of another vocabulary is wrong, but alive. An id
    # without text, a padding row of the embedding, is an id like others.
    largest = max(generation.token_ids, default=0)
    if vocab_size is not None and largest >= vocab_size:
        raise EngineError(f"the {writer} answered {largest}, but the student's vocabulary has {vocab_size} token ids")
    return generation


def _check(generation: Generation) -> Generation:
    """Validate a Generation from an engine we do not control. It is the one place that does: behind it ids are ints."""
    if not isinstance(generation, Generation):
        raise EngineError(f"the engine returned a {type(generation).__name__}, not a Generation")
    ids, logprobs = generation.token_ids, generation.logprobs
    if not isinstance(ids, (list, tuple)):
        raise EngineError(f"the engine returned {type(ids).__name__} as token ids, not a list")
    for token_id in ids:
        if isinstance(token_id, bool) or not isinstance(token_id, int) or token_id < 0:
            raise EngineError(f"the engine returned {token_id!r}, which is not a token id")
    if logprobs is not None and (not isinstance(logprobs, (list, tuple)) or len(logprobs) != len(ids)):
        raise EngineError(f"the engine returned {len(ids)} token ids and log-probabilities {logprobs!r:.80}")
    # what only metrics read is not worth the answer
    cached = generation.num_cached if isinstance(generation.num_cached, int) else None
    billed = generation.billed if isinstance(generation.billed, Billed) else None
    return replace(
        generation,
        token_ids=list(ids),
        logprobs=None if logprobs is None else list(logprobs),
        num_cached=cached,
        billed=billed,
    )


def describe(error: BaseException) -> str:
    """Another library's error without line breaks. Ray puts the worker's traceback into the text of its own errors; the
    error that the worker raised, which it keeps, says the cause alone."""
    cause = getattr(error, "cause", None)
    cause = cause if isinstance(cause, BaseException) else error
    text = " ".join(str(cause).split())
    return f"{type(cause).__name__}: {text:.{MAX_CAUSE_CHARS}}" if text else type(cause).__name__


# ---- a shared engine that may be down ----


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
            exclude=[PermanentError],
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

    def open(self, messages: Iterable[Mapping[str, Any]], num_prompt_tokens: int) -> GuardedEngine:
        """The same for one response of an engine that reads a chat (`open_engine`), with the breaker of all."""
        engine = open_engine(self._engine, messages, num_prompt_tokens)
        if engine is self._engine:
            return self
        opened = copy(self)
        opened._engine = engine
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
