"""How much the student asks for against what its questions need: does it learn n (paper 2.1, 3.2)?

The rank correlation asks for the order alone: more where more is needed. "All questions" has 0 for a response without a
call, so it also asks whether the student calls where it has to; "with a call" is about the number alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from relay_verl.pictures import dress
from relay_verl.report.colours import colours_of, kind_of
from relay_verl.report.comparison import NONE
from relay_verl.report.conditions import with_interval
from relay_verl.report.document import Picture, Table
from relay_verl.report.drawing import CARD, INK, SOFT, draw
from relay_verl.report.groups import Group
from relay_verl.report.learned_data import Pair, mean_by_question
from relay_verl.report.levels import Level
from relay_verl.report.rank_correlation import rank_correlation
from relay_verl.report.statistics import Estimate
from relay_verl.traces.records import ResponseRecord

_CORRELATION = (
    "Spearman's rank correlation of the tokens that a question needs and n, the tokens that its response asks for; in "
    "parentheses the 95% interval. A response without a call has n = 0 in the first column and is left out of the "
    "second. Over the questions that need at least one token."
)
NOT_DEFINED = "not defined"
"""In place of a correlation where all n are the same, as they are for calls of a fixed length."""


def num_asked(record: ResponseRecord) -> float:
    """n of a response."""
    return float(record.num_requested_tokens)


def correlation(pair: Pair, group: Group, key: str, *, with_call: bool) -> tuple[Estimate | None, int]:
    """The rank correlation of one condition, and over how many questions of its first seed. A question that needs 0
    tokens is left out: it may be one that the student solves alone, or one that no token of the teacher's solves.

    Args:
        pair: what was measured.
        group: the condition.
        key: the number of tokens that a question needs.
        with_call: whether responses without a call are left out.
    """
    seeds = [
        mean_by_question(
            [record for record in records if record.num_calls or not with_call],
            lambda record: pair.numbers.of(record, key) or None,
            num_asked,
        )
        for records in group.records
    ]
    return rank_correlation(seeds), len(seeds[0])


def correlations_table(pair: Pair, key: str) -> Table:
    """A line for each condition in which the student calls."""
    rows = []
    for group in pair.callers:
        cells = []
        for with_call in (False, True):
            value, num_questions = correlation(pair, group, key, with_call=with_call)
            cells += [f"{num_questions:,}", NOT_DEFINED if value is None else with_bounds(value)]
        rows.append((pair.names[group], *cells))
    head = ("condition", "questions", "rank correlation, all", "with a call", "rank correlation, with a call")
    return Table("The n that was learned against the tokens needed", head, tuple(rows), note=_CORRELATION)


def with_bounds(value: Estimate) -> str:
    """A correlation and its interval."""
    return f"{value.value:+.2f} ({value.low:+.2f} to {value.high:+.2f})"


def lengths_table(pair: Pair, key: str, what: str) -> Table:
    """For each level of a number: who calls, for how many tokens, with which result."""
    rows: list[tuple[str, ...]] = []
    for group in pair.callers:
        for number, level in enumerate(pair.levels(key)):
            label = pair.names[group] if number == 0 else ""
            rows.append((label, level.label, *_cells(pair, group, key, level)))
    head = ("condition", what, "responses", "call rate (%)", "n, mean", "n, median", "delivered, mean", "right (%)")
    note = "n and delivered are tokens of the responses that call. In parentheses the 95% interval."
    return Table(f"Calls by {what}", head, tuple(rows), num_labels=2, note=note)


def _cells(pair: Pair, group: Group, key: str, level: Level) -> tuple[str, ...]:
    records = [one for records in group.records for one in records if level.has(pair.numbers.of(one, key))]
    called = [record for record in records if record.num_calls]
    rate = pair.at(group, key, level, lambda record: (record.num_calls > 0, 1))
    right = pair.at(group, key, level, lambda record: (record.is_correct, 1))
    numbers = [NONE] * 3
    if called:
        asked = [num_asked(record) for record in called]
        delivered = fmean(record.num_teacher_tokens for record in called)
        numbers = [f"{fmean(asked):.1f}", f"{np.median(asked):g}", f"{delivered:.1f}"]
    shares = [with_interval(share, 1) if share else NONE for share in (rate, right)]
    return (f"{len(records):,}", shares[0], *numbers, shares[1])


def lengths_figure(pair: Pair, key: str) -> Picture | None:
    """n against the tokens needed: a circle for each pair of numbers, as large as it is frequent, and each level's
    median; None if no one called."""
    points = {group: _points(pair, group, key) for group in pair.callers}
    points = {group: values for group, values in points.items() if len(values)}
    if not points:
        return None
    num_columns = min(3, len(points))
    num_rows = -(-len(points) // num_columns)

    def paint(figure: Figure) -> None:
        axes = figure.subplots(num_rows, num_columns, sharex=True, sharey=True, squeeze=False)
        colours = colours_of([kind_of(group.method, group.policy) for group in points])
        most = max(float(values.max()) for values in points.values())
        for number, axis in enumerate(axes.flat):
            if number >= len(points):
                axis.set_axis_off()
                continue
            group, values = list(points.items())[number]
            is_lowest = number + num_columns >= len(points)
            dress(axis, pair.names[group], x="tokens needed" if is_lowest else "")
            axis.tick_params(labelbottom=is_lowest)
            if number % num_columns == 0:
                axis.set_ylabel("n: tokens asked for")
            axis.plot([0, most], [0, most], "--", color=SOFT, linewidth=1.0, zorder=1)
            _paint_points(axis, values, colours[number], pair.levels(key))
            axis.set_xscale("symlog", linthresh=1.0)
            axis.set_yscale("symlog", linthresh=1.0)
            ticks = [tick for tick in (0, 1, 3, 10, 30, 100, 300, 1000, 3000, 10000) if tick <= 1.2 * most]
            for side in (axis.xaxis, axis.yaxis):
                side.set_ticks(ticks, labels=[f"{tick:g}" for tick in ticks])
                side.set_minor_locator(NullLocator())

    note = (
        "A circle for each pair of numbers, its area by how many responses have it; responses without a call are at 0. "
        "Bars: each level's median. Dashed: n as needed."
    )
    svg = draw(paint, size=(2.9 * num_columns + 0.8, 2.9 * num_rows + 0.3))
    return Picture("lengths", "The n that was learned against the tokens needed", svg, note)


def _points(pair: Pair, group: Group, key: str) -> np.ndarray:
    """Tokens needed and n of every response, [num_responses, 2]."""
    pairs = [
        (needed, num_asked(record))
        for records in group.records
        for record in records
        if (needed := pair.numbers.of(record, key)) is not None
    ]
    return np.asarray(pairs, dtype=float).reshape(len(pairs), 2)


def _paint_points(axis: Any, values: np.ndarray, colour: str, levels: Sequence[Level]) -> None:
    spots, counts = np.unique(values, axis=0, return_counts=True)
    areas = 14 + 320 * counts / counts.max()
    axis.scatter(*spots.T, s=areas, color=colour, alpha=0.45, edgecolors=CARD, linewidths=0.5, zorder=2)
    for level in levels:
        inside = values[(values[:, 0] >= level.low) & (values[:, 0] <= level.high)]
        if len(inside):
            place = float(np.median(inside[:, 0]))
            axis.plot(
                place,
                float(np.median(inside[:, 1])),
                "_",
                color=INK,
                markersize=13,
                markeredgewidth=2.2,
                zorder=3,
            )
