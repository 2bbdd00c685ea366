r"""Are two mathematical answers equal? Runs in the worker process only: it can take long.

An answer is respelled (`spelling`), read (`structure`) and compared (`compare`). What cannot be read is
right in its own spelling only, blanks and looks apart. The rules are in the room's README.
"""

from __future__ import annotations

from relay_verl.grading.compare import is_right
from relay_verl.grading.latex import UnreadableError, plain, tokenize
from relay_verl.grading.spelling import respell, respell_pair
from relay_verl.grading.structure import read


def is_equivalent(answer: str, ground_truth: str) -> bool:
    r"""Whether two answers, given without their boxes, are mathematically equal. Can take long.

    >>> is_equivalent(r"\sqrt{18}", r"3\sqrt{2}"), is_equivalent("3 or 5", "5")
    (True, False)
    """
    pair = respell_pair(answer, ground_truth)
    if pair is None:  # their units differ
        return False
    try:
        return is_right(read(pair[0]), read(pair[1]))
    except UnreadableError:
        return _spelling(pair[0]) == _spelling(pair[1]) is not None


def is_readable(answer: str) -> bool:
    r"""Whether an answer is read as mathematics or words; as a truth, other spellings of it are then right, too.

    >>> is_readable(r"\frac{1}{2}"), is_readable(r"1,2,\ldots,9")
    (True, False)
    """
    try:
        read(respell(answer))
    except UnreadableError:
        return False
    return True


def _spelling(answer: str) -> str | None:
    try:
        return plain(tokenize(answer)) or None
    except UnreadableError:
        return None
