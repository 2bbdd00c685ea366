"""Rewards as pure functions: a group of samples of one query in, their rewards out (paper 3.2.3).

Invariant: a sample's reward depends on its own group alone.

Departures from the released code, each with its option: scenarios are decided per query, not over the whole batch
(`relay.reward.scenario_scope`); rho counts the tokens delivered, not those asked for (`relay.reward.charge`).
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from relay_verl.config import RewardSettings


class Scenario(StrEnum):
    """What a group's samples say about their query."""

    STUDENT_SOLVABLE = "student_solvable"
    """Some sample is correct without a call."""
    TEACHER_DEPENDENT = "teacher_dependent"
    """Some are correct, and all of those called."""
    TEACHER_UNSOLVABLE = "teacher_unsolvable"
    """None is correct."""


class Sample(Protocol):
    """What a reward knows of a sample; `relay_verl.trainer.metrics.SampleStats` is one."""

    @property
    def is_correct(self) -> bool: ...
    @property
    def called(self) -> bool: ...
    @property
    def num_tokens(self) -> int: ...
    @property
    def num_calls(self) -> int: ...
    @property
    def num_requested_tokens(self) -> int: ...
    @property
    def num_teacher_tokens(self) -> int: ...


def rewards_of(samples: Sequence[Sample], settings: RewardSettings) -> list[float]:
    """The rewards of one group under a recipe's settings, [group].

    Args:
        samples: all completed samples of one query; of the whole batch for `scenario_scope=batch`.
        settings: the recipe's `relay.reward`.
    """
    ratios = [_charge(sample, settings.charge) for sample in samples]
    correct = [sample.is_correct for sample in samples]
    if settings.kind == "simple":
        return simple_reward(correct, ratios)
    return difficulty_aware_reward(
        correct,
        [sample.called for sample in samples],
        ratios,
        independence_bonus=settings.independence_bonus,
        stubbornness_penalty=settings.stubbornness_penalty,
        exploration=settings.exploration,
    )


def _charge(sample: Sample, charge: str) -> float:
    """rho of one sample: the share of its tokens that the teacher delivered, or that it was asked for."""
    if not sample.num_calls:
        return 0.0
    num_charged = sample.num_requested_tokens if charge == "requested" else sample.num_teacher_tokens
    return min(1.0, num_charged / max(1, sample.num_tokens))


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
