"""Asking an engine that is not ours: a deadline that holds and follows the load, and an answer that is one.

Invariant: whatever an engine does, `ask_within` returns a well-formed Generation or raises EngineError in time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from relay_verl.engines.base import Generation
from relay_verl.engines.deadlines import DeadlineError, Pulse
from relay_verl.errors import EngineError

MAX_CAUSE_CHARS = 400
"""Longest text of another library's error that a message repeats."""


async def ask_within(
    timeout_s: float, ask: Callable[[], Awaitable[Generation]], *, pulse: Pulse | None = None, max_tokens: int = 1
) -> Generation:
    """Ask an engine, with a deadline that holds even if it does not hear its cancellation; whatever goes wrong out
    there is an EngineError.

    Args:
        timeout_s: seconds of silence after which it fails; `relay_verl.engines.deadlines` has the whole rule.
        ask: the request.
        pulse: the engine's, from `relay_verl.engines.deadlines.pulse_of`; None if nothing else is asked of it.
        max_tokens: most tokens of the answer.
    """

    async def call() -> Generation:
        try:
            return _check(await ask())
        except asyncio.CancelledError:
            # by the engine, or by us: then this error reaches no reader
            raise EngineError("the engine cancelled the request") from None

    pulse = pulse or Pulse()
    try:
        generation = await pulse.wait(timeout_s, call(), num_tokens=max_tokens, measure=_num_tokens)
    except DeadlineError as error:
        raise EngineError(str(error)) from None
    except EngineError:
        raise
    except Exception as error:
        raise EngineError(describe(error)) from error
    pulse.num_tokens += len(generation.token_ids)
    return generation


def describe(error: BaseException) -> str:
    """Another library's error on one line. Ray puts the worker's traceback into the text of its own errors; the error
    that the worker raised, which it keeps, says the cause alone."""
    cause = getattr(error, "cause", None)
    cause = cause if isinstance(cause, BaseException) else error
    text = " ".join(str(cause).split())
    return f"{type(cause).__name__}: {text:.{MAX_CAUSE_CHARS}}" if text else type(cause).__name__


def _num_tokens(generation: Generation) -> int:
    return len(generation.token_ids)


def _check(generation: Generation) -> Generation:
    """`generation` if it is one in fact: engines are not ours."""
    if not isinstance(generation, Generation):
        raise EngineError(f"the engine returned a {type(generation).__name__}, not a Generation")
    ids, logprobs = generation.token_ids, generation.logprobs
    if not isinstance(ids, (list, tuple)):
        raise EngineError(f"the engine returned {type(ids).__name__} as token ids, not a list")
    for token_id in ids:
        if isinstance(token_id, bool) or not isinstance(token_id, int) or token_id < 0:
            raise EngineError(f"the engine returned {token_id!r}, which is no token id")
    if logprobs is not None and (not isinstance(logprobs, (list, tuple)) or len(logprobs) != len(ids)):
        raise EngineError(f"the engine returned {len(ids)} token ids and log-probabilities {logprobs!r:.80}")
    cached = generation.num_cached if isinstance(generation.num_cached, int) else None
    return Generation(list(ids), None if logprobs is None else list(logprobs), generation.finish_reason, cached)
