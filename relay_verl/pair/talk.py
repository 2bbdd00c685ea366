"""Asking a pair and reading who writes which word, whether it runs here or behind a server: the command line's view.

`ServedPair` asks a running server, `LoadedPair` two models of this process. Both answer a `Question` with a `Reply`:
iterate over it for its pieces, then read what it cost.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NamedTuple, Protocol


class PieceKind(StrEnum):
    """What a piece of a reply is."""

    STUDENT = "student"
    """The student's text."""
    TEACHER = "teacher"
    """The teacher's text."""
    COMMAND = "command"
    """A command of the student's."""


class Piece(NamedTuple):
    """A piece of a reply, as it comes."""

    kind: PieceKind
    """Who wrote it."""
    text: str
    """Its text."""


@dataclass(frozen=True)
class Question:
    """What a pair is asked."""

    messages: Sequence[Mapping[str, str]]
    """The chat so far, which ends with the user's message."""
    model: str
    """One of the pair's names: itself or an alias."""
    max_tokens: int | None = None
    """Most tokens of the reply; None as the pair was trained."""
    max_teacher_tokens: int | None = None
    """Most tokens that the teacher writes of it; None for no limit."""
    max_calls: int | None = None
    """Most calls; None as the pair was trained."""
    temperature: float | None = None
    """Sampling temperature; None as the pair was trained."""
    seed: int | None = None
    """Seed of the sampling."""

    @property
    def relay(self) -> dict[str, Any]:
        """The body's `relay`."""
        limits = {"max_teacher_tokens": self.max_teacher_tokens, "max_calls": self.max_calls}
        return {"show_commands": True} | {name: limit for name, limit in limits.items() if limit is not None}


@dataclass
class Reply(ABC):
    """An answer that is written while it is iterated over; leaving the iteration ends the writing."""

    question: Question
    """What was asked."""
    pieces: list[Piece] = field(default_factory=list)
    """What has come; neighbours of one kind are joined, but for commands."""
    usage: dict[str, Any] = field(default_factory=dict)
    """`usage` of the server; empty until the end."""
    finish_reason: str | None = None
    """Why it ended; None if it has not."""

    @abstractmethod
    def _read(self) -> AsyncIterator[Piece]:
        """The pieces as they come, which sets the usage and the reason to end.

        Raises:
            EngineError: the pair does not answer; a PermanentError if asking again cannot help.
        """

    async def __aiter__(self) -> AsyncIterator[Piece]:
        pieces: Any = self._read()
        try:
            async for piece in pieces:
                last = self.pieces[-1] if self.pieces else None
                if last is not None and last.kind is piece.kind is not PieceKind.COMMAND:
                    self.pieces[-1] = Piece(piece.kind, last.text + piece.text)
                else:
                    self.pieces.append(piece)
                yield piece
        finally:
            await pieces.aclose()

    @property
    def text(self) -> str:
        """The text without commands: what the next turn of a chat shows the models."""
        return "".join(piece.text for piece in self.pieces if piece.kind is not PieceKind.COMMAND)

    @property
    def relay(self) -> dict[str, Any]:
        """`usage.relay`; empty where the server is not ours."""
        return dict(self.usage.get("relay") or {})


class Pair(Protocol):
    """Answers questions."""

    async def model_names(self) -> list[str]:
        """The pair's name, and its aliases.

        Raises:
            EngineError: it does not say.
        """

    def ask(self, question: Question) -> Reply:
        """The reply to a question, not yet begun."""

    async def aclose(self) -> None:
        """Free what it holds."""
