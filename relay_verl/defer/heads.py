"""The heads as torch modules: hidden states, and the student's logits, to scores.

One protocol: `head(hidden, logits)` with hidden states [batch, hidden_size] after the final norm and logits
[batch, vocab_size] gives scores [batch] from 0 to 1, the probability that the STUDENT writes the next token. The
teacher is asked where a score is below the threshold.

`citer` is the MLP of CITER's release: Linear(H, 2H), BatchNorm1d, ReLU, Dropout(.1), Linear(2H, H), Dropout(.1),
Linear(H, 1), sigmoid. The entropies are mapped to exp(-entropy), one over the number of equally likely next tokens, so
that one threshold means the same for every vocabulary: an entropy of .45 nats is a score of .64.
"""

from __future__ import annotations

from typing import ClassVar, cast

import torch
from torch import Tensor, nn

from relay_verl.defer.head_info import HeadInfo, HeadKind


class DeferHead(nn.Module):
    """Scores positions; see the module's docstring for the protocol."""

    kind: ClassVar[HeadKind]
    """Its name in a head's file."""
    needs_logits: ClassVar[bool] = False
    """Whether it reads logits; else they may be None."""

    def forward(self, hidden: Tensor, logits: Tensor | None = None) -> Tensor:
        """Scores in float32, [batch].

        Args:
            hidden: [batch, hidden_size], in any number format.
            logits: [batch, vocab_size].
        """
        raise NotImplementedError

    def for_inference(self) -> DeferHead:
        """The same function in evaluation mode, with fewer operations where some can be joined."""
        return self.eval().requires_grad_(False)


class WeightedHead(DeferHead):
    """A head that is trained: its score is the sigmoid of `log_odds`.

    Args:
        hidden_size: H.
    """

    layers: nn.Module
    """[batch, hidden_size] to [batch, 1], in float32."""

    def __init__(self, hidden_size: int):
        super().__init__()
        self.hidden_size = hidden_size

    def log_odds(self, hidden: Tensor) -> Tensor:
        """Log-odds that the student writes, which a loss takes, [batch]."""
        odds: Tensor = self.layers(hidden.float()).squeeze(-1)
        return odds

    def forward(self, hidden: Tensor, logits: Tensor | None = None) -> Tensor:
        return torch.sigmoid(self.log_odds(hidden))


class CiterHead(WeightedHead):
    """CITER's MLP as released."""

    kind = HeadKind.CITER

    def __init__(self, hidden_size: int):
        super().__init__(hidden_size)
        self.layers = nn.Sequential(
            nn.Linear(hidden_size, 2 * hidden_size),
            nn.BatchNorm1d(2 * hidden_size),
            nn.ReLU(),
            nn.Dropout(0.1),
            nn.Linear(2 * hidden_size, hidden_size),
            nn.Dropout(0.1),
            nn.Linear(hidden_size, 1),
        )

    @torch.no_grad()
    def for_inference(self) -> DeferHead:
        """One hidden layer: the normalisation scales the first layer, and nothing stands between the other two."""
        super().for_inference()
        first, norm, _, _, middle, _, last = cast(nn.Sequential, self.layers)
        scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)  # [2 * hidden_size]
        return _JoinedCiterHead(
            first.weight * scale[:, None],
            (first.bias - norm.running_mean) * scale + norm.bias,
            last.weight @ middle.weight,  # [1, 2 * hidden_size]
            last.weight @ middle.bias + last.bias,
        )


class _JoinedCiterHead(WeightedHead):
    """What `CiterHead` computes in evaluation mode."""

    kind = HeadKind.CITER

    def __init__(self, *tensors: Tensor):
        super().__init__(tensors[0].shape[1])
        for name, tensor in zip(("wide", "wide_bias", "narrow", "narrow_bias"), tensors, strict=True):
            self.register_buffer(name, tensor.detach().clone())

    def log_odds(self, hidden: Tensor) -> Tensor:
        inner = torch.relu(nn.functional.linear(hidden.float(), self.wide, self.wide_bias))
        return nn.functional.linear(inner, self.narrow, self.narrow_bias).squeeze(-1)


class CollmHead(WeightedHead):
    """Co-LLM's linear head. Co-LLM states the probability that the assistant writes; this is one minus it."""

    kind = HeadKind.COLLM

    def __init__(self, hidden_size: int):
        super().__init__(hidden_size)
        self.layers = nn.Linear(hidden_size, 1)


class EntropyHead(DeferHead):
    """exp(-entropy) of the student's next-token law at temperature 1."""

    kind = HeadKind.ENTROPY
    needs_logits = True

    def forward(self, hidden: Tensor, logits: Tensor | None = None) -> Tensor:
        assert logits is not None
        law = torch.log_softmax(logits, dim=-1, dtype=torch.float32)  # [batch, vocab_size]
        # a token of probability 0 adds 0, not NaN
        return torch.exp((law.exp() * law.clamp_min(torch.finfo(law.dtype).min)).sum(dim=-1))


class FirstTokenEntropyHead(EntropyHead):
    """The same; whoever samples asks it only where a step begins (`HeadInfo.step_end`)."""

    kind = HeadKind.FIRST_TOKEN_ENTROPY


HEADS: dict[HeadKind, type[DeferHead]] = {
    head.kind: head for head in (CiterHead, CollmHead, EntropyHead, FirstTokenEntropyHead)
}
"""The head of each kind."""


def make_head(info: HeadInfo) -> DeferHead:
    """A head with fresh weights, in float32 on CPU, in training mode."""
    head = HEADS[info.kind]
    arguments = (info.hidden_size,) if info.kind.has_weights else ()
    with torch.device("cpu"):
        module: DeferHead = head(*arguments)
    return module.float()
