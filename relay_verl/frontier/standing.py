"""What stands between a method and the frontier of an axis: the method that dominates it, or a mixture of two.

Invariant: who dominates whom is decided by the estimates, and how sure that is by their paired intervals: both sides
answered the same questions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from relay_verl.frontier.axis import Axis
from relay_verl.frontier.hull import dominator_of, hull_of, share_at
from relay_verl.frontier.point import Point
from relay_verl.report.statistics import Estimate, difference, mix


class Position(StrEnum):
    """Where a method is."""

    HULL = "on the frontier"
    """A corner of the convex hull: neither a method nor a mixture of two beats it."""
    UNDER = "under the frontier"
    """Nothing dominates it, but a random mixture of two methods costs as much and is more accurate."""
    DOMINATED = "dominated"
    """Another method costs no more and is at least as accurate, and better in one of the two."""


@dataclass(frozen=True)
class Standing:
    """Where a method is on one axis."""

    point: Point
    position: Position
    by: tuple[Point, ...] = ()
    """Who beats it: the most accurate method that dominates it, or the two whose mixture does."""
    share: float = 0.0
    """Of two: that of the second in the mixture."""
    gain: Estimate | None = None
    """Accuracy of whoever beats it minus its own."""
    extra: Estimate | None = None
    """Cost of the method that dominates it minus its own, in the axis's unit; None for a mixture, which costs as much.
    """

    @property
    def is_clear(self) -> bool:
        """Whether both intervals leave out the other order: what beats it is more accurate, and costs no more."""
        if self.gain is None or self.gain.low <= 0:
            return False
        return self.extra is None or self.extra.high <= 0


def standings(points: Sequence[Point], axis: Axis) -> list[Standing]:
    """Where each point is, in their order."""
    places = [point.place(axis) for point in points]
    corners = hull_of(places)
    return [_standing(number, points, axis, corners) for number in range(len(points))]


def _standing(number: int, points: Sequence[Point], axis: Axis, corners: Sequence[int]) -> Standing:
    point, places = points[number], [each.place(axis) for each in points]
    if places[number] in [places[corner] for corner in corners]:
        return Standing(point, Position.HULL)
    best = dominator_of(number, places)
    if best is not None:
        by = points[best]
        gain, extra = difference(by.accuracy, point.accuracy), difference(by.costs[axis], point.costs[axis])
        return Standing(point, Position.DOMINATED, (by,), gain=gain, extra=extra)
    right = next(index for index, corner in enumerate(corners) if places[corner][0] > places[number][0])
    ends = corners[right - 1], corners[right]
    share = share_at(places[number][0], places[ends[0]], places[ends[1]])
    left, other = (points[end] for end in ends)
    gain = difference(mix(left.accuracy, other.accuracy, share), point.accuracy)
    return Standing(point, Position.UNDER, (left, other), share, gain)
