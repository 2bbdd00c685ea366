"""vLLM's CPU layers, packed for its kernels, get new weights."""

import psutil
import pytest
import torch

pytest.importorskip("vllm")

from vllm import _custom_ops as ops
from vllm.model_executor.layers import utils

from relay_verl.cpu import heap, repacking

ROWS = torch.randn(3, 32, generator=torch.Generator().manual_seed(0))


def layer_of(weight: torch.Tensor) -> torch.nn.Module:
    layer = torch.nn.Module()
    layer.weight = torch.nn.Parameter(weight.clone(), requires_grad=False)
    return layer


def is_packed_here(weight: torch.Tensor) -> bool:
    """Whether oneDNN has a product for such weights on this processor; of 16 bits not every one has."""
    try:
        ops.create_onednn_mm(weight.t(), 1)
    except RuntimeError:
        return False
    return True


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_packed_layer_computes_with_the_weights_of_its_last_update(dtype: torch.dtype) -> None:
    first, second = (torch.randn(48, 32, generator=torch.Generator().manual_seed(seed)).to(dtype) for seed in (1, 2))
    layer, rows = layer_of(first), ROWS.to(dtype)
    for weight in (first, second):
        repacking.unpack(layer)
        layer.weight.data.copy_(weight)
        repacking.pack(layer, remove_weight=True)
        torch.testing.assert_close(layer.cpu_linear(rows, layer.weight, None), rows @ weight.T, rtol=2e-2, atol=2e-2)
        assert layer.weight.shape == (48, 32)
        assert layer.weight.untyped_storage().nbytes() == (0 if is_packed_here(weight) else weight.nbytes)


def test_the_rows_of_a_tied_embedding_stay() -> None:
    weight = torch.ones(48, 32)
    layer = layer_of(weight)
    repacking.pack(layer, remove_weight=False)
    assert torch.equal(layer.weight, weight)


def test_a_weight_that_onednn_refuses_keeps_its_layout() -> None:
    """Of 64-bit numbers, for which oneDNN has no product; vLLM's own dispatch falls back likewise."""
    assert is_packed_here(torch.ones(48, 32)), "the other tests are of packed layers"
    weight = torch.randn(48, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    layer, rows = layer_of(weight), ROWS.double()
    repacking.pack(layer, remove_weight=True)
    torch.testing.assert_close(layer.cpu_linear(rows, layer.weight, None), rows @ weight.T)
    repacking.unpack(layer)
    assert torch.equal(layer.weight, weight)


def test_vllm_calls_a_layer_by_the_same_name() -> None:
    layer = layer_of(torch.ones(48, 32))
    utils.dispatch_cpu_unquantized_gemm(layer, False)
    assert "cpu_linear" in vars(layer)


def test_freed_memory_is_given_back() -> None:
    pieces = [torch.ones(1 << 12) for _ in range(1 << 14)]  # 256 MiB, each too small for a mapping of its own
    kept, held = pieces[::64], psutil.Process().memory_info().rss
    del pieces
    heap.trim()
    assert psutil.Process().memory_info().rss < held - (1 << 27), len(kept)
