"""One of the two models of a response: asked within a deadline, its answer validated, cut and ended where it has to be.

Invariant: what `Writer.write` returns is text of the response as it stands: ids that the student has an embedding for,
at most as many as asked for, nothing behind a token that ends a response.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from math import inf
from typing import Any, Literal

from relay_verl.engines.base import FinishReason, Generation, TokenEngine, stream_of
from relay_verl.engines.boundary import ask_within, stream_within
from relay_verl.engines.deadlines import Pulse


class Whole:
    """An answer as the one piece of a stream. A generator would be the same, and costs more than a turn of training has
    to.

    Args:
        write: asks for it.
    """

    def __init__(self, write: Callable[[], Awaitable[Generation]]):
        self._write: Callable[[], Awaitable[Generation]] | None = write

    def __aiter__(self) -> Whole:
        return self

    async def __anext__(self) -> Generation:
        if self._write is None:
            raise StopAsyncIteration
        write, self._write = self._write, None
        return await write()

    async def aclose(self) -> None:
        """There is nothing to close: an answer that is waited for ends with the task that waits."""


@dataclass(frozen=True)
class Writer:
    """A model as one response sees it."""

    name: Literal["student", "teacher"]
    """Which of the two it is, as a message calls it."""
    engine: TokenEngine
    """Whom to ask."""
    pulse: Pulse
    """The engine's signs of life, shared by all who ask it in this process."""
    timeout_s: float
    """Seconds of silence after which it fails (`relay_verl.engines.deadlines`)."""
    sampling: Mapping[str, Any]
    """Its sampling parameters under vLLM's names."""
    request_id: str
    """Names the trajectory to the engine, so that all its turns reach one replica's prefix cache."""
    end_ids: frozenset[int]
    """Ids that end a response."""
    vocab_size: int | None
    """Rows of the student's embedding; None does not check."""
    streams: bool = False
    """Whether `pieces` gives an answer while it is being written, where the engine can."""
    raises_bugs: bool = False
    """Whether a bug in the engine is raised as it is (`relay_verl.engines.boundary`)."""

    async def write(
        self, context: list[int], max_tokens: int, *, num_written: int, stop: Sequence[str] = ()
    ) -> Generation:
        """Continue `context`.

        Args:
            context: what it sees, [length].
            max_tokens: most tokens to write.
            num_written: tokens of the response so far.
            stop: strings that end its turn.

        Raises:
            EngineError: it failed, was late, or answered rubbish.
        """
        piece = await ask_within(
            self.timeout_s,
            lambda: self.engine.generate(
                context,
                max_tokens=max_tokens,
                stop=stop,
                sampling=self._seeded(num_written),
                request_id=self.request_id,
            ),
            pulse=self.pulse,
            max_tokens=max_tokens,
            writer=self.name,
            vocab_size=self.vocab_size,
            raises_bugs=self.raises_bugs,
        )
        return self._end(piece, max_tokens)

    def pieces(
        self, context: list[int], max_tokens: int, *, num_written: int, stop: Sequence[str] = ()
    ) -> AsyncGenerator[Generation, None] | Whole:
        """`write`, piece by piece; the last one has a `finish_reason`. One piece unless `streams`."""
        open_stream = stream_of(self.engine) if self.streams else None
        if open_stream is None:
            return Whole(lambda: self.write(context, max_tokens, num_written=num_written, stop=stop))
        stream = open_stream(
            context, max_tokens=max_tokens, stop=stop, sampling=self._seeded(num_written), request_id=self.request_id
        )
        return self._stream(stream, max_tokens)

    async def _stream(
        self, stream: AsyncGenerator[Generation, None], max_tokens: int
    ) -> AsyncGenerator[Generation, None]:
        checked = stream_within(
            self.timeout_s,
            stream,
            pulse=self.pulse,
            max_tokens=max_tokens,
            writer=self.name,
            vocab_size=self.vocab_size,
            raises_bugs=self.raises_bugs,
            is_timed=getattr(self.engine, "stream_timeout_s", inf) <= self.timeout_s,
        )
        async with aclosing(checked) as pieces:
            async for piece in pieces:
                ended = self._end(piece, max_tokens)
                max_tokens -= len(ended.token_ids)
                yield ended
                if ended.finish_reason is not None:
                    return

    def _end(self, piece: Generation, max_tokens: int) -> Generation:
        """`piece`, which has room for `max_tokens` tokens, cut where it has to end."""
        # an engine that does not know all of the model's ends writes past one, or says that it was stopped
        if not self.end_ids.isdisjoint(piece.token_ids):
            ends = (count for count, token_id in enumerate(piece.token_ids, start=1) if token_id in self.end_ids)
            num_tokens = next(ends)
            if num_tokens <= max_tokens:
                return cut(piece, num_tokens, "eos")
        # one that wrote more than it was asked for did not end where it is cut, whatever it says
        is_too_long = len(piece.token_ids) > max_tokens
        return cut(piece, max_tokens, "length") if is_too_long else piece

    def _seeded(self, num_written: int) -> Mapping[str, Any]:
        """A seed, if there is one, differs from turn to turn, or each turn would repeat the draws of the first."""
        if "seed" not in self.sampling:
            return self.sampling
        return {**self.sampling, "seed": self.sampling["seed"] + num_written}


def cut(piece: Generation, num_tokens: int, finish_reason: FinishReason) -> Generation:
    """The first `num_tokens` of `piece`."""
    if num_tokens >= len(piece.token_ids) and finish_reason == piece.finish_reason:
        return piece
    logprobs = None if piece.logprobs is None else piece.logprobs[:num_tokens]
    top = None if piece.top_logprobs is None else piece.top_logprobs[:num_tokens]
    ids = piece.token_ids[:num_tokens]
    return replace(piece, token_ids=ids, logprobs=logprobs, finish_reason=finish_reason, top_logprobs=top)
