"""What the records of an evaluation add up to: one row a condition, as in the paper's Table 1. Pure.

Accuracy counts every response: one that was not completed is judged by what it says, and the table tells how many such
responses there are. The average is the mean over benchmarks, as in the paper, so that the 32 samples a question of AIME
weigh no more than one of another benchmark.

The call ratio comes in two forms: the mean of rho over responses, which the reward charges (Eq. 3), and the pooled one,
all teacher tokens over all tokens ("of the total generated tokens"). Short responses weigh more in the first.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from relay_verl.evaluation.records import ResponseRecord
from relay_verl.evaluation.statistics import accuracy, call_rate, call_ratio, mean_call_ratio


@dataclass(frozen=True)
class ConditionSummary:
    """One condition over all its responses. Every share is between 0 and 1."""

    condition: str
    """Its name."""
    num_responses: int
    """Responses, all benchmarks together."""
    num_failed: int
    """Responses that are not whole."""
    accuracy: Mapping[str, float]
    """Share of right answers by benchmark, in order of first appearance."""
    call_rate: Mapping[str, float]
    """Share of responses that called by benchmark."""
    overall_accuracy: float
    """Share of right answers over all responses."""
    overall_call_rate: float
    """Share of all responses that called."""
    call_ratio: float
    """Mean of rho over responses (macro)."""
    pooled_call_ratio: float
    """All teacher tokens over all response tokens (micro)."""

    @property
    def mean_accuracy(self) -> float:
        """Mean of the benchmarks' accuracies: the paper's "Average"."""
        return fmean(self.accuracy.values())


@dataclass(frozen=True)
class Column:
    """One column of the table, with a cell for each condition."""

    group: str
    """What is measured, with its unit; empty for a column that stands alone."""
    label: str
    """Of what."""
    values: Sequence[float | None]
    """A share of 1 or a count for each condition; None where the condition has no such responses."""
    num_decimals: int | None = None
    """Decimals of the percentage; None for a count."""

    def cells(self) -> list[str]:
        """The values as text."""
        if self.num_decimals is None:
            return [f"{value:,.0f}" if value is not None else "–" for value in self.values]
        return [f"{100 * value:.{self.num_decimals}f}" if value is not None else "–" for value in self.values]


def summarize(records: Iterable[ResponseRecord]) -> list[ConditionSummary]:
    """One summary a condition, in order of first appearance."""
    by_condition: dict[str, list[ResponseRecord]] = {}
    for record in records:
        by_condition.setdefault(record.condition, []).append(record)
    return [_summarize(condition, group) for condition, group in by_condition.items()]


def _summarize(condition: str, records: Sequence[ResponseRecord]) -> ConditionSummary:
    benchmarks = list(dict.fromkeys(record.benchmark for record in records))
    return ConditionSummary(
        condition=condition,
        num_responses=len(records),
        num_failed=sum(not record.is_completed for record in records),
        accuracy={name: accuracy([records], [name]).value for name in benchmarks},
        call_rate={name: call_rate([records], [name]).value for name in benchmarks},
        overall_accuracy=fmean(record.is_correct for record in records),
        overall_call_rate=fmean(record.has_called for record in records),
        call_ratio=mean_call_ratio([records], benchmarks).value,
        pooled_call_ratio=call_ratio([records], benchmarks).value,
    )


def make_columns(summaries: Sequence[ConditionSummary], names: Mapping[str, str] = {}) -> list[Column]:
    """The table's columns after the conditions' names; `names` gives benchmarks another name to show."""
    benchmarks = list(dict.fromkeys(name for summary in summaries for name in summary.accuracy))
    accuracy, call_rate, call_ratio = "accuracy (%)", "call rate (%)", "call ratio (%)"
    columns = [Column(accuracy, names.get(b, b), [s.accuracy.get(b) for s in summaries], 1) for b in benchmarks]
    if len(benchmarks) > 1:
        columns.append(Column(accuracy, "average", [s.mean_accuracy for s in summaries], 1))
    columns += [Column(call_rate, names.get(b, b), [s.call_rate.get(b) for s in summaries], 1) for b in benchmarks]
    columns.append(Column(call_ratio, "mean", [s.call_ratio for s in summaries], 2))
    columns.append(Column(call_ratio, "pooled", [s.pooled_call_ratio for s in summaries], 2))
    columns.append(Column("", "responses", [s.num_responses for s in summaries]))
    if any(summary.num_failed for summary in summaries):
        columns.append(Column("", "not completed", [s.num_failed for s in summaries]))
    return columns


def to_markdown(summaries: Sequence[ConditionSummary], names: Mapping[str, str] = {}) -> str:
    """The summaries as one Markdown table, a row a condition, without a final line break.

    Args:
        summaries: what `summarize` gives.
        names: other names to show for conditions and benchmarks.
    """
    columns = make_columns(summaries, names)
    table = [["condition", *(f"{column.label} {column.group}".strip() for column in columns)]]
    conditions = [names.get(summary.condition, summary.condition) for summary in summaries]
    table += [list(row) for row in zip(conditions, *(column.cells() for column in columns), strict=True)]
    table = [[" ".join(cell.split()).replace("|", "\\|") for cell in row] for row in table]
    widths = [max(3, *map(len, cells)) for cells in zip(*table, strict=True)]
    lines = []
    for first, *others in table:
        padded = [cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True)]
        lines.append(f"| {' | '.join([first.ljust(widths[0]), *padded])} |")
    rule = [":" + "-" * (widths[0] - 1), *("-" * (width - 1) + ":" for width in widths[1:])]
    lines.insert(1, f"| {' | '.join(rule)} |")
    return "\n".join(lines)


def gap_recovered(
    summaries: Iterable[ConditionSummary], *, student: str, teacher: str, relay: str, benchmark: str
) -> float:
    """How much of the way from the student's accuracy to the teacher's the relay goes: (relay - student) / (teacher -
    student). NaN where the two do equally well: there is no way to go.

    Args:
        student, teacher, relay: names of conditions.
        benchmark: name of the benchmark.

    Raises:
        ValueError: no such condition or benchmark; lists the valid ones.
    """
    by_name = {summary.condition: summary for summary in summaries}
    accuracies = []
    for role, name in (("student", student), ("teacher", teacher), ("relay", relay)):
        if name not in by_name:
            raise ValueError(f"{role}: {name!r} is not one of {', '.join(map(repr, by_name))}")
        if benchmark not in by_name[name].accuracy:
            known = ", ".join(map(repr, by_name[name].accuracy))
            raise ValueError(f"benchmark: {benchmark!r} is not one of {known}, the benchmarks of {name!r}")
        accuracies.append(by_name[name].accuracy[benchmark])
    of_student, of_teacher, of_relay = accuracies
    gap = of_teacher - of_student
    return (of_relay - of_student) / gap if gap else math.nan
