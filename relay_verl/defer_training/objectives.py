"""What a head minimises, over a batch of places: functions of the log-odds z that the student writes.

CITER: binary cross-entropy of the labels. Co-LLM (2.1): the negative log of the probability of the reference's token
under the mixture of both models, -log(sigmoid(z) p_S + sigmoid(-z) p_L), first started on weak labels (2.2): whether
the teacher alone has the token.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from relay_verl.defer.head_info import HeadKind
from relay_verl.defer_training.training_tokens import TrainingTokens

Loss = Callable[[Tensor, TrainingTokens], Tensor]
"""Log-odds [batch] and the batch to the mean loss."""


def label_loss(log_odds: Tensor, batch: TrainingTokens) -> Tensor:
    """CITER's: cross-entropy of the labels, all places alike."""
    return functional.binary_cross_entropy_with_logits(log_odds, batch.labels)


def weak_loss(log_odds: Tensor, batch: TrainingTokens) -> Tensor:
    """Cross-entropy of Co-LLM's weak labels."""
    return functional.binary_cross_entropy_with_logits(log_odds, 1 - batch.needs_teacher)


def marginal_loss(log_odds: Tensor, batch: TrainingTokens) -> Tensor:
    """Co-LLM's: the negative log marginal likelihood of the references.

    >>> batch = TrainingTokens(*[torch.zeros(1)] * 4, torch.tensor([[0.5, 0.25]]).log(), torch.zeros(1))
    >>> round(float(marginal_loss(torch.zeros(1), batch).exp()), 4)  # 1 / (0.5 * 0.5 + 0.5 * 0.25)
    2.6667
    """
    assert batch.logprobs is not None
    student, teacher = batch.logprobs.unbind(-1)
    return -torch.logaddexp(
        functional.logsigmoid(log_odds) + student, functional.logsigmoid(-log_odds) + teacher
    ).mean()


@dataclass(frozen=True)
class Objective:
    """How a kind of head is trained."""

    loss: Loss
    """What is minimised, and what the best state is chosen by."""
    learning_rate: float
    """Of its own release."""
    weak: Loss | None = None
    """What starts it; None: nothing does."""
    needs_logprobs: bool = False
    """Whether it reads log-probabilities."""


OBJECTIVES: dict[HeadKind, Objective] = {
    HeadKind.CITER: Objective(label_loss, 1e-7),
    HeadKind.COLLM: Objective(marginal_loss, 2e-5, weak_loss, needs_logprobs=True),
}
"""By the head's kind."""
