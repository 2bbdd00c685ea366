"""verl's `distillation:` node as far as our code reads it: a teacher scores the tokens that the student wrote, and the
loss pulls the student towards it (`relay_verl.trainer.teacher_scores`). Pure.

verl 0.9.1 has two kinds of losses. `forward_kl_topk` is the KL of the student from the teacher over the teacher's k
likeliest tokens of each position; `call_free_kl_topk` is ours, for a student that may call
(`relay_verl.trainer.call_free_loss`). The others, such as k1 and k3, estimate the reverse KL from the log-probability
of the token that was sampled alone.
"""

from __future__ import annotations

from dataclasses import dataclass

CALL_FREE = "call_free_kl_topk"
TOPK_LOSSES = ("forward_kl_topk", CALL_FREE)
"""Losses over the teacher's likeliest tokens; all others are over the sampled token."""


@dataclass(frozen=True)
class DistillationSettings:
    """The node of a run that distils."""

    loss: str
    """`distillation_loss.loss_mode`."""
    topk: int | None
    """`distillation_loss.topk`: the teacher's likeliest tokens of a position that count."""
    log_prob_min_clamp: float | None = None
    """`distillation_loss.log_prob_min_clamp`: the least log-probability that counts; None: none is changed."""

    @property
    def is_topk(self) -> bool:
        """Whether the loss is over the teacher's likeliest tokens."""
        return self.loss in TOPK_LOSSES

    @property
    def num_logprobs(self) -> int:
        """What vLLM is asked for at each position (`prompt_logprobs`): so many of the likeliest tokens; 0 is the one
        that stands there."""
        return (self.topk or 0) if self.is_topk else 0
