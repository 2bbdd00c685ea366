"""Whose colour a condition has in the report's pictures: the student's, the teacher's, the relay's, or another one.

Invariant: a condition that has one of the three meanings has its colour whatever else is in the picture; the others
take turns at what is left.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count

from relay_verl.pictures import NEITHER, OTHERS, colour_of
from relay_verl.policies import find_policy

_REST = (*OTHERS, NEITHER)


def kind_of(method: str | None, policy: str) -> str:
    """'student', 'teacher', 'relay' or 'other'.

    >>> kind_of("relay", "learned"), kind_of("relay", "fixed_20"), kind_of("teacher", "student_alone")
    ('relay', 'other', 'teacher')
    """
    author = find_policy(policy).kind.author
    if author == "teacher" or method == "teacher":
        return "teacher"
    if author == "student":
        return author if method in (None, "base") else "other"
    return author if method in (None, "relay") else "other"


def colours_of(kinds: Sequence[str]) -> list[str]:
    """A colour for each condition by its kind. Of several of one kind the first has the kind's colour."""
    seen: set[str] = set()
    number = count()
    colours = []
    for kind in kinds:
        is_known = kind != "other" and kind not in seen
        seen.add(kind)
        colours.append(colour_of(kind) if is_known else colour_of("other", _REST, next(number)))
    return colours
