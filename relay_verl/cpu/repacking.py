"""Linear layers of vLLM's CPU build that are packed for its kernels and can still get new weights.

vLLM packs the weights of its linear layers once, after loading, and drops what it packed. A weight update then fails,
and a tied `lm_head` would go stale in silence. Here each weight keeps its shape, and its memory while it is loaded:
`unpack` gives the memory back before an update, and verl has vLLM process the layers again after it, which is `pack`.
Remove when vLLM's CPU layers reload weights in place.
"""

from __future__ import annotations

import logging

import torch
from torch.nn.functional import linear

_logger = logging.getLogger(__name__)
_NUM_SHAPES = 32
"""Numbers of rows for which a layer keeps a kernel, as in vLLM."""


def pack(layer: torch.nn.Module, remove_weight: bool) -> None:
    """Pack a layer's weight: in place of vLLM's `dispatch_cpu_unquantized_gemm`, with its arguments.

    A weight that oneDNN refuses keeps its layout.

    Args:
        layer: with a `weight` of shape (outputs, inputs).
        remove_weight: whether nothing but the product reads the weight. The rows of a tied embedding are read too.
    """
    from vllm import _custom_ops as ops

    if layer.weight.is_meta or layer.weight.ndim != 2 or not ops._supports_onednn:
        layer.cpu_linear = linear
        return
    try:
        packed = ops.create_onednn_mm(layer.weight.t(), _NUM_SHAPES)
    except RuntimeError as error:  # oneDNN has no kernel for this shape or type; vLLM's own dispatch does the same
        _logger.warning("oneDNN does not pack a weight of %s: it stays as it is (%s)", tuple(layer.weight.shape), error)
        layer.cpu_linear = linear
        return
    layer.cpu_linear = lambda x, weight, bias: ops.onednn_mm(packed, x, bias)
    if remove_weight:
        layer.weight.untyped_storage().resize_(0)


def unpack(model: torch.nn.Module) -> None:
    """Drop what `pack` made and give each weight its memory, whose content is undefined until weights are loaded."""
    for layer in model.modules():
        if "cpu_linear" in vars(layer):
            layer.cpu_linear = linear
            layer.weight.untyped_storage().resize_(layer.weight.numel() * layer.weight.element_size())
