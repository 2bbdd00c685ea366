"""A text that a pair wrote."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from relay_verl.deltas import Delta
from relay_verl.serving.usage import RelayCount
from relay_verl.types import RelayTrajectory

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
    is_budget_spent: bool = False
    """Whether calls were turned off because `max_teacher_tokens` were written."""

    def __str__(self) -> str:
        return self.text

    @property
    def error(self) -> str:
        """Why it is not whole; empty if it is."""
        return self.trajectory.error

    @property
    def usage(self) -> dict[str, Any]:
        """What it cost: prompt tokens and what `usage.relay` of the server has."""
        count = RelayCount(is_budget_spent=self.is_budget_spent)
        for segment in self.trajectory.segments:
            count.add_tokens(segment.source, len(segment.token_ids))
        count.add_calls(self.trajectory.calls)
        return {"prompt_tokens": len(self.trajectory.prompt_ids), **count.relay()}
