"""Accuracy by the difficulty of questions, with the teacher and without it: who solves what, and where help pays."""

from __future__ import annotations

from typing import Any

from matplotlib.figure import Figure

from relay_verl.pictures import dress
from relay_verl.report.colours import colours_of, kind_of
from relay_verl.report.comparison import NONE
from relay_verl.report.conditions import with_interval
from relay_verl.report.document import Picture, Table
from relay_verl.report.drawing import draw
from relay_verl.report.figures import MARKERS, error_bar
from relay_verl.report.learned_data import Pair, right

_SPREAD = 0.06
"""How far apart conditions stand at one level, so that no interval hides another."""


def grades_table(pair: Pair, key: str) -> Table:
    """A line for each condition, a column for each level."""
    levels = pair.levels(key)
    rows = []
    for group, name in pair.names.items():
        accuracies = [pair.at(group, key, level, right) for level in levels]
        rows.append((name, *(with_interval(one, 1) if one else NONE for one in accuracies)))
    head = ("condition", *(f"{key} {level.label}" for level in levels))
    return Table(f"Accuracy by {key} (%)", head, tuple(rows), note="In parentheses the 95% interval.")


def grades_figure(pair: Pair, key: str) -> Picture | None:
    """A line for each condition over the levels; None if there is one level alone."""
    levels = pair.levels(key)
    if len(levels) < 2:
        return None

    def paint(figure: Figure) -> None:
        axis = figure.subplots()
        dress(axis, x=key, y="accuracy (%)")
        colours = colours_of([kind_of(group.method, group.policy) for group in pair.names])
        for number, (group, name) in enumerate(pair.names.items()):
            style: dict[str, Any] = {
                "color": colours[number],
                "marker": MARKERS[number % len(MARKERS)],
                "markersize": 5.5,
            }
            shift = _SPREAD * (number - (len(pair.names) - 1) / 2)
            values = {place: pair.at(group, key, level, right) for place, level in enumerate(levels)}
            places = [place + shift for place, value in values.items() if value]
            axis.plot(places, [100 * value.value for value in values.values() if value], linewidth=1.4, **style)
            for place, value in values.items():
                if value:
                    error_bar(axis, place + shift, value, **style)
            axis.plot([], [], linewidth=1.4, label=name, **style)
        axis.set_xticks(range(len(levels)), [level.label for level in levels])
        axis.set_ylim(-2, 102)
        figure.legend(loc="outside lower center", ncols=2, fontsize=8)

    svg = draw(paint, size=(7.2, 3.6 + 0.11 * len(pair.names)))
    note = "With 95% intervals; conditions stand side by side at each level."
    return Picture("grades", f"Accuracy by {key}, with the teacher and without", svg, note)
