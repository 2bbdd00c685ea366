"""A student under LoRA as plain weights for the rollout engine: of each layer the base plus what its adapter adds.

verl 0.9.1 rounds these sums to bfloat16, also for an engine in 32 bits, and copies all weights before it adds the
adapters in place. Here each sum is made when its turn comes, in the weights' own type, and the model stays as it is.
Invariant: what is sent is what the trainer computes with; the base weights, which are the reference, never change.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

import torch
from peft.tuners.lora import LoraLayer
from torch.distributed.tensor import DTensor
from verl.utils.fsdp_utils import fsdp_version, normalize_peft_param_name
from verl.utils.model import convert_weight_keys

_BASE = ".base_layer.weight"


def install(engine_module: Any) -> None:
    """Let verl's FSDP engine send the sums below; a second call does nothing."""
    original = engine_module.FSDPEngine._merged_lora_per_tensor_param
    if getattr(original, "is_relay_stream", False):
        return

    @functools.wraps(original)
    def stream(self: Any) -> Iterator[tuple[str, torch.Tensor]]:
        # FSDP1 flattens its parameters, and adapters of bare parameters have names of their own: both are verl's.
        if fsdp_version(self.module) != 2 or self.model_config.target_parameters:
            return original(self)
        return merged_weights(self.module)

    stream.is_relay_stream = True  # type: ignore[attr-defined]
    engine_module.FSDPEngine._merged_lora_per_tensor_param = stream


@torch.no_grad()
def merged_weights(model: torch.nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """Name, as in the base model, and whole weight of each parameter of a PEFT model."""
    layers = {name: layer for name, layer in model.named_modules() if isinstance(layer, LoraLayer)}
    weights: dict[str, Callable[[], torch.Tensor]] = {}
    for name, weight in model.state_dict().items():
        layer = layers.get(name.removesuffix(_BASE)) if name.endswith(_BASE) else None
        weights[name] = functools.partial(_sum, weight, layer)
    named = convert_weight_keys(normalize_peft_param_name(weights), model)
    for name, weight_of in named.items():
        yield name, weight_of()


def _sum(weight: torch.Tensor, layer: Any) -> torch.Tensor:
    total = _whole(weight)
    for adapter in layer.active_adapters if layer is not None else ():
        total = total + _whole(layer.get_delta_weight(adapter))
    return total


def _whole(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor with all its shards."""
    return (tensor.full_tensor() if isinstance(tensor, DTensor) else tensor).detach()
