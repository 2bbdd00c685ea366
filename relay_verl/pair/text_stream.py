"""A text while a pair writes it.

Invariant: closing it, or leaving its `async with` or its loop with an error, ends the requests to both models.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Generator
from contextlib import aclosing

from relay_verl.allowance import WithinAllowance
from relay_verl.deltas import Delta, DeltaReader
from relay_verl.errors import EngineError
from relay_verl.pair.background_loop import BackgroundLoop
from relay_verl.pair.relayed_text import FinishReason, RelayedText
from relay_verl.relay import Relay
from relay_verl.types import RelayStatus, RelayTrajectory


class TextStream:
    """A text while it is written: iterate over it once for its deltas; `result` says what has come so far. Closing it
    ends the requests to both models.

    Args:
        relay: writes it.
        reader: turns it into text.
        end_ids: ids that end it.
        limited: the policy, where a budget bounds it.
    """

    def __init__(
        self, relay: Relay, reader: DeltaReader, end_ids: frozenset[int], limited: WithinAllowance | None = None
    ):
        self._relay = relay
        self._reader = reader
        self._end_ids = end_ids
        self._limited = limited
        self._deltas: list[Delta] = []
        self._is_over = False

    async def deltas(self) -> AsyncGenerator[Delta, None]:
        """What a reader gets next, until the text is over.

        Raises:
            EngineError: a model failed, so that the text is not whole; a TeacherError where `on_teacher_failure` is
                'fail'.
        """
        async with aclosing(self._relay) as relay:
            async for segment in relay:
                for delta in self._note(self._reader.feed(segment)):
                    yield delta
                if self._reader.is_stopped:
                    break
        for delta in self._note(self._reader.end()):
            yield delta
        self._is_over = True
        trajectory = self._relay.trajectory()
        if trajectory.status is not RelayStatus.COMPLETED:
            raise EngineError(trajectory.error)

    def result(self) -> RelayedText:
        """The text so far."""
        trajectory = self._relay.trajectory()
        text = "".join(delta.text for delta in self._deltas)
        reason = self._finish_reason(trajectory)
        is_spent = self._limited is not None and self._limited.has_refused
        return RelayedText(text, list(self._deltas), trajectory, reason, self._reader.stop_reason, is_spent)

    def _note(self, deltas: list[Delta]) -> list[Delta]:
        self._deltas += deltas
        return deltas

    def _finish_reason(self, trajectory: RelayTrajectory) -> FinishReason:
        if trajectory.status is not RelayStatus.COMPLETED:
            return "error"
        if not self._is_over:
            return "unfinished"
        ids = trajectory.segments[-1].token_ids if trajectory.segments else []
        return "stop" if self._reader.is_stopped or (ids and ids[-1] in self._end_ids) else "length"


class PairStream:
    """A text while it is written: an iterator of its deltas, and an async one for callers in an event loop. One reader
    reads it once.

    Args:
        text: what is written.
        loop: where.
        places: how many texts are written at a time.
    """

    def __init__(self, text: TextStream, loop: BackgroundLoop, places: asyncio.Semaphore):
        self._text = text
        self._loop = loop
        self._places = places
        self._deltas: Generator[Delta, None, None] | None = None
        self._async_deltas: AsyncGenerator[Delta, None] | None = None

    def result(self) -> RelayedText:
        """The text so far; the whole one once the iteration is over."""
        return self._text.result()

    def __iter__(self) -> PairStream:
        return self

    def __next__(self) -> Delta:
        if self._deltas is None:
            self._deltas = self._loop.iterate(self._placed())
        return next(self._deltas)

    def close(self) -> None:
        """End the text here."""
        if self._deltas is not None:
            self._deltas.close()

    def __aiter__(self) -> PairStream:
        return self

    async def __anext__(self) -> Delta:
        if self._async_deltas is None:
            self._async_deltas = self._loop.aiterate(self._placed())
        return await anext(self._async_deltas)

    async def aclose(self) -> None:
        """`close` for a caller in an event loop."""
        if self._async_deltas is not None:
            await self._async_deltas.aclose()

    async def _placed(self) -> AsyncGenerator[Delta, None]:
        async with self._places, aclosing(self._text.deltas()) as deltas:
            async for delta in deltas:
                yield delta
