"""What the records of an evaluation add up to: one row a condition, as in the paper's Table 1. Pure.

Accuracy counts every response: one that was not completed is judged by what it says, and the table tells how many such
responses there are. It is by rule; where every response has an LLM judge's verdict, too, columns by judge follow. The
average is the mean over benchmarks, as in the paper, so that the 32 samples a question of AIME weigh no more than one
of another benchmark; a condition that lacks one of the table's benchmarks has no average.

The call ratio comes in three forms:

- average: teacher tokens over all tokens of each benchmark, averaged over benchmarks: the paper's "Avg. Call Ratio";
- pooled: teacher tokens over all tokens of all benchmarks together, in which the longest responses weigh most;
- mean: rho averaged over responses, which the reward charges (Eq. 3).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from relay_verl.markdown import markdown_table
from relay_verl.report.harmonic import HARMONIC_BENCHMARKS
from relay_verl.report.statistics import (
    accuracy,
    average_call_ratio,
    call_rate,
    harmonic_accuracy,
    has_tasks,
    mean_call_ratio,
    pooled_call_ratio,
)
from relay_verl.traces.records import ResponseRecord
from relay_verl.traces.verdicts import VerdictsBy, is_for_judge, take_verdicts, verdict_of


@dataclass(frozen=True)
class ConditionSummary:
    """One condition over all its responses. Every share is between 0 and 1."""

    condition: str
    """Its name."""
    num_responses: int
    """Responses, all benchmarks together."""
    num_failed: int
    """Responses that are not whole."""
    num_samples: Mapping[str, int]
    """Most responses to one question, by benchmark: k of avg@k."""
    accuracy: Mapping[str, float]
    """Share of right answers by rule, by benchmark in order of first appearance."""
    judged_accuracy: Mapping[str, float] | None
    """The same by LLM judge; None unless it gave a verdict on every response that it decides on."""
    harmonic_accuracy: Mapping[str, float]
    """The adjusted harmonic mean over tasks by rule, for benchmarks that have it and whose tasks are known."""
    call_rate: Mapping[str, float]
    """Share of responses that called by benchmark."""
    overall_accuracy: float
    """Share of right answers over all responses."""
    overall_call_rate: float
    """Share of all responses that called."""
    call_ratio: float
    """Mean of rho over responses."""
    pooled_call_ratio: float
    """All teacher tokens over all response tokens."""
    average_call_ratio: float
    """Mean over benchmarks of their teacher tokens over their response tokens."""

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
    counts = Counter((record.benchmark, record.id) for record in records)
    judged = None
    if any(map(is_for_judge, benchmarks)) and all(verdict_of(r, VerdictsBy.JUDGE) is not None for r in records):
        by_judge = take_verdicts(records, VerdictsBy.JUDGE)
        judged = {name: accuracy([by_judge], [name]).value for name in benchmarks}
    return ConditionSummary(
        condition=condition,
        num_responses=len(records),
        num_failed=sum(not record.is_completed for record in records),
        num_samples={name: max(num for (of, _), num in counts.items() if of == name) for name in benchmarks},
        accuracy={name: accuracy([records], [name]).value for name in benchmarks},
        judged_accuracy=judged,
        harmonic_accuracy={
            name: harmonic_accuracy([records], name).value
            for name in benchmarks
            if name in HARMONIC_BENCHMARKS and has_tasks(records, name)
        },
        call_rate={name: call_rate([records], [name]).value for name in benchmarks},
        overall_accuracy=fmean(record.is_correct for record in records),
        overall_call_rate=fmean(record.has_called for record in records),
        call_ratio=mean_call_ratio([records], benchmarks).value,
        pooled_call_ratio=pooled_call_ratio([records], benchmarks).value,
        average_call_ratio=average_call_ratio([records], benchmarks).value,
    )


def make_columns(summaries: Sequence[ConditionSummary], names: Mapping[str, str] = {}) -> list[Column]:
    """The table's columns after the conditions' names; `names` gives benchmarks another name to show."""
    benchmarks = list(dict.fromkeys(name for summary in summaries for name in summary.accuracy))
    labels = {name: f"{names.get(name, name)}{_avg_at(summaries, name)}" for name in benchmarks}
    by_rule, by_judge = "accuracy by rule (%)", "accuracy by judge (%)"
    columns = []
    for name in benchmarks:
        columns.append(Column(by_rule, labels[name], [s.accuracy.get(name) for s in summaries], 1))
        harmonic = [s.harmonic_accuracy.get(name) for s in summaries]
        if any(value is not None for value in harmonic):
            columns.append(Column(by_rule, f"{names.get(name, name)} harmonic mean", harmonic, 1))
    columns += _average(by_rule, benchmarks, [s.accuracy for s in summaries])
    judged = [s.judged_accuracy or {} for s in summaries]
    if any(judged):
        columns += [Column(by_judge, labels[name], [one.get(name) for one in judged], 1) for name in benchmarks]
        columns += _average(by_judge, benchmarks, judged)
    call_rate, call_ratio = "call rate (%)", "call ratio (%)"
    columns += [Column(call_rate, names.get(b, b), [s.call_rate.get(b) for s in summaries], 1) for b in benchmarks]
    if len(benchmarks) > 1:
        ratios = [s.average_call_ratio if s.accuracy.keys() == set(benchmarks) else None for s in summaries]
        columns.append(Column(call_ratio, "average", ratios, 2))
    columns.append(Column(call_ratio, "pooled", [s.pooled_call_ratio for s in summaries], 2))
    columns.append(Column(call_ratio, "mean", [s.call_ratio for s in summaries], 2))
    columns.append(Column("", "responses", [s.num_responses for s in summaries]))
    if any(summary.num_failed for summary in summaries):
        columns.append(Column("", "not completed", [s.num_failed for s in summaries]))
    return columns


def _avg_at(summaries: Sequence[ConditionSummary], benchmark: str) -> str:
    """' avg@k' where a question of the benchmark has k responses, k above 1; several k where the conditions differ."""
    numbers = sorted({s.num_samples[benchmark] for s in summaries if benchmark in s.num_samples})
    return f" avg@{'/'.join(map(str, numbers))}" if numbers[-1] > 1 else ""


def _average(group: str, benchmarks: Sequence[str], accuracies: Sequence[Mapping[str, float]]) -> list[Column]:
    """The column of averages, if there is more than one benchmark; over fewer benchmarks it is another quantity."""
    if len(benchmarks) < 2:
        return []
    averages = [fmean(one.values()) if one.keys() == set(benchmarks) else None for one in accuracies]
    return [Column(group, "average", averages, 1)]


def summaries_to_markdown(summaries: Sequence[ConditionSummary], names: Mapping[str, str] = {}) -> str:
    """The summaries as one Markdown table, a row a condition, without a final line break.

    Args:
        summaries: what `summarize` gives.
        names: other names to show for conditions and benchmarks.
    """
    columns = make_columns(summaries, names)
    head = ["condition", *(f"{column.label} {column.group}".strip() for column in columns)]
    conditions = [names.get(summary.condition, summary.condition) for summary in summaries]
    rows = zip(conditions, *(column.cells() for column in columns), strict=True)
    escaped = [[cell.replace("|", "\\|") for cell in row] for row in (head, *rows)]
    return markdown_table(escaped[0], escaped[1:])


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
