"""Numbers that the questions of results carry, such as their grade: records do not keep them, the questions' rows do.

Invariant: the rows are those that were asked, by their hash in the results' manifests.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any

from relay_verl.benchmarks.registry import Questions
from relay_verl.errors import UserError, suggest
from relay_verl.traces.records import ResponseRecord
from relay_verl.traces.results import Result

_NUMBERING = ("index",)
"""A row's number says nothing about its question."""


@dataclass(frozen=True)
class QuestionNumbers:
    """Numbers by question."""

    by_question: Mapping[tuple[str, str], Mapping[str, float]]
    """Those at `extra_info`, by data source and id."""

    @property
    def keys(self) -> tuple[str, ...]:
        """The names of all numbers, in order of their first appearance."""
        return tuple(dict.fromkeys(key for numbers in self.by_question.values() for key in numbers))

    def of(self, record: ResponseRecord, key: str | None) -> float | None:
        """The number called `key` of a record's question; None where it has none."""
        return None if key is None else self.by_question.get((record.benchmark, record.id), {}).get(key)

    def choose(self, option: str, key: str | None, usual: str) -> str | None:
        """The key that a command line names, or the usual one where some question has it.

        Args:
            option: what messages call it.
            key: as named; None if it is not.
            usual: the one that is taken where none is named.

        Raises:
            UserError: no question has the key that is named; lists those there are.
        """
        if key is None:
            return usual if usual in self.keys else None
        if key not in self.keys:
            raise UserError(
                f"{option}: {key!r} is not a number at extra_info of the questions; they have "
                f"{', '.join(self.keys) or 'none'}{suggest(key, self.keys)}"
            )
        return key


def numbers_of(questions: Mapping[str, Questions], results: Sequence[Result]) -> QuestionNumbers:
    """The numbers of the questions that the results answer.

    Args:
        questions: every benchmark of the results, by name, whole.
        results: what `relay-verl eval` left.

    Raises:
        UserError: a benchmark is missing, or its rows are not those that were asked; names the folder.
    """
    for result in results:
        for name, asked in (result.job.get("benchmarks") or {}).items():
            if name not in questions:
                raise UserError(f"--benchmark: {result.folder} is on {name}, which is not among {', '.join(questions)}")
            first = Questions(questions[name].rows[: asked["num_questions"]], {})
            if first.sha256 != asked["sha256"]:
                raise UserError(
                    f"--benchmark {name}: these are not the questions that {result.folder} answers (SHA-256 "
                    f"{first.sha256[:12]}, there {str(asked['sha256'])[:12]}); give the copy that was asked"
                )
    rows = [row for each in questions.values() for row in each.rows]
    return QuestionNumbers({(str(row["data_source"]), str(row["extra_info"]["id"])): _numbers(row) for row in rows})


def _numbers(row: Mapping[str, Any]) -> dict[str, float]:
    extra = row["extra_info"]
    return {
        key: float(value)
        for key, value in extra.items()
        if isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value) and key not in _NUMBERING
    }
