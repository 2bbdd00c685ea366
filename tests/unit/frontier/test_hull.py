"""The convex hull and dominance, by their definitions."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from relay_verl.frontier.hull import dominates, dominator_of, height_at, hull_of

PLACES = st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)), min_size=1, max_size=25)


@given(PLACES)
def test_no_place_is_above_the_hull_and_its_corners_are_dominated_by_nothing(places: list[tuple[int, int]]) -> None:
    corners = hull_of(places)
    costs = [places[corner][0] for corner in corners]
    heights = [places[corner][1] for corner in corners]
    assert costs == sorted(set(costs)), "from the cheapest on"
    assert heights == sorted(set(heights)), "a corner that costs more is more accurate"
    assert (costs[0], heights[-1]) == (min(cost for cost, _ in places), max(height for _, height in places))
    slopes = [(b[1] - a[1]) / (b[0] - a[0]) for a, b in pairs([places[corner] for corner in corners])]
    assert all(one > other for one, other in pairs(slopes)), "concave, without a corner on a line"
    for corner in corners:
        assert dominator_of(corner, places) is None
    for cost, height in places:
        for left, right in pairs([places[corner] for corner in corners]):
            if left[0] <= cost <= right[0]:
                assert height <= height_at(cost, left, right) + 1e-9


@given(PLACES)
def test_a_place_that_is_dominated_is_dominated_by_the_most_accurate(places: list[tuple[int, int]]) -> None:
    for index, place in enumerate(places):
        others = [other for other in places if dominates(other, place)]
        best = dominator_of(index, places)
        assert (best is None) == (not others)
        assert not dominates(place, place)
        if best is not None:
            assert dominates(places[best], place)
            assert not dominates(place, places[best])
            assert places[best][1] == max(height for _, height in others)


@given(PLACES, st.randoms())
def test_the_hull_does_not_depend_on_the_order(places: list[tuple[int, int]], random: object) -> None:
    shuffled = list(places)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert [places[corner] for corner in hull_of(places)] == [shuffled[corner] for corner in hull_of(shuffled)]


def pairs(values: list) -> list:
    return list(pairwise(values))
