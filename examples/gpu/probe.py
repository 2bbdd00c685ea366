"""What a GPU machine has: versions, memory, disk, and how fast bf16 products, attention and copies are.

python examples/gpu/probe.py
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

PACKAGES = ("torch", "triton", "transformers", "vllm", "verl", "ray", "tensordict", "TransferQueue")
ROUNDS = 10


def seconds_of(work: Callable[[], object]) -> float:
    """Median seconds of `work` on the device, after two rounds of warm-up."""
    times = []
    for _ in range(ROUNDS + 2):
        synchronize()
        started = time.perf_counter()
        work()
        synchronize()
        times.append(time.perf_counter() - started)
    return sorted(times[2:])[ROUNDS // 2]


def synchronize() -> None:
    """Wait for the device."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def installed(name: str) -> str:
    """The version of a package, or that it is missing."""
    try:
        return version(name)
    except PackageNotFoundError:
        return "missing"


def main() -> None:
    has_gpu = torch.cuda.is_available()
    print("Python", sys.version.split()[0], *(f"{name} {installed(name)}" for name in PACKAGES), sep=", ")
    print(f"disk: {shutil.disk_usage('/tmp').free / 2**30:.0f} GiB free in /tmp")
    if has_gpu:
        query = "--query-gpu=name,driver_version,memory.total,memory.used"
        print(
            subprocess.run(["nvidia-smi", query, "--format=csv,noheader"], capture_output=True, text=True).stdout,
            end="",
        )
    device, size, length = ("cuda", 8192, 4096) if has_gpu else ("cpu", 256, 128)
    left, right = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
    print(f"bf16 product of {size} x {size}: {2e-12 * size**3 / seconds_of(lambda: left @ right):.1f} TFLOP/s")
    print(f"copy: {2e-12 * left.nbytes / seconds_of(left.clone):.2f} TB/s, read and written")
    query, key, value = (
        torch.randn(1, heads, length, 128, device=device, dtype=torch.bfloat16) for heads in (16, 16, 16)
    )
    attention = torch.nn.functional.scaled_dot_product_attention
    mask = torch.ones(length, length, device=device, dtype=torch.bool).tril()
    variants: dict[str, dict[str, Any]] = {"causal": {"is_causal": True}, "with a mask": {"attn_mask": mask}}
    for name, options in variants.items():
        milliseconds = 1e3 * seconds_of(partial(attention, query, key, value, **options))
        print(f"attention over {length} tokens of 16 heads, {name}: {milliseconds:.2f} ms")


if __name__ == "__main__":
    main()
