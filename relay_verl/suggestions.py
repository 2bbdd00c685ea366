"""What somebody who misspelt a name may have meant. Pure."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

CUTOFF = 0.6
"""Least likeness of a suggestion: difflib's own default."""


def suggest(name: str, known: Iterable[str]) -> str:
    """The closest known name, as the end of a message on an unknown one; empty where none is close.

    >>> suggest("math500", ["math-500", "gsm8k"])
    "; did you mean 'math-500'?"
    >>> suggest("poetry", ["math-500", "gsm8k"])
    ''
    """
    spelt = {each.lower(): each for each in known}
    closest = difflib.get_close_matches(name.lower(), spelt, n=1, cutoff=CUTOFF)
    return f"; did you mean {spelt[closest[0]]!r}?" if closest else ""
