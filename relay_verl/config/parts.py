"""`relay.reward`, `relay.warmup` and `relay.filter`: the reward, and the two generators of data (paper 3.1, 3.2)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from relay_verl.config.values import STRICT, Count, NonNegative
from relay_verl.rewards import find_reward


def _check_weights(weights: tuple[float, ...]) -> tuple[float, ...]:
    if sum(weights) <= 0:
        raise ValueError("at least one weight must be above 0")
    return weights


def _check_reward(name: str) -> str:
    find_reward(name)
    return name


@dataclass(frozen=True)
class RewardSettings:
    """Which reward, and its parts (paper 3.2.3)."""

    __pydantic_config__ = STRICT

    kind: Annotated[str, AfterValidator(_check_reward)] = "difficulty_aware"
    """Eq. 3 ('simple'), the three scenarios ('difficulty_aware'), money ('price', which needs `relay.prices`), or one
    of another package; see `relay_verl.rewards`."""
    independence_bonus: NonNegative = 0.5
    """Scenario 1: added to 1.0 for a correct answer without a call; 0 is the ablation (5.2)."""
    stubbornness_penalty: NonNegative = 1.0
    """Scenario 2: taken from a wrong answer without a call."""
    exploration: bool = True
    """Scenario 3: rho for those that called; False is the ablation (5.2)."""
    price_weight: NonNegative = 1.0
    """lambda of `kind: price`: what a response as dear as the teacher alone loses (ours)."""
    charge: Literal["delivered", "requested"] = "delivered"
    """What rho counts; the released code charges the tokens requested."""
    scenario_scope: Literal["query", "batch"] = "query"
    """Whose samples decide on a scenario; the released code takes those of the whole batch."""


@dataclass(frozen=True)
class WarmupSettings:
    """How `relay-verl warmup-data` makes the data of the call warm-up (paper 3.1)."""

    __pydantic_config__ = STRICT

    base_model: str | None = None
    """Hub id or folder of the model that the warm-up starts from: the student must have its shape; None checks nothing.
    """
    num_samples: Count = 1
    """Responses the student samples to each query."""
    num_placements: Count = 1
    """How often each of them is used, with commands at other places."""
    call_weights: Annotated[tuple[NonNegative, ...], AfterValidator(_check_weights)] = (1.0, 1.0, 1.0, 1.0)
    """Relative frequency of 0, 1, 2 ... commands in a sample; the released script draws 0 to 3 alike."""
    max_exponent: Annotated[int, Field(ge=0, le=6, strict=True)] = 3
    """Largest k of a command's n = d * 10^k."""
    temperature: NonNegative = 1.0
    """Sampling temperature of the student."""
    seed: int | None = 0
    """Seed of all samples and places; null samples without seeds, which an engine does faster."""


@dataclass(frozen=True)
class FilterSettings:
    """How `relay-verl filter` asks the teacher, and what training keeps (paper 3.2.2)."""

    __pydantic_config__ = STRICT

    num_samples: Count = 10
    """The teacher's responses to each query."""
    min_pass_rate: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] = 0.5
    """Least share of them that is right, for a query to be trained on; the paper does not say which (our choice). 0
    keeps every query: the ablation without the filter (5.2)."""
    seed: int | None = 0
    """Seed of all samples; null samples without seeds, which an engine does faster."""
