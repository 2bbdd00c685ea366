"""A reward: 1[correct] - rho^2, which charges little for short calls."""

from __future__ import annotations

from collections.abc import Sequence

from relay_verl.rewards import RewardOptions, Sample, charged_ratio


def quadratic(samples: Sequence[Sample], options: RewardOptions) -> list[float]:
    """`relay.reward.kind=quadratic`, or `relay_extend.reward:quadratic`: the rewards of one group, [group]."""
    return [float(sample.is_correct) - charged_ratio(sample, options) ** 2 for sample in samples]
