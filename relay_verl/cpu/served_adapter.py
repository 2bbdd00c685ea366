"""A LoRA adapter that vLLM serves on CPU (`model.lora.merge=false`), as two products of matrices.

vLLM's CPU build gathers a copy of A and B for each token of a batch: at 512 tokens that takes many times the time and
memory of the layer itself. Remove when it does not.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch


def add_adapter(
    wrapper: Any,
    y: torch.Tensor,
    x: torch.Tensor,
    lora_a_stacked: Sequence[torch.Tensor],
    lora_b_stacked: Sequence[torch.Tensor],
    scale: float,
    output_slices: Sequence[int],
    **_: Any,
) -> None:
    """`PunicaWrapperCPU.add_lora_linear` where an engine has room for one adapter, as verl's have.

    Args:
        wrapper: knows which tokens belong to a request with the adapter.
        y: [tokens, outputs of all slices], added to in place.
        x: [tokens, inputs].
        lora_a_stacked: of each slice, [1, 1, rank, inputs].
        lora_b_stacked: of each slice, [1, 1, outputs, rank].
        scale: of the products.
        output_slices: outputs of each slice.
    """
    if wrapper.no_lora:
        return
    y, x = y.view(-1, y.shape[-1]), x.view(-1, x.shape[-1])
    has_adapter = (wrapper.token_lora_indices >= 0)[: len(x), None]  # [tokens, 1]
    scaled = x * (has_adapter * scale).to(x.dtype)
    start = 0
    for a, b, num_outputs in zip(lora_a_stacked, lora_b_stacked, output_slices, strict=True):
        rows = b[0, 0, :num_outputs]
        y[:, start : start + len(rows)] += scaled @ a[0, 0].T @ rows.T
        start += num_outputs
