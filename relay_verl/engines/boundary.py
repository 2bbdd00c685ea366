"""The boundary at which a caller asks any engine for tokens: behind it an answer is a well-formed Generation and a
failure is an EngineError, in time.

A bug in an engine, an error of the kinds in BUGS, is a failure like another where a run must survive it (training); a
caller who wrote the engine asks for the error itself (`raises_bugs`).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import Any

from relay_verl.engines.base import Billed, Generation
from relay_verl.engines.deadlines import DeadlineError, Pulse
from relay_verl.engines.prompt_scores import PromptScores
from relay_verl.errors import EngineError

MAX_CAUSE_CHARS = 400
"""Longest text of another library's error that a message repeats."""

BUGS = (AssertionError, AttributeError, ImportError, NameError, NotImplementedError, SyntaxError, TypeError)
"""What a mistake in an engine's code raises, and a server that is down does not."""


async def ask_within(
    timeout_s: float,
    ask: Callable[[], Awaitable[Generation]],
    *,
    pulse: Pulse | None = None,
    max_tokens: int = 1,
    writer: str = "engine",
    vocab_size: int | None = None,
    raises_bugs: bool = False,
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
        raises_bugs: raise an error of the kinds in BUGS as it is.

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
        generation = await pulse.wait(timeout_s, call(), num_tokens=max_tokens, measure=_num_tokens)
    except Exception as error:
        if isinstance(error, EngineError) or (raises_bugs and _is_bug(error)):
            raise
        raise _explain(error) from error
    _count(generation, pulse, writer, vocab_size)
    return generation


async def stream_within(
    timeout_s: float,
    stream: AsyncGenerator[Generation, None],
    *,
    pulse: Pulse | None = None,
    max_tokens: int = 1,
    writer: str = "engine",
    vocab_size: int | None = None,
    raises_bugs: bool = False,
    is_timed: bool = False,
) -> AsyncGenerator[Generation, None]:
    """`ask_within` for an answer in pieces: yields each once it is checked, the last one with its `finish_reason`.
    Closing it ends the request.

    Args:
        stream: the request, from `StreamingEngine.stream`; the other arguments are those of `ask_within`.
        is_timed: whether the stream keeps the deadline of this pulse by itself.

    Raises:
        EngineError: it failed, was late, broke off, or a piece is not a Generation of the vocabulary.
    """
    pulse = pulse or Pulse()
    checked = _checked(stream)
    if not is_timed:
        options: dict[str, Any] = {"num_tokens": max_tokens, "measure": _num_tokens, "is_last": _is_last}
        checked = pulse.pieces(timeout_s, _uncancelled(checked), **options)
    try:
        async with aclosing(checked) as pieces:
            async for piece in pieces:
                _count(piece, pulse, writer, vocab_size)
                yield piece
                if piece.finish_reason is not None:
                    return
    except Exception as error:
        if isinstance(error, EngineError) or (raises_bugs and _is_bug(error)):
            raise
        raise _explain(error) from error
    raise EngineError("the engine's stream ended before the answer did")


async def _checked(stream: AsyncGenerator[Generation, None]) -> AsyncGenerator[Generation, None]:
    """Each piece once it is well-formed."""
    async with aclosing(stream) as pieces:
        async for piece in pieces:
            yield _check(piece)


async def _uncancelled(stream: AsyncGenerator[Generation, None]) -> AsyncGenerator[Generation, None]:
    """The same in a task that its reader does not share."""
    try:
        async with aclosing(stream) as pieces:
            async for piece in pieces:
                yield piece
    except asyncio.CancelledError:
        raise EngineError("the engine cancelled the request") from None  # as in `ask_within`


def _num_tokens(generation: Generation) -> int:
    return len(generation.token_ids)


def _is_last(piece: Generation) -> bool:
    """Whether no piece of the answer follows."""
    return piece.finish_reason is not None


def _is_bug(error: Exception) -> bool:
    # by its exact class: Ray's errors of a remote process are of the class that was raised there, too
    return type(error) in BUGS


def _explain(error: Exception) -> EngineError:
    """An engine's error as an EngineError: engines are other projects' code and raise what they like. A deadline's
    message is complete as it is."""
    return EngineError(str(error) if isinstance(error, DeadlineError) else describe(error))


def _count(generation: Generation, pulse: Pulse, writer: str, vocab_size: int | None) -> None:
    """Count what was written, and refuse ids of another vocabulary."""
    pulse.num_tokens += len(generation.token_ids)
    # After the pulse has seen the answer: an engine that writes ids of another vocabulary is wrong, but alive. An id
    # without text, a padding row of the embedding, is an id like others.
    largest = max(generation.token_ids, default=0)
    if vocab_size is not None and largest >= vocab_size:
        raise EngineError(f"the {writer} answered {largest}, but the student's vocabulary has {vocab_size} token ids")


def _check(generation: Generation) -> Generation:
    """Validate a Generation from an engine we do not control. It is the one place that does: behind it ids are ints."""
    if not isinstance(generation, Generation):
        raise EngineError(f"the engine returned a {type(generation).__name__}, not a Generation")
    ids, logprobs = generation.token_ids, generation.logprobs
    if not isinstance(ids, (list, tuple)):
        raise EngineError(f"the engine returned {type(ids).__name__} as token ids, not a list")
    # nearly all answers pass at once; the loop names what is wrong with the others
    for token_id in ids if set(map(type, ids)) - {int} or min(ids, default=0) < 0 else ():
        if isinstance(token_id, bool) or not isinstance(token_id, int) or token_id < 0:
            raise EngineError(f"the engine returned {token_id!r}, which is not a token id")
    if logprobs is not None and (not isinstance(logprobs, (list, tuple)) or len(logprobs) != len(ids)):
        raise EngineError(f"the engine returned {len(ids)} token ids and log-probabilities {logprobs!r:.80}")
    # what only metrics read is not worth the answer
    cached, block = (
        value if isinstance(value, int) and value >= 0 else None
        for value in (generation.num_cached, generation.cache_block)
    )
    billed = generation.billed if isinstance(generation.billed, Billed) else None
    logprobs = None if logprobs is None else list(logprobs)
    prompt = generation.prompt if isinstance(generation.prompt, PromptScores) else None
    top = generation.top_logprobs
    top = top if isinstance(top, list) and len(top) == len(ids) else None
    return Generation(list(ids), logprobs, generation.finish_reason, cached, block or None, billed, prompt, top)


def describe(error: BaseException) -> str:
    """Another library's error without line breaks. Ray puts the worker's traceback into the text of its own errors; the
    error that the worker raised, which it keeps, says the cause alone."""
    cause = getattr(error, "cause", None)
    cause = cause if isinstance(cause, BaseException) else error
    text = " ".join(str(cause).split())
    return f"{type(cause).__name__}: {text:.{MAX_CAUSE_CHARS}}" if text else type(cause).__name__
