"""A question as `relay_verl.data.overlap` compares it. Pure.

Invariant: questions of equal words, whatever their case and blanks, are read alike.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from relay_verl.data.boilerplate import without_boilerplate, without_format
from relay_verl.data.question_words import words_of

_FIGURE = re.compile(r"\[asy\].*?\[/asy\]", re.DOTALL | re.IGNORECASE)
"""A figure as Asymptote code, as the MATH dataset has them."""


@dataclass(frozen=True)
class ComparedQuestion:
    """A question in the spelling that it is compared by, with what it was."""

    id: str
    """Of its row."""
    question: str
    """As it is."""
    key: str
    """What it is compared exactly by."""
    words: list[str]
    """Those that count in the other looks."""
    has_figure: bool
    """Whether it says more than its words."""


def read_question(id: str, question: str) -> ComparedQuestion:
    """The question of the row of that id."""
    words = words_of(question)
    key = " ".join(without_format(words) or words)
    has_figure = _FIGURE.search(question) is not None
    if has_figure:
        words = words_of(_FIGURE.sub(" ", question))
    return ComparedQuestion(id, question, key, without_boilerplate(words), has_figure)
