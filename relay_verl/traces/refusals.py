"""What a response would have been with one of its calls refused: a part of its record. Pure.

The counterfactual of a call: the same tokens up to and with the command, then the student alone, whose further commands
are banned. What the calls before it delivered stays.
"""

from __future__ import annotations

from pydantic import ConfigDict, with_config
from typing_extensions import TypedDict


@with_config(ConfigDict(extra="forbid", strict=True))
class RefusalText(TypedDict):
    """One served call, as if it had been refused."""

    position: int
    """Response tokens before the teacher's first one: that of the call in the record's `calls`."""
    is_correct: bool
    """Whether the answer would have been right, by rule."""
    answer: str | None
    """The answer as written; None if there is none."""
    num_tokens: int
    """Tokens that the student wrote from there on."""
    text: str
    """Those tokens as text."""
