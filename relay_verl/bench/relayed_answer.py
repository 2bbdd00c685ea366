"""One answer of a relay server as its client sees it: pieces with their author and the time of their arrival. Pure.

A worked example, with one token a piece, 10 ms apart but for the hand-overs, after a prompt of 5 tokens::

    piece        So   <call>2</call>          the   sum          is
    author       student, student (command)   teacher            student
    arrival      0    10                      60    70           100
    hand-over                        50 ms to the teacher      30 ms back
    teacher reads prompt and `So`: 6 tokens; a later call would find 7 of its own context in a cache, all but the last
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise


@dataclass(frozen=True)
class TimedPiece:
    """What came in one event."""

    arrived_at: float
    """Seconds, by one clock."""
    source: str
    """student or teacher."""
    is_command: bool
    """Whether it is a command of the student's."""
    num_tokens: int
    """Tokens that it ends."""
    text: str
    """What it says."""


@dataclass(frozen=True)
class RelayedAnswer:
    """All pieces of a response."""

    pieces: Sequence[TimedPiece]
    """In order."""
    num_prompt_tokens: int
    """Tokens of the prompt."""
    num_tokens: int
    """Tokens of the response, both writers and commands together."""
    num_calls: int
    """Calls that the teacher served."""
    num_failed_calls: int
    """Calls that failed."""
    num_read: int
    """Tokens of contexts that the teacher read, cached ones included."""
    num_cached: int
    """Those of them that its prefix cache held."""

    @property
    def text(self) -> str:
        """The response with its commands."""
        return "".join(piece.text for piece in self.pieces)

    def gaps(self, before: str, after: str) -> Iterator[float]:
        """Seconds from the last piece of one author to the first of the other."""
        for one, other in pairwise(self.pieces):
            if (one.source, other.source) == (before, after):
                yield other.arrived_at - one.arrived_at

    def token_times(self) -> Iterator[float]:
        """Seconds of each student token that follows another one, [num_tokens]."""
        for one, other in pairwise(self.pieces):
            if one.source == other.source == "student" and other.num_tokens:
                yield from [(other.arrived_at - one.arrived_at) / other.num_tokens] * other.num_tokens

    def num_reread(self, block_size: int) -> int:
        """Tokens, by whole blocks, that the teacher reads again and may find in its cache: at each call but the first
        the context up to the end of its last turn, of which the last token was sampled but not computed."""
        length, ends = self.num_prompt_tokens, []
        for number, piece in enumerate(self.pieces):
            length += 0 if piece.is_command else piece.num_tokens
            is_last = number + 1 == len(self.pieces) or self.pieces[number + 1].source != "teacher"
            if piece.source == "teacher" and is_last:
                ends.append(length)
        return sum((end - 1) // block_size * block_size for end in ends[:-1])
