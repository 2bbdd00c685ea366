"""verl's platform interface for a machine without an accelerator."""

from __future__ import annotations

import types
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psutil
import torch
from verl.plugin.platform.platform_base import PlatformBase
from verl.plugin.platform.platform_manager import PlatformRegistry

from relay_verl.cpu.heap import trim


class _CpuDeviceModule(types.ModuleType):
    """`torch.cpu` with what verl asks of `torch.cuda` besides; memory is that of the process, in bytes."""

    def __getattr__(self, name: str) -> Any:
        return getattr(torch.cpu, name)

    @staticmethod
    def memory_allocated(*_: Any, **__: Any) -> int:
        return int(psutil.Process().memory_info().rss)

    memory_reserved = max_memory_allocated = max_memory_reserved = memory_allocated

    @staticmethod
    def mem_get_info(*_: Any, **__: Any) -> tuple[int, int]:
        memory = psutil.virtual_memory()
        return memory.available, memory.total

    @staticmethod
    def _nothing(*_: Any, **__: Any) -> None:
        return None

    reset_peak_memory_stats = ipc_collect = set_device = _nothing

    @staticmethod
    def empty_cache() -> None:
        trim()

    @staticmethod
    def _true(*_: Any, **__: Any) -> bool:
        return True

    is_available = is_bf16_supported = _true

    @staticmethod
    def get_device_name(*_: Any) -> str:
        return "cpu"

    get_rng_state = staticmethod(torch.get_rng_state)
    set_rng_state = staticmethod(torch.set_rng_state)
    manual_seed = staticmethod(torch.manual_seed)


@PlatformRegistry.register(platform="cpu")
class CpuPlatform(PlatformBase):
    """CPU with gloo. Ray schedules it by logical resources called GPU, as verl's pools ask for."""

    device_name = "cpu"
    vendor_name = "cpu"
    device_module = _CpuDeviceModule("relay_verl.cpu.device")

    def is_available(self) -> bool:
        return True

    def is_platform_available(self, use_smi_check: bool = False) -> bool:
        return False  # never chosen by detection

    def current_device(self) -> Any:
        return "cpu"

    def device_count(self) -> int:
        return 1

    def set_device(self, device_index: int) -> None:
        return None

    def synchronize(self, device_index: int | None = None) -> None:
        return None

    def manual_seed(self, seed: int) -> None:
        torch.manual_seed(seed)

    manual_seed_all = manual_seed

    def set_allocator_settings(self, settings: str) -> None:
        return None

    def empty_cache(self) -> None:
        trim()

    def get_device_capability(self, device_index: int = 0) -> tuple[int | None, int | None]:
        return None, None

    def communication_backend_name(self) -> str:
        return "gloo"

    def visible_devices_envvar(self) -> str:
        return "CUDA_VISIBLE_DEVICES"

    @contextmanager
    def nvtx_range(self, msg: str) -> Iterator[None]:
        yield

    def profiler_start(self) -> None:
        return None

    profiler_stop = profiler_start

    def ray_resource_name(self) -> str:
        return "GPU"

    def ray_noset_envvars(self) -> list[str]:
        return []

    def ray_resource_options(self, num_gpus: float) -> dict[str, Any]:
        return {"num_gpus": num_gpus}

    def is_ipc_supported(self) -> bool:
        return False  # weights then travel by shared memory

    def cudart(self) -> None:
        return None
