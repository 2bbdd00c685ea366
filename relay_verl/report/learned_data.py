"""What a page on a trained pair is about: conditions in which the student calls, and a number of each question.

Pure. A response's `n` is what its served calls asked for, all together; 0 where it has none.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from relay_verl.report.conditions import by_family, names_of
from relay_verl.report.groups import Group, Groups
from relay_verl.report.levels import Level, levels_of
from relay_verl.report.question_numbers import QuestionNumbers
from relay_verl.report.statistics import Average, Counts, Estimate, Measure, estimate, measure
from relay_verl.traces.records import ResponseRecord
from relay_verl.traces.words import serves_commands


@dataclass(frozen=True)
class Pair:
    """Everything that was measured of a pair, and what is known of its questions."""

    groups: Groups
    numbers: QuestionNumbers
    needed: str | None = None
    """The key of the teacher's tokens that a question needs; None if the questions do not say it."""
    grade: str | None = None
    """The key of a question's difficulty; likewise."""

    @cached_property
    def names(self) -> dict[Group, str]:
        """Every condition, in the order of the pages, with its name."""
        shown = by_family(self.groups.groups)
        return dict(zip(shown, names_of(shown), strict=True))

    @cached_property
    def callers(self) -> list[Group]:
        """Those in which the student's own commands were served."""
        return [
            group
            for group in self.names
            if serves_commands(group.policy)
            and any(record.num_calls for records in group.records for record in records)
        ]

    def levels(self, key: str) -> tuple[Level, ...]:
        """The levels of a number over the questions that were asked."""
        asked = {
            (record.benchmark, record.id): value
            for group in self.names
            for record in group.records[0]
            if (value := self.numbers.of(record, key)) is not None
        }
        return levels_of(asked.values())

    def at(self, group: Group, key: str, level: Level, counts: Counts) -> Estimate | None:
        """The share of a condition's responses to the questions of a level that `counts` counts, all benchmarks
        together; None if there are none."""
        seeds = [[one for one in records if level.has(self.numbers.of(one, key))] for records in group.records]
        return estimate(share(seeds, counts)) if all(seeds) else None


def pooled(seeds: Sequence[Sequence[ResponseRecord]], counts: Counts) -> Measure:
    """One ratio of sums over all responses, whatever their benchmark."""
    benchmarks = list(dict.fromkeys(record.benchmark for record in seeds[0]))
    return measure(seeds, benchmarks, counts, average=Average.POOLED)


def share(seeds: Sequence[Sequence[ResponseRecord]], counts: Counts) -> Measure:
    """The same where responses count or do not, so that even equal ones have an interval."""
    return replace(pooled(seeds, counts), is_proportion=True)


def right(record: ResponseRecord) -> tuple[float, float]:
    """What a response adds to an accuracy."""
    return float(record.is_correct), 1.0


def mean_by_question(
    records: Sequence[ResponseRecord],
    x: Callable[[ResponseRecord], float | None],
    y: Callable[[ResponseRecord], float],
) -> np.ndarray:
    """A number of each question and the mean of another over its responses, [num_questions, 2]; questions without the
    first are left out."""
    values: dict[tuple[str, str], tuple[float, list[float]]] = {}
    for record in records:
        if (known := x(record)) is not None:
            values.setdefault((record.benchmark, record.id), (known, []))[1].append(y(record))
    rows = [(known, float(np.mean(several))) for known, several in values.values()]
    return np.asarray(rows, dtype=float).reshape(len(rows), 2)
