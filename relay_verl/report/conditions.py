"""All conditions that were measured, named in words: what each got right, who wrote how much, how long it took.

Invariant: every group that is given has its line, whatever its row. An accuracy is over the benchmarks of the size's
average where all of them were measured, else over the benchmarks that were; lines over different benchmarks say so.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from statistics import fmean

from relay_verl.report.comparison import NONE, can_call, name_of
from relay_verl.report.document import Table
from relay_verl.report.groups import Group
from relay_verl.report.statistics import (
    Estimate,
    accuracy,
    call_rate,
    estimate,
    mean_call_ratio,
    pooled_call_ratio,
)
from relay_verl.traces.consumption import cost

_NOTE = (
    "In parentheses the 95% interval. Call rate: responses that called, or that a random router gave to the teacher. "
    "Call ratio: the teacher's tokens over all tokens together (pooled), and the mean of rho over responses (mean). "
    "Tokens are per response; seconds are those in which some response was under way."
)
_HEAD = (
    "right",
    "accuracy (%)",
    "call rate (%)",
    "call ratio, pooled (%)",
    "call ratio, mean (%)",
    "student's tokens",
    "teacher's tokens",
    "seconds",
)


def conditions_table(title: str, groups: Sequence[Group]) -> Table:
    """A line for each group, those of one model together."""
    shown = by_family(groups)
    benchmarks = {benchmarks_of(group) for group in shown}
    is_one_exam = len(benchmarks) == 1
    head, labels = labels_of(shown)
    if not is_one_exam:
        head = (*head, "questions of")
        labels = [(*label, _describe(benchmarks_of(group))) for label, group in zip(labels, shown, strict=True)]
    rows = [(*label, *_cells(group)) for label, group in zip(labels, shown, strict=True)]
    over = f"Over {_describe(next(iter(benchmarks)))}. " if is_one_exam else "Accuracy is the mean over benchmarks. "
    teachers = {group.teacher for group in shown if group.teacher}
    helper = f"The teacher is {teachers.pop()}. " if len(teachers) == 1 else ""
    note = f"{over}{helper}{_NOTE}"
    return Table(title, (*head, *_HEAD), tuple(rows), num_labels=len(head), note=note)


def benchmarks_table(title: str, groups: Sequence[Group]) -> Table | None:
    """Accuracy on each benchmark; None where no group has more than one."""
    shown = by_family(groups)
    benchmarks = list(dict.fromkeys(name for group in shown for name in group.benchmarks))
    if all(len(group.benchmarks) < 2 for group in shown):
        return None
    head, labels = labels_of(shown)
    rows = []
    for label, group in zip(labels, shown, strict=True):
        cells = [
            with_interval(estimate(accuracy(group.records, [one])), 1) if one in group.benchmarks else NONE
            for one in benchmarks
        ]
        rows.append((*label, *cells))
    note = "In parentheses the 95% interval."
    return Table(title, (*head, *map(name_of, benchmarks)), tuple(rows), num_labels=len(head), note=note)


def by_family(groups: Sequence[Group]) -> list[Group]:
    """The groups in order, those of one model together."""
    families = list(dict.fromkeys(group.family for group in groups))
    return sorted(groups, key=lambda group: families.index(group.family))


def labels_of(groups: Sequence[Group]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """The columns that name each line, and their cells: the condition, and before it the model where there are several.

    The groups are `by_family`; a model stands in the first of its lines.
    """
    names = names_of(groups)
    if len({group.family for group in groups}) < 2:
        return ("condition",), [(name,) for name in names]
    families = ["", *(group.family for group in groups)]
    models = [family if family != before else "" for before, family in itertools.pairwise(families)]
    return ("model", "condition"), list(zip(models, names, strict=True))


def names_of(groups: Sequence[Group]) -> list[str]:
    """The conditions in words; the teacher, then the folder, tell apart those that would have one name."""
    names = [group.words for group in groups]
    hints: list[Callable[[Group], str]] = [
        lambda group: f", with {group.teacher}" if group.teacher else "",
        lambda group: f" ({', '.join(result.folder.name for results in group.seeds for result in results)})",
    ]
    for hint in hints:
        counts = Counter((group.family, name) for group, name in zip(groups, names, strict=True))
        names = [
            f"{name}{hint(group)}" if counts[group.family, name] > 1 else name
            for group, name in zip(groups, names, strict=True)
        ]
    return [
        f"{name}, {len(group.seeds)} seeds" if len(group.seeds) > 1 else name
        for group, name in zip(groups, names, strict=True)
    ]


def benchmarks_of(group: Group) -> tuple[str, ...]:
    """The benchmarks that a group's accuracy is over."""
    return group.average if set(group.average) <= set(group.benchmarks) else group.benchmarks


def with_interval(made: Estimate, num_decimals: int) -> str:
    """The value in percent and its interval, if it has a width."""
    value, low, high = (f"{100 * share:.{num_decimals}f}" for share in (made.value, made.low, made.high))
    return f"{value} ({low}–{high})" if made.low < made.high else value


def _describe(benchmarks: tuple[str, ...]) -> str:
    return name_of(benchmarks[0]) if len(benchmarks) == 1 else f"{len(benchmarks)} benchmarks"


def _cells(group: Group) -> list[str]:
    benchmarks = benchmarks_of(group)
    counted = [record for records in group.records for record in records if record.benchmark in benchmarks]
    parts = [cost(result.records) for results in group.seeds for result in results if result.records]
    wall = sum(part.wall_s for part in parts)
    # a condition that cannot call has its call rate by construction, the others have measured theirs
    rate = replace(call_rate(group.records, benchmarks), is_proportion=can_call(group))
    shares = [
        (accuracy(group.records, benchmarks), 1),
        (rate, 1),
        (pooled_call_ratio(group.records, benchmarks), 2),
        (mean_call_ratio(group.records, benchmarks), 2),
    ]
    return [
        f"{sum(record.is_correct for record in counted):,} of {len(counted):,}",
        *(with_interval(estimate(measured), decimals) for measured, decimals in shares),
        f"{fmean(record.num_tokens - record.num_teacher_tokens for record in counted):,.1f}",
        f"{fmean(record.num_teacher_tokens for record in counted):,.1f}",
        f"{wall:,.0f}" if wall else NONE,
    ]
