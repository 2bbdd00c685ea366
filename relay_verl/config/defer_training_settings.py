"""`relay.defer_training`: how a defer head is trained and calibrated (CITER's release, Co-LLM's paper)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from relay_verl.config.values import STRICT, Count, Positive

HeadToTrain = Literal["citer", "collm"]
"""The heads that have weights."""
Split = Literal["token", "query"]
"""What the held-out share of a training is a share of."""


@dataclass(frozen=True)
class DeferTrainingSettings:
    """How `relay-verl defer-data`, `defer-train` and `calibrate` make a head; the defaults are those of CITER's
    release."""

    __pydantic_config__ = STRICT

    kind: HeadToTrain | None = None
    """The head that the recipe is for: 'citer', an MLP over the student's last hidden state, or 'collm', a linear
    layer. null, as in all other recipes, trains none: verl's trainer trains the student, and refuses a recipe that
    names one."""
    num_tries: Count = 10
    """Most responses of the teacher to a query, until one is right: the reference. A query without one is left out
    (ours; the release reads references from its datasets)."""
    rollout_tokens: Count = 1000
    """Most tokens of a rollout of the student alone, which labels a place where neither model has the reference's
    token, in iteration 1."""
    routed_rollout_tokens: Count = 300
    """The same of the student under the last head and the teacher, in later iterations."""
    routed_threshold: Annotated[float, Field(ge=0, lt=2, allow_inf_nan=False)] = 0.95
    """Threshold of the last head in these rollouts."""
    trains_on_rollouts: Annotated[bool, Field(strict=True)] = True
    """False leaves out the places that a rollout decides: labels from the two models' tokens alone, the paper's
    ablation CITER-S and this pipeline's iteration 0."""
    learning_rate: Positive | None = None
    """Of Adam; null: that of the head's own release, 1e-7 of `citer` and 2e-5 of `collm`."""
    batch_size: Annotated[int, Field(ge=2, strict=True)] = 64
    """Tokens of a step; the release's README has 64, its code 80."""
    max_epochs: Count = 1000
    """Most passes over the training tokens."""
    patience: Count = 5
    """Epochs without a better held-out loss after which training ends."""
    held_out_share: Annotated[float, Field(gt=0, lt=1)] = 0.2
    """Share that is held out."""
    split: Split = "token"
    """'token' holds tokens out at random, as the release does, so that held-out tokens have neighbours in training;
    'query' holds whole queries out."""
    num_weak_epochs: Annotated[int, Field(ge=0, strict=True)] = 1
    """Epochs on weak labels before `collm`'s own objective (Co-LLM 2.2): whether the teacher alone has the token."""
    seed: Annotated[int, Field(ge=0, strict=True)] = 0
    """Of the head's first weights, the split, the order of tokens, and the teacher's samples."""
    target_ratio: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Share of the tokens that the teacher writes, to which `relay-verl calibrate` sets the threshold; null: that has
    to be given there."""
