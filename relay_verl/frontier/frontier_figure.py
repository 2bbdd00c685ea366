"""Accuracy against one kind of cost, for every method, with the convex hull."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from relay_verl.frontier.axis import WORDS, Axis, Ledger
from relay_verl.frontier.hull import height_at
from relay_verl.frontier.point import Point
from relay_verl.frontier.standing import Position, Standing
from relay_verl.pictures import NEITHER, OTHERS, colour_of, dress
from relay_verl.policies import find_policy
from relay_verl.report.document import Picture
from relay_verl.report.drawing import CARD, SOFT, draw
from relay_verl.report.figures import MARKERS, error_bar

WIDE_RANGE = 50
"""Ratio of the largest cost to the smallest one above 0 from which the axis is logarithmic."""
_NOTE = (
    "With 95% intervals of both. The grey line is the convex hull: a random mixture of two neighbours on it reaches "
    "every point between them. Filled: a corner of the hull. Hollow: dominated, or under the hull. Methods of one "
    "colour have one kind of policy: blue is the student alone, amber the teacher alone, green the relay."
)


def frontier_figure(standings: Sequence[Standing], axis: Axis, ledger: Ledger) -> Picture:
    """The picture of an axis."""
    points = [one.point for one in standings]
    costs = [point.place(axis)[0] for point in points]
    positive = [cost for cost in costs if cost > 0]
    is_wide = bool(positive) and max(positive) > WIDE_RANGE * min(positive)
    colours = colours_of(points)

    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        dress(axes, x=f"{ledger.unit(axis)}{', logarithmic' if is_wide else ''}", y="accuracy (%)")
        if is_wide:
            axes.set_xscale("symlog", linthresh=min(positive), linscale=0.5)
        _draw_hull(axes, standings, axis)
        for index, (one, colour) in enumerate(zip(standings, colours, strict=True)):
            is_corner = one.position is Position.HULL
            style: dict[str, Any] = {
                "color": colour,
                "marker": MARKERS[index % len(MARKERS)],
                "markerfacecolor": colour if is_corner else CARD,
                "markersize": 7,
            }
            error_bar(axes, costs[index], one.point.accuracy_estimate, label=one.point.name, **style)
            _cost_bar(axes, one.point, axis, colour)
        axes.set_xlim(left=0 if min(costs) > 0 and not is_wide else None)
        figure.legend(loc="outside lower center", ncols=2, fontsize=8)

    title = f"Accuracy against {WORDS[axis].title}"
    svg = draw(paint, size=(7.2, 4.2 + 0.1 * len(points)))
    return Picture(f"frontier_{axis}", title, svg, _NOTE)


def colours_of(points: Sequence[Point]) -> list[str]:
    """A colour for each kind of policy: that of its author, or one of the others in turn."""
    rest = (*OTHERS, NEITHER)
    kinds: list[str] = []
    colours = []
    for point in points:
        is_routed = point.method.routed_share is not None
        kind = find_policy(point.method.policy).kind
        author = "other" if is_routed else kind.author
        if author == "other":
            name = "query router" if is_routed else kind.__name__
            if name not in kinds:
                kinds.append(name)
            colours.append(colour_of("other", rest, kinds.index(name)))
        else:
            colours.append(colour_of(author))
    return colours


def _draw_hull(axes: Axes, standings: Sequence[Standing], axis: Axis) -> None:
    """The hull, densely sampled: on a logarithmic axis a mixture is not a straight line."""
    corners = sorted(one.point.place(axis) for one in standings if one.position is Position.HULL)
    for left, right in pairwise(corners):
        if right[0] > left[0]:
            # a straight line in cost, with more points where a logarithmic axis is wide
            costs = left[0] + (right[0] - left[0]) * np.concatenate([[0.0], np.geomspace(1e-4, 1.0, 60)])
            heights = [100 * height_at(float(cost), left, right) for cost in costs]
            axes.plot(costs, heights, color=SOFT, linewidth=1.2, zorder=1.5)


def _cost_bar(axes: Axes, point: Point, axis: Axis, colour: str) -> None:
    """The interval of the cost, across."""
    cost = point.cost_estimates[axis]
    if cost.high > cost.low:
        reach = [[max(0.0, cost.value - cost.low)], [max(0.0, cost.high - cost.value)]]
        height = 100 * point.accuracy_estimate.value
        axes.errorbar(
            cost.value, height, xerr=reach, linestyle="none", elinewidth=1.0, capsize=2.0, color=colour, zorder=1.8
        )
