"""Points of (cost, accuracy): which of them no other one dominates, and which of them are corners of the convex hull.

A random mixture of two methods reaches every point of the line between them. What lies under the hull is therefore
beaten by tossing a coin between two methods of the hull. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence

Place = tuple[float, float]
"""Cost and accuracy."""


def dominates(one: Place, other: Place) -> bool:
    """Whether `one` costs no more than `other` and is at least as accurate, and better in one of the two.

    >>> dominates((1, 0.5), (2, 0.5)), dominates((1, 0.5), (1, 0.5)), dominates((1, 0.5), (2, 0.6))
    (True, False, False)
    """
    return one[0] <= other[0] and one[1] >= other[1] and one != other


def dominator_of(index: int, places: Sequence[Place]) -> int | None:
    """The most accurate of the places that dominate the one at `index`, the cheapest of these; None if none does."""
    others = [number for number, place in enumerate(places) if dominates(place, places[index])]
    return min(others, key=lambda number: (-places[number][1], places[number][0], number), default=None)


def hull_of(places: Sequence[Place]) -> list[int]:
    """Indices of the corners of the upper convex hull, from the cheapest place to the most accurate one.

    >>> hull_of([(0, 0.2), (1, 0.3), (2, 0.8), (3, 0.7), (4, 0.9)])
    [0, 2, 4]
    """
    corners: list[int] = []
    for index in sorted(range(len(places)), key=lambda number: (places[number][0], -places[number][1], number)):
        if corners and places[index][1] <= places[corners[-1]][1]:
            continue  # an earlier one is as accurate and costs no more
        # a corner on or under the line from the one before it to this place is not a corner
        while (
            len(corners) > 1
            and height_at(places[corners[-1]][0], places[corners[-2]], places[index]) >= (places[corners[-1]][1])
        ):
            corners.pop()
        corners.append(index)
    return corners


def height_at(cost: float, left: Place, right: Place) -> float:
    """Accuracy of the mixture of two places that costs `cost`, which lies between theirs."""
    return left[1] + share_at(cost, left, right) * (right[1] - left[1])


def share_at(cost: float, left: Place, right: Place) -> float:
    """Share of the right place in that mixture.

    >>> share_at(2.5, (2, 0.1), (4, 0.2))
    0.25
    """
    return (cost - left[0]) / (right[0] - left[0])
