"""A head next to a model of transformers: `relay_verl.engines.transformers_engine` asks it, as vLLM's sampler asks
`vllm_processor`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from relay_verl.defer.engine_head import EngineHead, begins_step
from relay_verl.defer.heads import DeferHead


@dataclass(frozen=True)
class LoadedHead:
    """Decides where the teacher writes."""

    head: DeferHead
    """For inference, on the model's device."""
    token_id: int
    """The reserved id."""
    step_ends: frozenset[int] | None = None
    """Ids behind which it is asked; None asks it everywhere."""

    @classmethod
    def load(cls, spec: EngineHead, device: str = "cpu") -> LoadedHead:
        """The head that a student's engine is told of."""
        return cls(spec.load().to(device), spec.token_id, None if spec.step_ends is None else frozenset(spec.step_ends))

    def is_deferred(self, threshold: float, hidden: Tensor, logits: Tensor, context: Sequence[int]) -> bool:
        """Whether the teacher writes the next token.

        Args:
            threshold: of the score.
            hidden: the last hidden state, after the final norm, [1, hidden_size].
            logits: of the next token, [1, vocab_size].
            context: what the token follows.
        """
        return begins_step(self.step_ends, context, ()) and bool((self.head(hidden, logits) < threshold).item())
