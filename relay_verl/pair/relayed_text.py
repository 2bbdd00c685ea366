"""A text that a pair wrote, and one while it is written."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Literal

from relay_verl.deltas import Delta, DeltaReader
from relay_verl.errors import EngineError
from relay_verl.relay import Relay
from relay_verl.serving.usage import RelayCount
from relay_verl.types import RelayStatus, RelayTrajectory

FinishReason = Literal["stop", "length", "error", "unfinished"]


@dataclass(frozen=True)
class RelayedText:
    """A response, with who wrote what."""

    text: str
    """What a reader sees; without commands, unless they were asked for."""
    deltas: list[Delta]
    """The same in order, with authors and tokens."""
    trajectory: RelayTrajectory
    """The tokens as the engines wrote them, and every call."""
    finish_reason: FinishReason
    """'stop': an end of sequence or a stop string; 'length': `max_tokens`, or the context is full; 'error': see
    `error`; 'unfinished': its reader left."""
    stop_reason: str | None = None
    """The stop string that ended it."""

    def __str__(self) -> str:
        return self.text

    @property
    def error(self) -> str:
        """Why it is not whole; empty if it is."""
        return self.trajectory.error

    @property
    def usage(self) -> dict[str, Any]:
        """What it cost: prompt tokens and what `usage.relay` of the server has."""
        count = RelayCount()
        for segment in self.trajectory.segments:
            count.add_tokens(segment.source, len(segment.token_ids))
        count.add_calls(self.trajectory.calls)
        return {"prompt_tokens": len(self.trajectory.prompt_ids), **count.relay()}


class TextStream:
    """A text while it is written: iterate over it once for its deltas; `result` says what has come so far. Closing it
    ends the requests to both models.

    Args:
        relay: writes it.
        reader: turns it into text.
        end_ids: ids that end it.
    """

    def __init__(self, relay: Relay, reader: DeltaReader, end_ids: frozenset[int]):
        self._relay = relay
        self._reader = reader
        self._end_ids = end_ids
        self._deltas: list[Delta] = []
        self._is_over = False

    async def deltas(self) -> AsyncGenerator[Delta, None]:
        """What a reader gets next, until the text is over.

        Raises:
            EngineError: a model failed, so that the text is not whole; a TeacherError if `on_teacher_failure` is 'fail'.
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
        return RelayedText(text, list(self._deltas), trajectory, reason, self._reader.stop_reason)

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
