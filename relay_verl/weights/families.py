"""The families of models that a GGUF file is read for: what differs between them.

To add one, add it to `FAMILIES`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, PreTrainedTokenizerFast, Qwen2Config, Qwen2Tokenizer


def _smollm_tokenizer(vocab: dict[str, int], merges: list[tuple[str, str]], **options: Any) -> PreTrainedTokenizerFast:
    """Byte-level BPE that reads digits one at a time: what a GGUF file calls `smollm`."""
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, clean_up_tokenization_spaces=False, **options)


def _apart(weight: torch.Tensor, num_heads: int) -> torch.Tensor:
    """Rows of a projection to queries or keys as transformers rotates them, halves apart; GGUF has pairs side by side.

    Args:
        weight: [heads * head size, hidden].
        num_heads: of queries or of keys.
    """
    pairs = weight.reshape(num_heads, -1, 2, weight.shape[1])
    return pairs.transpose(1, 2).reshape(weight.shape).contiguous()


@dataclass(frozen=True)
class Family:
    """What a GGUF file's `general.architecture` stands for in transformers."""

    config: Callable[..., Any]
    """Makes the config."""
    model: str
    """Class of the model."""
    tokenizer: Callable[..., Any]
    """Makes the tokenizer of `vocab` and `merges`."""
    pre_tokenizer: str
    """`tokenizer.ggml.pre` of the files that this tokenizer reads."""
    pairs_rotations: bool
    """Whether the file's rows of queries and keys are in the order of rotated pairs."""

    def in_order(self, name: str, weight: torch.Tensor, num_heads: int, num_kv_heads: int) -> torch.Tensor:
        """The weight with its rows in transformers' order.

        Args:
            name: the tensor's in the file.
            weight: as the file has it.
            num_heads: heads of queries.
            num_kv_heads: heads of keys.
        """
        if not self.pairs_rotations or not name.endswith(("attn_q.weight", "attn_k.weight")):
            return weight
        return _apart(weight, num_heads if name.endswith("attn_q.weight") else num_kv_heads)


FAMILIES = {
    "qwen2": Family(Qwen2Config, "Qwen2ForCausalLM", Qwen2Tokenizer, "qwen2", pairs_rotations=False),
    "llama": Family(LlamaConfig, "LlamaForCausalLM", _smollm_tokenizer, "smollm", pairs_rotations=True),
}
"""By `general.architecture`."""
