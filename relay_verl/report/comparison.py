"""Tables of the paper's numbers next to ours: the number, its 95% interval, the difference (Tables 1 to 6, Figure 3).

Where the paper has no numbers, as for pairs of our own, the same tables hold ours alone.

Two call ratios stand side by side, because the paper does not define its "Avg. Call Ratio". The one that is compared
with the paper's number, 'call_ratio', is the mean over benchmarks of the teacher's share of the tokens, as the column's
name says and as the "Average" before it is taken; 'pooled_call_ratio' is the share in all tokens together ("of the
total generated tokens", 1), in which AIME's 1,920 long responses outweigh the 2,766 others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

from relay_verl.recipes.attempts import Attempt, attempts_at
from relay_verl.recipes.paper import find_row, paper
from relay_verl.report.document import Table
from relay_verl.report.groups import Group, Groups
from relay_verl.report.harmonic import HARMONIC_BENCHMARKS
from relay_verl.report.statistics import (
    Estimate,
    Measure,
    accuracy,
    average_call_ratio,
    call_rate,
    estimate,
    harmonic_accuracy,
    has_tasks,
    pooled_call_ratio,
)
from relay_verl.traces.words import has_both

NOT_MEASURED = "not measured"
NONE = "–"
HARMONIC = " harmonic mean"
"""Behind a benchmark's name: the measure of its official score."""
RATIOS = ("call_ratio", "pooled_call_ratio")
"""Both call ratios, the paper's first."""
_RATES = {"call_ratio": average_call_ratio, "pooled_call_ratio": pooled_call_ratio, "call_rate": call_rate}
_NAMES = {
    "easy": "Easy",
    "hard": "Hard",
    "call_ratio": "Avg. call ratio",
    "pooled_call_ratio": "Pooled call ratio",
    "call_rate": "Call rate",
}


def measure_of(group: Group, measure: str) -> Measure | None:
    """A measure of a group; None if its benchmarks were not all measured or if no one could call.

    Args:
        group: the results.
        measure: a benchmark, a mean of benchmarks, a benchmark's name with HARMONIC behind it, 'call_ratio',
            'pooled_call_ratio' or 'call_rate'; the last three are over
            the benchmarks of the size's average.
    """
    if measure.endswith(HARMONIC):
        name = measure.removesuffix(HARMONIC)
        is_known = name in HARMONIC_BENCHMARKS and all(has_tasks(records, name) for records in group.records)
        return harmonic_accuracy(group.records, name) if is_known else None
    benchmarks = paper().groups.get(measure, (measure,))
    if measure in _RATES or (group.size_facts and measure == group.size_facts.average):
        benchmarks = group.average
    if not set(benchmarks) <= set(group.benchmarks) or (measure in _RATES and not can_call(group)):
        return None
    return _RATES.get(measure, accuracy)(group.records, benchmarks)


@cache
def estimate_of(group: Group, measure: str) -> Estimate | None:
    """`measure_of` with its interval."""
    measured = measure_of(group, measure)
    return None if measured is None else estimate(measured)


def can_call(group: Group) -> bool:
    """Whether a call ratio means anything for the group."""
    return has_both(group.policy) and (group.teacher is not None or group.method not in ("base", "grpo", "teacher"))


@dataclass(frozen=True)
class Line:
    """A row of a table of the paper."""

    label: str
    """What the table calls it."""
    theirs: Mapping[str, float]
    """The paper's numbers in percent, by measure."""
    ours: Group | None
    """Our results; None if there are none."""
    thinking: Group | None = None
    """The same in the thinking mode of the chat template, where `ours` is without."""
    attempts: tuple[Attempt, ...] = ()
    """What others measured of it."""


def table_line(groups: Groups, table: str, row: str, *, policy: str | None = None, label: str = "") -> Line:
    """The line of a row in a table of the paper."""
    ours, thinking = groups.find(row, policy), groups.thinking.find(row, policy)
    return Line(
        label or find_row(row).title,
        paper().find(table, row, policy=policy),
        ours,
        None if thinking is ours else thinking,
        attempts_at(row) if policy is None else (),
    )


def compare(title: str, lines: Sequence[Line], measures: Sequence[str], *, note: str = "") -> Table:
    """The paper's numbers and ours, in percent and percentage points."""
    rows: list[tuple[str, ...]] = []
    is_measured = any(line.ours and estimate_of(line.ours, measure) for line in lines for measure in measures)
    for line in lines:
        made = _cells(line, measures)
        rows += [(line.label if number == 0 else "", *cells) for number, cells in enumerate(made)]
    head = ("", "", *(f"{name_of(measure)}{_avg_at(measure)}" for measure in measures))
    notes = (note, *_other_samples(lines, measures))
    return Table(title, head, tuple(rows), num_labels=2, note=" ".join(filter(None, notes)), is_measured=is_measured)


def name_of(measure: str) -> str:
    """What tables call a measure or a benchmark."""
    if measure.endswith(HARMONIC):
        return f"{name_of(measure.removesuffix(HARMONIC))}{HARMONIC}"
    if any(size.average == measure for size in paper().sizes.values()):
        return "Average"
    return _NAMES.get(measure) or (paper().benchmarks[measure].title if measure in paper().benchmarks else measure)


def _avg_at(measure: str) -> str:
    """' avg@k' where the paper has k responses to each question of the benchmark."""
    num_samples = paper().benchmarks[measure].num_samples if measure in paper().benchmarks else 1
    return f" avg@{num_samples}" if num_samples > 1 else ""


def _other_samples(lines: Sequence[Line], measures: Sequence[str]) -> list[str]:
    """Which of the benchmarks we measured with another number of responses a question than the paper."""
    notes = []
    benchmarks = dict.fromkeys(name for measure in measures for name in paper().groups.get(measure, (measure,)))
    for name in benchmarks:
        numbers = {line.ours.num_samples[name] for line in lines if line.ours and name in line.ours.num_samples}
        expected = paper().benchmarks[name].num_samples if name in paper().benchmarks else 1
        if others := sorted(numbers - {expected}):
            notes.append(f"Ours on {name_of(name)} is avg@{'/'.join(map(str, others))}, not avg@{expected}.")
    return notes


def _cells(line: Line, measures: Sequence[str]) -> list[tuple[str, ...]]:
    lines: list[tuple[str, ...]] = []
    if line.theirs:
        printed = [f"{line.theirs[measure]:.2f}" if measure in line.theirs else NONE for measure in measures]
        lines.append(("paper", *printed))
    for attempt in line.attempts:
        printed = [f"{attempt.values[name]:.2f}" if name in attempt.values else NONE for name in measures]
        if set(printed) != {NONE}:
            lines.append((attempt.label, *printed))
    if line.ours is None:
        return [*lines, ("ours", NOT_MEASURED)]
    lines += _our_cells(line.ours, line.theirs, measures)
    return lines + (_our_cells(line.thinking, line.theirs, measures) if line.thinking else [])


def _our_cells(group: Group, printed: Mapping[str, float], measures: Sequence[str]) -> list[tuple[str, ...]]:
    """Ours, with its interval and the difference to what the paper prints."""
    ours = {measure: estimate_of(group, measure) for measure in measures}
    name = f"ours, {len(group.seeds)} seeds" if len(group.seeds) > 1 else "ours"
    name = f"{name}, thinking" if group.is_thinking else name
    empty = [NONE if measure in _RATES and not can_call(group) else NOT_MEASURED for measure in measures]
    pairs = list(zip(ours.values(), empty, strict=True))
    rows = [(name, *(f"{100 * one.value:.2f}" if one else word for one, word in pairs))]
    if any(ours.values()):
        rows.append(("95% interval", *(interval(one) if one else "" for one in ours.values())))
    if any(one and measure in printed for measure, one in ours.items()):
        apart = [100 * one.value - printed[m] if one and m in printed else None for m, one in ours.items()]
        rows.append(("difference", *("" if value is None else f"{value:+.2f}" for value in apart)))
    return rows


def interval(made: Estimate) -> str:
    """The interval in percent."""
    return f"{100 * made.low:.2f}–{100 * made.high:.2f}"
