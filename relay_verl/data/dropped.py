"""The rows of a dataset that are not written, and why. Pure.

Invariant: the counts by reason are the sums of the lines' `num_rows`.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from enum import StrEnum
from typing import Any

from relay_verl.data.schema import MAX_NAMED


class DropReason(StrEnum):
    """Why a row is not written."""

    NO_QUESTION = "no question"
    NO_ANSWER = "no answer"
    NO_UNICODE = "text is not Unicode"
    UNGRADABLE = "answer does not parse"
    CONTRADICTION = "contradiction"
    DUPLICATE = "duplicate"
    OVERLAP = "overlap"


class DroppedRows:
    """Rows that are not written, and why. Rows of which the same is said share a line, with a count."""

    def __init__(self) -> None:
        self.num: Counter[str] = Counter()
        self.first: dict[str, list[str]] = {}
        self._lines: Counter[str] = Counter()

    def add(self, id: str, reason: DropReason, num_rows: int = 1, **details: Any) -> None:
        """Note a row, or several of which the same is said."""
        self.num[str(reason)] += num_rows
        first = self.first.setdefault(str(reason), [])
        if len(first) <= MAX_NAMED and id not in first:  # one more than is shown, for the dots behind them
            first.append(id)
        self._lines[json.dumps({"id": id, "reason": str(reason), **details})] += num_rows

    def lines(self) -> Iterator[str]:
        """JSON objects, in the order of their first rows."""
        for line, num in self._lines.items():
            yield f'{line[:-1]}, "num_rows": {num}}}\n'
