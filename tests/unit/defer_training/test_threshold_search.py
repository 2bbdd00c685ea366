"""The search ends at the target where a threshold reaches it, near it where none does, and always ends."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay_verl.defer_training.score_levels import levels, quantiles, threshold_at
from relay_verl.defer_training.threshold_search import ThresholdSearch, policy_at
from relay_verl.policies import parse_policy

SCORES = st.lists(st.floats(0.001, 1.0), min_size=1, max_size=200).map(sorted)


@given(SCORES, st.floats(0, 1), st.floats(0, 1))
def test_a_threshold_grows_with_its_level(scores: list[float], one: float, other: float) -> None:
    known = quantiles(scores)
    low, high = sorted((one, other))
    assert threshold_at(low, known) <= threshold_at(high, known) + 1e-12
    assert threshold_at(0.0, known) == 0.0 and threshold_at(1.0, known) > 1.0


def test_levels_ascend_and_are_dense_at_both_ends() -> None:
    assert levels() == sorted(set(levels()))
    assert levels()[0] == pytest.approx(1e-5) and levels()[-1] == pytest.approx(1 - 1e-5)


def search(target: float, scores: list[float], ratio_of: object, **options: float) -> ThresholdSearch:
    steps = ThresholdSearch(target, quantiles(scores), **options)  # type: ignore[arg-type]
    while (threshold := steps.next_threshold()) is not None:
        steps.add(threshold, ratio_of(threshold))  # type: ignore[operator]
        assert len(steps.measured) <= 40
    return steps


EVEN = [number / 2000 for number in range(1, 2001)]


@given(st.floats(0.002, 0.9), st.floats(0.5, 5.0))
def test_a_target_is_reached_where_own_text_differs_from_references(target: float, shift: float) -> None:
    """The routed system's ratio is another function of the threshold than the share of held-out scores."""
    ended = search(target, EVEN, lambda threshold: min(1.0, threshold) ** shift, most=30)
    assert ended.is_reached
    assert abs(ended.nearest.ratio - target) <= 0.1 * target


@given(st.floats(0.01, 0.99), SCORES)
def test_it_ends_whatever_is_measured(target: float, scores: list[float]) -> None:
    for ratio_of in (lambda t: 0.0, lambda t: 1.0, lambda t: float(t > 0.5), lambda t: math.sin(40 * t) ** 2):
        ended = search(target, scores, ratio_of, most=12)
        assert 1 <= len(ended.measured) <= 12
        assert ended.nearest in ended.measured
        assert len({each.threshold for each in ended.measured}) == len(ended.measured)


def test_a_step_of_the_scores_is_not_reached() -> None:
    """All scores are one of two numbers, so that the ratio is 0, 0.3 or 1."""
    scores = [0.4] * 30 + [0.9] * 70
    ended = search(0.1, scores, lambda threshold: 0.3 * (threshold > 0.4) + 0.7 * (threshold > 0.9), most=30)
    assert not ended.is_reached
    assert ended.nearest.ratio in (0.0, 0.3)


def test_the_first_step_is_the_targets_own_quantile() -> None:
    steps = ThresholdSearch(0.01, quantiles(EVEN))
    assert steps.next_threshold() == pytest.approx(0.01, abs=0.001)


@given(st.floats(0, 1.001))
def test_a_policys_name_is_its_threshold(threshold: float) -> None:
    rounded = round(threshold, 7)
    name = policy_at(rounded)
    assert float(name.removeprefix("deferred_")) == rounded
    assert "e" not in name.removeprefix("deferred_")


def test_a_policys_name_is_known() -> None:
    pytest.importorskip("relay_verl.deferred")
    assert parse_policy(policy_at(0.95)).number == "0.95"
