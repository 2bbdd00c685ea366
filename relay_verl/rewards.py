"""Rewards as pure functions: a group of samples of one query in, their rewards out (paper 3.2.3).

Invariant: a sample's reward depends on its own group alone.

Departures from the released code: scenarios are decided per query, not over the whole batch; rho counts the tokens
delivered, not those asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum


class Scenario(StrEnum):
    """What a group's samples say about their query."""

    STUDENT_SOLVABLE = "student_solvable"
    """Some sample is correct without a call."""
    TEACHER_DEPENDENT = "teacher_dependent"
    """Some are correct, and all of those called."""
    TEACHER_UNSOLVABLE = "teacher_unsolvable"
    """None is correct."""


def simple_reward(correct: Sequence[bool], call_ratio: Sequence[float]) -> list[float]:
    """1[correct] - rho (Eq. 3).

    Args:
        correct: whether each answer is right, [group].
        call_ratio: rho, the teacher's share of each response's tokens, [group].

    >>> simple_reward([True, True, False], [0.0, 0.25, 0.5])
    [1.0, 0.75, -0.5]
    """
    _check_lengths(correct=correct, call_ratio=call_ratio)
    return [float(is_correct) - rho for is_correct, rho in zip(correct, call_ratio, strict=True)]


def difficulty_aware_reward(
    correct: Sequence[bool],
    called: Sequence[bool],
    call_ratio: Sequence[float],
    *,
    independence_bonus: float = 0.5,
    stubbornness_penalty: float = 1.0,
    exploration: bool = True,
) -> list[float]:
    """The three scenarios of 3.2.3.

    Args:
        correct: whether each answer is right, [group].
        called: whether each response called the teacher, [group].
        call_ratio: rho, the teacher's share of each response's tokens, [group].
        independence_bonus: student-solvable: a correct answer without a call earns 1 + this.
        stubbornness_penalty: teacher-dependent: a wrong answer without a call loses this.
        exploration: teacher-unsolvable: those that called earn rho.

    Student-solvable: independence earns 1.5, help costs its tokens.

    >>> difficulty_aware_reward([True, True, False], [False, True, True], [0.0, 0.25, 0.5])
    [1.5, 0.75, 0.0]

    Teacher-dependent: not asking is punished.

    >>> difficulty_aware_reward([True, False, False], [True, False, True], [0.25, 0.0, 0.5])
    [0.75, -1.0, 0.0]

    Teacher-unsolvable: asking earns a little.

    >>> difficulty_aware_reward([False, False], [True, False], [0.25, 0.0])
    [0.25, 0.0]
    """
    _check_lengths(correct=correct, called=called, call_ratio=call_ratio)
    group = find_scenario(correct, called)
    rewards = []
    for is_correct, has_called, rho in zip(correct, called, call_ratio, strict=True):
        if is_correct:
            rewards.append(1.0 - rho if has_called else 1.0 + independence_bonus)
        elif group is Scenario.TEACHER_DEPENDENT and not has_called:
            rewards.append(-stubbornness_penalty)
        elif group is Scenario.TEACHER_UNSOLVABLE and has_called and exploration:
            rewards.append(rho)
        else:
            rewards.append(0.0)
    return rewards


def find_scenario(correct: Sequence[bool], called: Sequence[bool]) -> Scenario:
    """The scenario of a group.

    >>> str(find_scenario([True, False], [True, False]))
    'teacher_dependent'
    """
    if any(is_correct and not has_called for is_correct, has_called in zip(correct, called, strict=True)):
        return Scenario.STUDENT_SOLVABLE
    return Scenario.TEACHER_DEPENDENT if any(correct) else Scenario.TEACHER_UNSOLVABLE


def _check_lengths(**columns: Sequence[object]) -> None:
    if len({len(column) for column in columns.values()}) > 1:
        lengths = ", ".join(f"{name} {len(column)}" for name, column in columns.items())
        raise ValueError(f"a group's columns differ in length: {lengths}")
