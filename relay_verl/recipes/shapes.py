"""The shape of a dense decoder-only transformer, and what follows from it: parameters, bytes of its KV cache.

The counts are arithmetic on the shape; the Qwen3 models' shapes stand here, any other is read from its config.json.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from relay_verl.models.address import config_in_cache


@dataclass(frozen=True)
class Shape:
    """What a config.json says of a transformer with gated MLPs and grouped-query attention."""

    num_layers: int
    hidden: int
    """Width of the residual stream."""
    num_heads: int
    num_kv_heads: int
    intermediate: int
    """Width inside the MLP."""
    head_dim: int = 128
    vocab: int = 151936
    """Rows of the embedding, padding included."""
    is_tied: bool = False
    """Whether the head is the embedding itself."""
    has_head_norms: bool = True
    """Whether queries and keys are normed a head, as in Qwen3."""

    @property
    def num_embedding(self) -> int:
        """Parameters of the embedding."""
        return self.vocab * self.hidden

    @property
    def num_layer(self) -> int:
        """Parameters of one layer: query and output, key and value, the gated MLP, two norms, the head norms."""
        attention = 2 * self.hidden * self.head_dim * (self.num_heads + self.num_kv_heads)
        norms = 2 * self.hidden + (2 * self.head_dim if self.has_head_norms else 0)
        return attention + 3 * self.hidden * self.intermediate + norms

    @property
    def num_inner(self) -> int:
        """Parameters without embedding and head."""
        return self.num_layers * self.num_layer + self.hidden

    @property
    def num_vocab(self) -> int:
        """Parameters of embedding and head."""
        return self.num_embedding * (1 if self.is_tied else 2)

    @property
    def num_parameters(self) -> int:
        """All parameters; a tied head counts once."""
        return self.num_inner + self.num_vocab

    @property
    def kv_bytes(self) -> int:
        """Bytes a token takes in a bf16 KV cache: a key and a value a layer."""
        return 2 * 2 * self.num_layers * self.num_kv_heads * self.head_dim


SHAPES = {
    "Qwen/Qwen3-0.6B": Shape(28, 1024, 16, 8, 3072, is_tied=True),
    "Qwen/Qwen3-1.7B": Shape(28, 2048, 16, 8, 6144, is_tied=True),
    "Qwen/Qwen3-4B": Shape(36, 2560, 32, 8, 9728, is_tied=True),
    "Qwen/Qwen3-8B": Shape(36, 4096, 32, 8, 12288),
    "Qwen/Qwen3-14B": Shape(40, 5120, 40, 8, 17408),
    "Qwen/Qwen3-32B": Shape(64, 5120, 64, 8, 25600),
}


def shape_of(address: str | None) -> Shape | None:
    """The shape of a model: a hub id that is in the table or in the hub's local cache, or a folder with a config.json.

    None if it is unknown: elsewhere, or not of this kind (a mixture of experts, say).
    """
    if address is None:
        return None
    if address in SHAPES:
        return SHAPES[address]
    facts = read_model_config(address)
    return None if facts is None else read_shape(facts)


def read_model_config(address: str) -> dict[str, Any] | None:
    """The config.json of a model, in its folder or in the hub's local cache; None if it is not here or is damaged."""
    in_folder = Path(address).expanduser() / "config.json"
    file = in_folder if in_folder.is_file() else config_in_cache(address)
    if file is None:
        return None
    try:
        facts = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return facts if isinstance(facts, dict) else None


def read_shape(facts: dict) -> Shape | None:
    """The shape that the content of a config.json describes; None if it lacks a number or has experts."""
    if any("expert" in key for key in facts):
        return None
    try:
        heads, hidden = int(facts["num_attention_heads"]), int(facts["hidden_size"])
        return Shape(
            num_layers=int(facts["num_hidden_layers"]),
            hidden=hidden,
            num_heads=heads,
            num_kv_heads=int(facts.get("num_key_value_heads") or heads),
            intermediate=int(facts["intermediate_size"]),
            head_dim=int(facts.get("head_dim") or hidden // heads),
            vocab=int(facts["vocab_size"]),
            is_tied=bool(facts.get("tie_word_embeddings", False)),
            has_head_norms=str(facts.get("model_type", "")).startswith("qwen3"),
        )
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        return None
