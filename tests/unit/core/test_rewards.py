"""The rewards of the paper (3.2.3), a group at a time."""

import doctest

import pytest

from relay_verl import protocol, rewards
from relay_verl.rewards import Scenario, difficulty_aware_reward, find_scenario, simple_reward

SIMPLE_CASES = [
    # correct, rho, rewards, why
    ([], [], [], "no sample"),
    ([True], [0.0], [1.0], "right alone"),
    ([True], [0.25], [0.75], "right with help"),
    ([False], [0.0], [0.0], "wrong alone"),
    ([False], [0.5], [-0.5], "wrong with help still pays for it"),
    ([True, False], [1.0, 1.0], [0.0, -1.0], "the teacher wrote it all"),
]


@pytest.mark.parametrize(("correct", "rho", "expected", "why"), SIMPLE_CASES)
def test_simple_reward(correct: list[bool], rho: list[float], expected: list[float], why: str) -> None:
    assert simple_reward(correct, rho) == expected, why


GROUP_CASES = [
    # correct, called, rho, rewards, why
    ([], [], [], [], "no sample"),
    ([True], [False], [0.0], [1.5], "solvable: right alone earns the bonus"),
    ([True, True], [False, True], [0.0, 0.25], [1.5, 0.75], "solvable: help costs its tokens"),
    ([True, False], [False, False], [0.0, 0.0], [1.5, 0.0], "solvable: wrong alone is not stubborn"),
    ([True, False], [False, True], [0.0, 0.5], [1.5, 0.0], "solvable: wrong with help is not charged"),
    ([True, False], [True, False], [0.25, 0.0], [0.75, -1.0], "dependent: wrong alone is stubborn"),
    ([True, False], [True, True], [0.25, 0.5], [0.75, 0.0], "dependent: wrong with help is not"),
    ([True, True], [True, True], [0.25, 0.5], [0.75, 0.5], "dependent: all right, all with help"),
    ([False, False], [True, False], [0.25, 0.0], [0.25, 0.0], "unsolvable: asking earns rho"),
    ([False, False], [False, False], [0.0, 0.0], [0.0, 0.0], "unsolvable and no one asked"),
    ([False], [True], [0.0], [0.0], "asked in vain: no tokens, no reward"),
    ([True, False], [True, False], [0.0, 0.0], [1.0, -1.0], "right after a call that failed is not independence"),
]


@pytest.mark.parametrize(("correct", "called", "rho", "expected", "why"), GROUP_CASES)
def test_difficulty_aware_reward(
    correct: list[bool], called: list[bool], rho: list[float], expected: list[float], why: str
) -> None:
    assert difficulty_aware_reward(correct, called, rho) == expected, why


SOLVABLE = ([True, True, False], [False, True, False], [0.0, 0.25, 0.0])
DEPENDENT = ([True, False, False], [True, False, True], [0.25, 0.0, 0.5])
UNSOLVABLE = ([False, False], [True, False], [0.25, 0.0])
OPTION_CASES = [
    # group, options, rewards, why
    (SOLVABLE, {"independence_bonus": 0.0}, [1.0, 0.75, 0.0], "the ablation of 5.2"),
    (SOLVABLE, {"stubbornness_penalty": 9.0}, [1.5, 0.75, 0.0], "no stubbornness where some solve it alone"),
    (DEPENDENT, {"stubbornness_penalty": 0.25}, [0.75, -0.25, 0.0], "its size"),
    (DEPENDENT, {"independence_bonus": 9.0}, [0.75, -1.0, 0.0], "no bonus where no one was independent"),
    (UNSOLVABLE, {"exploration": False}, [0.0, 0.0], "the ablation of 5.2"),
    (UNSOLVABLE, {"independence_bonus": 9.0, "stubbornness_penalty": 9.0}, [0.25, 0.0], "neither applies"),
    (DEPENDENT, {"exploration": False}, [0.75, -1.0, 0.0], "exploration is for the unsolvable"),
]


@pytest.mark.parametrize(("group", "options", "expected", "why"), OPTION_CASES)
def test_options(group: tuple, options: dict, expected: list[float], why: str) -> None:
    assert difficulty_aware_reward(*group, **options) == expected, why


@pytest.mark.parametrize(
    ("group", "scenario"),
    [
        (SOLVABLE, Scenario.STUDENT_SOLVABLE),
        (DEPENDENT, Scenario.TEACHER_DEPENDENT),
        (UNSOLVABLE, Scenario.TEACHER_UNSOLVABLE),
        (([], [], []), Scenario.TEACHER_UNSOLVABLE),
    ],
)
def test_find_scenario(group: tuple, scenario: Scenario) -> None:
    assert find_scenario(group[0], group[1]) is scenario


def test_columns_of_different_length_are_named() -> None:
    with pytest.raises(ValueError, match="correct 2, call_ratio 1"):
        simple_reward([True, False], [0.0])
    with pytest.raises(ValueError, match="correct 1, called 2, call_ratio 1"):
        difficulty_aware_reward([True], [True, False], [0.0])


@pytest.mark.parametrize("module", [rewards, protocol])
def test_the_examples_in_the_docstrings_run(module: object) -> None:
    outcome = doctest.testmod(module)  # type: ignore[arg-type]
    assert outcome.attempted > 0
    assert outcome.failed == 0
