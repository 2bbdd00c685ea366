"""verl's vLLM replica on vLLM's CPU build, so that weight updates reach the engine.

The student's engine during training has the linear layers of `repacking`; an engine that only reads its model's files
has vLLM's own. Remove when vLLM's CPU layers reload weights in place.
"""

from __future__ import annotations

import dataclasses
import importlib
import os
from typing import Any

import ray
from verl.workers.rollout.vllm_rollout.utils import vLLMColocateWorkerExtension
from verl.workers.rollout.vllm_rollout.vllm_async_server import vLLMHttpServer, vLLMReplica

from relay_verl.cpu import READS_WEIGHTS
from relay_verl.cpu.heap import trim
from relay_verl.cpu.repacking import pack, unpack
from relay_verl.cpu.served_adapter import add_adapter
from relay_verl.cpu.threads import engine_environment

_DISPATCH = "dispatch_cpu_unquantized_gemm"
_PUNICA = "vllm.lora.punica_wrapper.punica_cpu"
_USERS = (
    "vllm.model_executor.layers.utils",
    "vllm.model_executor.layers.linear",
    "vllm.model_executor.layers.vocab_parallel_embedding",
)


class CpuWorkerExtension(vLLMColocateWorkerExtension):
    """verl's extension of vLLM's worker, made before the model loads; a LoRA adapter costs what its products cost."""

    def __new__(cls, **kwargs: Any) -> Any:
        importlib.import_module(_PUNICA).PunicaWrapperCPU.add_lora_linear = add_adapter
        return super().__new__(cls, **kwargs)


class UpdatedWorkerExtension(CpuWorkerExtension):
    """The same with linear layers whose weights can be sent anew."""

    def __new__(cls, **kwargs: Any) -> Any:
        for name in _USERS:
            module = importlib.import_module(name)
            if hasattr(module, _DISPATCH):
                setattr(module, _DISPATCH, pack)
        return super().__new__(cls, **kwargs)

    def update_weights_from_ipc(
        self, peft_config: dict[str, Any] | None = None, base_sync_done: bool = False, use_shm: bool = False
    ) -> None:
        """verl's, which has vLLM process all layers at its end, and so pack them; an adapter leaves them alone."""
        if not (peft_config and base_sync_done):
            for model in self._iter_all_models():
                unpack(model)
        super().update_weights_from_ipc(peft_config=peft_config, base_sync_done=base_sync_done, use_shm=use_shm)
        trim()  # as much as all weights is free now, in pieces that the C library would keep


class CpuVLLMHttpServer(vLLMHttpServer):
    """verl's server with one of these extensions: the second where weights are to come from a trainer."""

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        os.environ.update(engine_environment(os.environ))  # before vLLM starts its workers, which inherit it
        os.environ.pop("VLLM_BATCH_INVARIANT", None)  # verl sets it for `full_determinism`; its kernels are for GPUs
        # An engine of one worker computes in its core's process. vLLM takes that to be one without OpenMP's variables,
        # which it has from here, and refuses it unless this one is 0; AsyncLLM does not read it.
        os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"

    def _preprocess_engine_kwargs(self, engine_kwargs: dict[str, Any]) -> None:
        super()._preprocess_engine_kwargs(engine_kwargs)
        if self.config.tensor_model_parallel_size == 1:
            engine_kwargs.setdefault("distributed_executor_backend", "uni")  # verl's choice is a process of its own

    def _get_worker_extension_cls(self) -> str:
        extension = CpuWorkerExtension if self.config.load_format == READS_WEIGHTS else UpdatedWorkerExtension
        return f"{extension.__module__}.{extension.__qualname__}"


class CpuVLLMReplica(vLLMReplica):
    """verl's replica with that server."""

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        config: Any = self.config  # type: ignore[has-type]
        if config.full_determinism:  # what a response is must not depend on what else is in the batch
            self.config = dataclasses.replace(config, max_num_seqs=1, enable_prefix_caching=False)
        self.server_class = ray.remote(CpuVLLMHttpServer)
