"""What is written of one response, and what each of the two models sees of it (paper 2.1, 2.2). Pure.

Invariants: the student's context is the prompt and all segments, commands included; the teacher's is the same without
the characters of any command the student wrote. Every token that no command touches keeps its id, and the teacher's own
earlier tokens always do. Neighbouring segments differ in their writer.
"""

from __future__ import annotations

from itertools import groupby
from typing import Literal

from relay_verl.engines.base import Generation
from relay_verl.protocol import count_malformed_calls, strip_call_tokens
from relay_verl.tokenization import TokenBytes
from relay_verl.types import Segment


class Transcript:
    """One response as far as it is written.

    Args:
        prompt_ids: the prompt, [prompt_length].
        max_tokens: most tokens of the response.
        tokens: the tokenizer's view of its ids as bytes.
    """

    def __init__(self, prompt_ids: list[int], max_tokens: int, tokens: TokenBytes):
        self.prompt_ids = prompt_ids
        self._pieces: list[Segment] = []  # as they came; a stream has one a token, so they are joined when asked for
        self.turn_bytes = b""
        """What the student wrote since the teacher last did, as text."""
        self._max_tokens = max_tokens
        self._tokens = tokens
        self._context = list(prompt_ids)
        self._teacher_context = list(prompt_ids)  # up to the student's current turn
        self._turn: list[int] = []  # the ids of `turn_bytes`
        self._stripped: list[int] | None = None  # the same without commands, once the teacher was asked

    @property
    def segments(self) -> list[Segment]:
        """What is written: a writer that is asked several times in a row, as after an unserved command, has one."""
        runs = groupby(self._pieces, key=lambda piece: piece.source)
        return [_join(list(pieces)) for _, pieces in runs]

    @property
    def num_tokens(self) -> int:
        """Tokens of the response so far, both writers together."""
        return len(self._context) - len(self.prompt_ids)

    @property
    def tokens_left(self) -> int:
        """Tokens that the response has room for."""
        return self._max_tokens - self.num_tokens

    def student_context(self) -> list[int]:
        """What the student continues."""
        return list(self._context)

    def teacher_context(self) -> list[int]:
        """What the teacher continues: commands of the current turn are cut out here, earlier ones are already gone."""
        return self._teacher_context + self._turn_without_calls()

    def _turn_without_calls(self) -> list[int]:
        if self._stripped is None:
            self._stripped = strip_call_tokens(self._turn, self._tokens)
        return self._stripped

    def append_student(self, piece: Generation, *, is_forced: bool = False) -> Segment:
        """Add what the student wrote, or what the constraint wrote in its place; gives the new piece."""
        self._turn += piece.token_ids
        self._stripped = None
        self.turn_bytes += self._tokens.join(piece.token_ids)
        return self._append("student", piece, [True] * len(piece.token_ids) if is_forced else None)

    def append_teacher(self, piece: Generation) -> Segment:
        """Add what the teacher wrote; the student's turn has to be closed."""
        self._teacher_context += piece.token_ids
        return self._append("teacher", piece, None)

    def close_turn(self) -> int:
        """End the student's turn, which settles what the teacher will see of it; gives its number of malformed
        commands. Only now is that number known: a later token could have completed a command."""
        if not self._turn:
            return 0
        num_malformed = count_malformed_calls(self.turn_bytes.decode("latin-1"))
        self._teacher_context += self._turn_without_calls()
        self._turn, self._stripped, self.turn_bytes = [], None, b""
        return num_malformed

    def _append(self, source: Literal["student", "teacher"], piece: Generation, marks: list[bool] | None) -> Segment:
        segment = Segment(source, list(piece.token_ids), piece.logprobs, marks)
        self._pieces.append(segment)
        self._context += piece.token_ids
        return segment


def _join(pieces: list[Segment]) -> Segment:
    """Pieces of one writer as one segment."""
    if len(pieces) == 1:
        return pieces[0]
    logprobs: list[float] | None = None
    is_forced: list[bool] | None = None
    if all(piece.logprobs is not None for piece in pieces):
        logprobs = [logprob for piece in pieces for logprob in piece.logprobs or ()]
    if any(piece.is_forced is not None for piece in pieces):
        is_forced = [mark for piece in pieces for mark in piece.is_forced or [False] * len(piece.token_ids)]
    token_ids = [token_id for piece in pieces for token_id in piece.token_ids]
    return Segment(pieces[0].source, token_ids, logprobs, is_forced)
