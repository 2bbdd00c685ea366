"""Accuracy against the teacher's share of the tokens, for every condition of a pair that the paper has no numbers for.

As Figure 1, with the line of the random router between the two models, and the accuracy of each of them as a line to
compare with.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from relay_verl.pictures import STUDENT, TEACHER, dress, reference_line
from relay_verl.recipes.paper import paper
from relay_verl.report.colours import colours_of, kind_of
from relay_verl.report.comparison import estimate_of
from relay_verl.report.conditions import names_of
from relay_verl.report.document import Picture
from relay_verl.report.drawing import SOFT, draw
from relay_verl.report.figures import MARKERS, error_bar, file_name
from relay_verl.report.groups import Groups
from relay_verl.report.statistics import Estimate, average_call_ratio, estimate

_NOTE = (
    "With 95% intervals of both. The random router's accuracy is linear in its share: a condition above the line does "
    "better than giving the teacher as large a share of whole questions at random. Conditions in which the teacher "
    "writes nothing stand side by side at 0."
)


def share_figure(groups: Groups, size: str) -> Picture | None:
    """The picture; None if no condition was measured on all benchmarks of the size's average."""
    facts = paper().sizes[size]
    shown = [group for group in groups.of_size(size) if estimate_of(group, facts.average)]
    if not shown:
        return None
    accuracies = [estimate_of(group, facts.average) for group in shown]
    shares = [estimate(average_call_ratio(group.records, group.average)) for group in shown]
    ends = [groups.find(name) for name in (f"{size}/base", facts.teacher)]
    student, teacher = (estimate_of(group, facts.average) if group else None for group in ends)

    def paint(figure: Figure) -> None:
        axis = figure.subplots()
        dress(axis, x="teacher's share of the tokens (%), linear below 1", y="accuracy (%)")
        # each name stands where its line meets no condition: the student's at the right, the teacher's at the left
        for made, name, colour, side in (
            (student, "student alone", STUDENT, "right"),
            (teacher, "teacher alone", TEACHER, "left"),
        ):
            if made:
                reference_line(axis, 100 * made.value, name, colour, side=side, ink=SOFT)
        if student and teacher:
            line = np.concatenate([np.linspace(0, 1, 20), np.geomspace(1, 100, 60)])
            router = [100 * (student.value + share / 100 * (teacher.value - student.value)) for share in line]
            axis.plot(line, router, "--", color=SOFT, linewidth=1.2, label="random router, any share")
        num_at_zero = 0
        colours = colours_of([kind_of(group.method, group.policy) for group in shown])
        for number, (name, share, made) in enumerate(zip(names_of(shown), shares, accuracies, strict=True)):
            place = 100 * share.value
            if not place:
                place = 0.05 * num_at_zero
                num_at_zero += 1
            style: dict[str, Any] = {
                "color": colours[number],
                "marker": MARKERS[number % len(MARKERS)],
            }
            if made:
                error_bar(axis, place, made, label=name, markersize=7, **style)
                _share_bar(axis, share, made, style["color"])
        axis.set_xscale("symlog", linthresh=1.0, linscale=0.6)
        axis.set_xlim(-0.15, 130)
        axis.set_xticks([0, 0.5, 1, 3, 10, 30, 100], labels=["0", "0.5", "1", "3", "10", "30", "100"])
        axis.minorticks_off()
        figure.legend(loc="outside lower center", ncols=2, fontsize=8)

    title = f"Accuracy against the teacher's share of the tokens, {facts.title}"
    svg = draw(paint, size=(7.2, 3.9 + 0.09 * len(shown)))
    return Picture(f"shares_{file_name(size)}", title, svg, _NOTE)


def _share_bar(axis: Any, share: Estimate, made: Estimate, colour: str) -> None:
    """The interval of the share, across."""
    if share.high > share.low:
        reach = [[100 * max(0.0, share.value - share.low)], [100 * max(0.0, share.high - share.value)]]
        axis.errorbar(
            100 * share.value,
            100 * made.value,
            xerr=reach,
            linestyle="none",
            elinewidth=1.0,
            capsize=2.0,
            color=colour,
        )
