"""vLLM's model classes with a defer head: `compute_logits` writes the score into the reserved id's column.

The runner calls `compute_logits` at each step with the last hidden states, after the final norm, at the positions that
are sampled, outside of the compiled model. `vllm_processor` reads the column back and masks it.

Invariant: without `relay_defer_head` in the model's configuration these are vLLM's own classes, bit by bit. The head's
weights are not parameters of the model: neither the loader nor a weight update sees them.
"""

from __future__ import annotations

from typing import Any

import torch
from vllm.config import VllmConfig
from vllm.model_executor.models.llama import LlamaForCausalLM
from vllm.model_executor.models.qwen2 import Qwen2ForCausalLM
from vllm.model_executor.models.qwen3 import Qwen3ForCausalLM

from relay_verl.defer.engine_head import FOLDER_KEY, ID_KEY, OFFSET
from relay_verl.defer.head_folder import load_head
from relay_verl.errors import UserError


class DeferMixin:
    """Goes in front of a causal model class of vLLM."""

    def __init__(self, *, vllm_config: VllmConfig, prefix: str = "", **options: Any):
        super().__init__(vllm_config=vllm_config, prefix=prefix, **options)  # type: ignore[call-arg]
        config = vllm_config.model_config.hf_config
        folder = getattr(config, FOLDER_KEY, None)
        # in a tuple, since torch would make an attribute that is a module a part of the model
        self._defer: tuple[Any, int] | None = None
        if folder is None:
            return
        if vllm_config.speculative_config is not None:
            raise UserError("speculative_config: not with a defer head, which scores each token before it is written")
        head, _ = load_head(folder, hidden_size=config.hidden_size)
        self._defer = (head.for_inference().to(vllm_config.device_config.device), getattr(config, ID_KEY))

    def compute_logits(self, hidden_states: torch.Tensor) -> torch.Tensor | None:
        """Logits, [batch, vocab_size], with the score in the reserved id's column.

        Args:
            hidden_states: [batch, hidden_size].
        """
        logits: torch.Tensor | None = super().compute_logits(hidden_states)  # type: ignore[misc]
        if self._defer is None or logits is None:  # None on ranks that gather nothing
            return logits
        head, token_id = self._defer
        # the sampler reads float32, too; bfloat16 would leave a score three digits
        logits = logits.float()
        logits[:, token_id] = head(hidden_states, logits) - OFFSET
        return logits


class RelayLlamaForCausalLM(DeferMixin, LlamaForCausalLM):
    """Llama with a head."""


class RelayQwen2ForCausalLM(DeferMixin, Qwen2ForCausalLM):
    """Qwen2 and Qwen2.5 with a head."""


class RelayQwen3ForCausalLM(DeferMixin, Qwen3ForCausalLM):
    """Qwen3 with a head."""
