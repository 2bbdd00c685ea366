"""BBEH's official score: against its definition, and what any mean promises."""

from statistics import harmonic_mean

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay_verl.report.harmonic import adjusted_harmonic_mean, harmonic_mean_over_tasks

TASKS = st.dictionaries(st.text(max_size=5), st.lists(st.booleans(), min_size=1, max_size=20), min_size=1, max_size=23)

BY_HAND = [
    ({"a": [False]}, 1.0, "always wrong has 1%"),
    ({"a": [True], "b": [True, True]}, 101.0, "always right has 101%"),
    ({"a": [True, False], "b": [True, False, False, False]}, 2 / (1 / 51 + 1 / 26), "two tasks"),
    ({"a": [True] * 99 + [False], "b": [False]}, 2 / (1 / 100 + 1), "one failed task cannot be made up for"),
    ({"a": [True, False], "b": [True, False] * 50}, 51.0, "large tasks weigh no more"),
]


@pytest.mark.parametrize(("correct_by_task", "percent", "why"), BY_HAND, ids=[case[2] for case in BY_HAND])
def test_by_hand(correct_by_task: dict[str, list[bool]], percent: float, why: str) -> None:
    assert 100 * harmonic_mean_over_tasks(correct_by_task) == pytest.approx(percent)


@given(TASKS)
def test_it_is_the_definition_and_between_the_worst_task_and_the_mean(correct_by_task: dict[str, list[bool]]) -> None:
    percents = [100 * sum(correct) / len(correct) for correct in correct_by_task.values()]
    made = 100 * harmonic_mean_over_tasks(correct_by_task)
    assert made == pytest.approx(harmonic_mean([percent + 1 for percent in percents]))
    assert min(percents) + 1 - 1e-9 <= made <= sum(percents) / len(percents) + 1 + 1e-9


@given(st.lists(st.lists(st.floats(0, 1), min_size=3, max_size=3), min_size=1, max_size=4))
def test_along_an_axis(shares: list[list[float]]) -> None:
    rows = np.array(shares)
    assert adjusted_harmonic_mean(rows.T, axis=0) == pytest.approx([float(adjusted_harmonic_mean(row)) for row in rows])


def test_nothing_to_average() -> None:
    with pytest.raises(ValueError, match="there is no task"):
        harmonic_mean_over_tasks({})
    with pytest.raises(ValueError, match="'b' has no responses"):
        harmonic_mean_over_tasks({"a": [True], "b": []})
