"""Rewards as pure functions: a group of samples of one query in, their rewards out (paper 3.2.3).

Invariant: a sample's reward depends on its own group alone.

Departures from the released code, each with its option: scenarios are decided per query, not over the whole batch
(`relay.reward.scenario_scope`); rho counts the tokens delivered, not those asked for (`relay.reward.charge`).

To add one, write a function of a group's samples and the recipe's `relay.reward`, and give it a name in REWARDS. One of
another package is such a function, or a `Reward`, that `relay.reward.kind` names as `pkg.module:function`, or by an
entry point of the group `relay_verl.rewards` (see `examples/extend`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from relay_verl.errors import UserError
from relay_verl.extensions import Registry, takes
from relay_verl.types import rho


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
    @property
    def cost_share(self) -> float | None: ...


class RewardOptions(Protocol):
    """What a reward knows of the recipe; `relay_verl.config.RewardSettings` is one and says what each field means."""

    @property
    def kind(self) -> str: ...
    @property
    def independence_bonus(self) -> float: ...
    @property
    def stubbornness_penalty(self) -> float: ...
    @property
    def exploration(self) -> bool: ...
    @property
    def charge(self) -> str: ...
    @property
    def price_weight(self) -> float: ...


RewardFunction = Callable[[Sequence[Sample], RewardOptions], Sequence[float]]
"""The samples of one group and the recipe's options to their rewards, [group]."""


@dataclass(frozen=True)
class Reward:
    """An entry of REWARDS."""

    compute: RewardFunction
    """Gives the rewards of one group."""
    needs_groups: bool = False
    """Whether it compares the samples of a query, so that one sample a query tells it nothing."""


def charged_ratio(sample: Sample, options: RewardOptions) -> float:
    """rho of one sample: the share of its tokens that the teacher delivered, or was asked for where the recipe charges
    those."""
    is_requested = options.charge == "requested"
    return rho(sample.num_requested_tokens if is_requested else sample.num_teacher_tokens, sample.num_tokens)


def rewards_of(samples: Sequence[Sample], options: RewardOptions) -> list[float]:
    """The rewards of one group under a recipe's options, [group].

    Args:
        samples: all completed samples of one query; of the whole batch for `scenario_scope=batch`.
        options: the recipe's `relay.reward`.

    Raises:
        UserError: a reward of another package does not give one finite number a sample.
    """
    rewards = [float(reward) for reward in find_reward(options.kind).compute(samples, options)]
    if len(rewards) != len(samples) or not all(map(math.isfinite, rewards)):
        raise UserError(
            f"relay.reward.kind={options.kind}: expected {len(samples)} finite rewards, one a sample, got {rewards}"
        )
    return rewards


def _simple(samples: Sequence[Sample], options: RewardOptions) -> list[float]:
    return simple_reward(
        [sample.is_correct for sample in samples], [charged_ratio(sample, options) for sample in samples]
    )


def _difficulty_aware(samples: Sequence[Sample], options: RewardOptions) -> list[float]:
    return difficulty_aware_reward(
        [sample.is_correct for sample in samples],
        [sample.called for sample in samples],
        [charged_ratio(sample, options) for sample in samples],
        independence_bonus=options.independence_bonus,
        stubbornness_penalty=options.stubbornness_penalty,
        exploration=options.exploration,
    )


def _price(samples: Sequence[Sample], options: RewardOptions) -> list[float]:
    shares = [sample.cost_share for sample in samples if sample.cost_share is not None]
    if len(shares) < len(samples):
        raise UserError("relay.reward.kind=price: a sample has no cost; set relay.prices")
    return price_reward([sample.is_correct for sample in samples], shares, price_weight=options.price_weight)


def simple_reward(correct: Sequence[bool], call_ratio: Sequence[float]) -> list[float]:
    """1[correct] - rho (Eq. 3).

    Args:
        correct: whether each answer is right, [group].
        call_ratio: rho, the teacher's share of each response's tokens, [group].

    >>> simple_reward([True, True, False], [0.0, 0.25, 0.5])
    [1.0, 0.75, -0.5]
    """
    _check_lengths(correct=correct, call_ratio=call_ratio)
    return [float(is_correct) - ratio for is_correct, ratio in zip(correct, call_ratio, strict=True)]


def price_reward(correct: Sequence[bool], cost_share: Sequence[float], *, price_weight: float = 1.0) -> list[float]:
    """1[correct] - lambda * cost / cost of the teacher alone (ours).

    The cost is money for all that both models read and wrote; the teacher alone reads the prompt once and writes as
    many tokens as the response has (`relay_verl.prices.price.PriceList.cost_share`). Where the teacher's output alone
    has a price and lambda is 1, it is `simple_reward`.

    Args:
        correct: whether each answer is right, [group].
        cost_share: what each response costs over what the teacher alone would cost, [group]; at least 0, above 1 where
            a response costs more than that.
        price_weight: lambda.

    >>> price_reward([True, True, False], [0.0, 0.25, 1.5], price_weight=0.5)
    [1.0, 0.875, -0.75]
    """
    _check_lengths(correct=correct, cost_share=cost_share)
    return [float(right) - price_weight * share for right, share in zip(correct, cost_share, strict=True)]


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
    for is_correct, has_called, ratio in zip(correct, called, call_ratio, strict=True):
        if is_correct:
            rewards.append(1.0 - ratio if has_called else 1.0 + independence_bonus)
        elif group is Scenario.TEACHER_DEPENDENT and not has_called:
            rewards.append(-stubbornness_penalty)
        elif group is Scenario.TEACHER_UNSOLVABLE and has_called and exploration:
            rewards.append(ratio)
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


REWARDS: dict[str, Reward] = {
    "difficulty_aware": Reward(_difficulty_aware, needs_groups=True),
    "price": Reward(_price),
    "simple": Reward(_simple),
}
"""Our rewards by name."""


def _accept(candidate: object, name: str) -> Reward | None:
    """A `Reward`, or a function of a group's samples and options as one."""
    if isinstance(candidate, Reward):
        return candidate
    return Reward(candidate) if takes(candidate, (), None) and not isinstance(candidate, type) else None


REGISTRY: Registry[Reward] = Registry(
    kind="reward",
    group="relay_verl.rewards",
    entries=REWARDS,
    accept=_accept,
    expected="a function of (samples, options), or a relay_verl.rewards.Reward",
)


def find_reward(name: str) -> Reward:
    """The reward called `name`, as `relay.reward.kind` has it.

    Raises:
        UserError: no such reward; lists the valid ones.
    """
    return REGISTRY.find(name)
