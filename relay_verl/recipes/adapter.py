"""How many weights LoRA trains, of a composed model config: PEFT's A and B of each linear layer that it adapts."""

from __future__ import annotations

import re
from typing import Any

from relay_verl.recipes.shapes import Shape

ALL_LINEAR = "all-linear"


def rank_of(model: Any) -> int:
    """The rank in verl's model config; 0 where all weights are trained."""
    return int(model.get("lora_rank") or 0)


def count_adapter(shape: Shape, model: Any) -> int | None:
    """Parameters of the adapter on a model of this shape; None where all weights are trained."""
    if not rank_of(model):
        return None
    targets, excluded = model.get("target_modules") or ALL_LINEAR, model.get("exclude_modules")
    widths = 0
    for name, (num_in, num_out) in _linear_layers(shape).items():
        if (targets == ALL_LINEAR or _is_named(name, targets)) and not (excluded and _is_named(name, excluded)):
            widths += num_in + num_out
    return rank_of(model) * shape.num_layers * widths


def _linear_layers(shape: Shape) -> dict[str, tuple[int, int]]:
    """Inputs and outputs of the linear layers in a layer of the transformer, by name."""
    queries, keys = shape.num_heads * shape.head_dim, shape.num_kv_heads * shape.head_dim
    return {
        "self_attn.q_proj": (shape.hidden, queries),
        "self_attn.k_proj": (shape.hidden, keys),
        "self_attn.v_proj": (shape.hidden, keys),
        "self_attn.o_proj": (queries, shape.hidden),
        "mlp.gate_proj": (shape.hidden, shape.intermediate),
        "mlp.up_proj": (shape.hidden, shape.intermediate),
        "mlp.down_proj": (shape.intermediate, shape.hidden),
    }


def _is_named(layer: str, names: Any) -> bool:
    """Whether PEFT's `target_modules` mean a layer: a pattern of the whole name, or ends of it."""
    name = f"model.layers.0.{layer}"
    if isinstance(names, str):
        return re.fullmatch(names, name) is not None
    return any(name == end or name.endswith(f".{end}") for end in names)
