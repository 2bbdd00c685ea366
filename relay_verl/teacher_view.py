"""A whole response as the teacher reads it, and where each of the student's own tokens stands in that. Pure.

Distillation lets the teacher say what it would have written in the place of each token that the student sampled. The
teacher reads what it reads when it is called (`relay_verl.transcript`): no command. A token that a command touches has
no place: the teacher writes no commands, so what it says of one would teach the student never to call. The teacher's
tokens and forced ones have no place either, as the student did not choose them::

    response    student [a b <call>3</call>]   teacher [x y z]   student [c EOS]
    view        prompt   a b                            x y z             c EOS
    places               0 1  -  -  -                   - - -             5 6        + the prompt's length

Invariant: the token at a place is the response's token with that place.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from relay_verl.protocol import find_beginning_in_bytes, strip_with_sources
from relay_verl.tokenization import TokenBytes
from relay_verl.types import RelayTrajectory

_WINDOW = 64
"""Bytes that the beginning of a command has at most; one with more blanks or digits counts as text."""


@dataclass(frozen=True)
class TeacherView:
    """A response for the teacher to score."""

    token_ids: list[int]
    """Prompt and response without commands, up to the last token with a place."""
    places: list[int | None]
    """Where each token of the response stands in `token_ids`, [response_length]; None where it is not scored."""

    @property
    def num_scored(self) -> int:
        """Tokens with a place."""
        return sum(place is not None for place in self.places)


def view_response(trajectory: RelayTrajectory, tokens: TokenBytes, *, has_commands: bool) -> TeacherView:
    """The teacher's view of a response.

    Args:
        trajectory: the response.
        tokens: the tokenizer's view of its ids as bytes.
        has_commands: whether commands mean anything in this run; else their text is the student's like any other.
    """
    context, places, end = list(trajectory.prompt_ids), list[int | None](), 0
    for segment in trajectory.segments:
        own: list[int | None] = [None] * len(segment.token_ids)
        if segment.source == "teacher":
            context += segment.token_ids
        else:
            is_forced = segment.is_forced or [False] * len(own)
            is_begun = _begun(tokens.pieces(segment.token_ids)) if has_commands else [False] * len(own)
            pairs = (
                strip_with_sources(segment.token_ids, tokens)
                if has_commands
                else [(token_id, source) for source, token_id in enumerate(segment.token_ids)]
            )
            for token_id, source in pairs:
                if source is not None and not is_forced[source] and not is_begun[source]:
                    own[source] = len(context)
                    end = len(context) + 1
                context.append(token_id)
        places += own
    return TeacherView(context[:end], places)


def _begun(pieces: Sequence[bytes]) -> list[bool]:
    """Whether the text before each token ends with the beginning of a command, [length]."""
    is_begun, tail = [], b""
    for piece in pieces:
        is_begun.append(find_beginning_in_bytes(tail, is_nested=False) < len(tail))
        tail = (tail + piece)[-_WINDOW:]
    return is_begun
