"""Right answers that the grader cannot read, counted and named when a file is loaded. Pure.

Such an answer is not an error: a response with the very same spelling is still right. But every other spelling is
wrong, so a benchmark of them is harder than it looks, and in training they are noise.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from relay_verl.data.schema import MAX_NAMED
from relay_verl.data.truths import Truth, truth_of
from relay_verl.grading import kind_of

MAX_ASKED = 2000
"""Most different answers that the grader is asked about: a check before a training must not take minutes."""
NUM_THREADS = 4
"""Answers that are asked about at a time, as many as a Grader has workers."""

_NUMBER = r"[+-]?(\d[\d,]*(\.\d*)?|\.\d+)([eE][+-]?\d+)?"
_PLAIN = re.compile(rf"(\$?)(-?\\[dt]?frac\{{-?\d+\}}\{{\d+\}}|{_NUMBER}(\\?%)?)\1")

IsReadable = Callable[[str], bool | None]
"""Whether the grader can read an answer; None if it could not tell in time."""


@dataclass(frozen=True)
class UnreadableGold:
    """A row whose right answer the grader cannot read."""

    row: int
    """Its number in the file, from 1."""
    gold: str
    """The answer."""


def unreadable_golds(rows: Iterable[Mapping[str, Any]], is_readable: IsReadable) -> list[UnreadableGold]:
    """The rows, each with verl's `reward_model` and `ability`, whose answers cannot be read.

    Of several accepted answers one is enough. Only mathematics is parsed. Plain numbers and fractions are readable
    without asking, and each other answer is asked about once.
    """
    truths = [  # of the rows that have to be asked about
        (number, truth)
        for number, row in enumerate(rows, start=1)
        if kind_of(row.get("ability")) == "math"
        and not any(map(_PLAIN.fullmatch, truth := _each(truth_of(row["reward_model"]))))
    ]
    asked = list(dict.fromkeys(gold for _, truth in truths for gold in truth))[:MAX_ASKED]
    with ThreadPoolExecutor(NUM_THREADS) as pool:
        answers = dict(zip(asked, pool.map(is_readable, asked), strict=True))
    unreadable = {gold for gold, can_read in answers.items() if can_read is False}
    return [UnreadableGold(number, truth[0]) for number, truth in truths if unreadable.issuperset(truth)]


def warn_of_unreadable(name: object, rows: Iterable[Mapping[str, Any]], is_readable: IsReadable) -> str | None:
    """A warning on the rows of `name` that cannot be read, with their number and the first of them; None if all can."""
    unreadable = unreadable_golds(rows, is_readable)
    if not unreadable:
        return None
    first = ", ".join(f"row {gold.row} ({gold.gold[:60]!r})" for gold in unreadable[:MAX_NAMED])
    dots = ", ..." if len(unreadable) > MAX_NAMED else ""
    return (
        f"{name}: {len(unreadable)} right answers cannot be parsed, and only the same spelling is right: {first}{dots}"
    )


def _each(truth: Truth) -> tuple[str, ...]:
    return (truth,) if isinstance(truth, str) else truth
