"""What each model's server computes with: GPUs and a share of their memory, or cores and a cache on CPU. Pure but for
`find_gpus`.

Each model has GPUs of its own where there are two. On one GPU both share its memory: each gets its weights and half of
what is left for caches. An installation of vLLM's CPU build uses no GPU.
"""

from __future__ import annotations

import csv
import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from relay_verl.cpu.threads import split_cores
from relay_verl.errors import UserError, as_user_error

GPU_SHARE = 0.9
"""Share of a GPU's memory that the servers on it take together: vLLM's own default."""
CPU_CACHE_BYTES = 2 << 30
"""Cache of each model on CPU, unless told otherwise."""
SMI_TIMEOUT_S = 30.0
"""Seconds for nvidia-smi: on a machine with many GPUs whose driver is not loaded it takes many."""
_GB = 1e9


@dataclass(frozen=True)
class Gpu:
    """A GPU of this machine."""

    index: str
    """Its number to nvidia-smi and to CUDA_VISIBLE_DEVICES."""
    total_bytes: float
    """Its memory."""
    free_bytes: float
    """What of it no process has."""


@dataclass(frozen=True)
class Placement:
    """What one model's server computes with."""

    gpus: tuple[str, ...] = ()
    """Its GPUs, over which the model is split; none on CPU."""
    memory_share: float | None = None
    """Share of each GPU's memory that it may take (`gpu_memory_utilization`)."""
    num_threads: int = 1
    """Threads on CPU."""
    cache_bytes: int | None = None
    """Size of its cache; None lets vLLM take what is left of its memory."""

    @property
    def is_cpu(self) -> bool:
        """Whether it runs on vLLM's CPU build."""
        return not self.gpus


@dataclass(frozen=True)
class PlacedModel:
    """A model that is to be placed."""

    role: str
    """`student` or `teacher`."""
    weight_bytes: float
    """Of its weights in the server; 0 if unknown."""
    gpus: tuple[str, ...] = ()
    """The GPUs that the user names; none lets `place_on_gpus` choose."""


def place_on_cpu(models: Sequence[PlacedModel], cache_bytes: int | None = None) -> dict[str, Placement]:
    """The cores of this machine, split among the models, which may write at the same time; by role."""
    threads = split_cores(len(models))
    return {
        model.role: Placement(num_threads=threads, cache_bytes=CPU_CACHE_BYTES if cache_bytes is None else cache_bytes)
        for model in models
    }


def place_on_gpus(
    models: Sequence[PlacedModel], gpus: Sequence[Gpu], cache_bytes: int | None = None
) -> dict[str, Placement]:
    """The GPUs and the share of their memory of each model, by role.

    Args:
        models: the student, the teacher.
        gpus: that this process may use.
        cache_bytes: of each model's cache; None for what is left.

    Raises:
        UserError: a GPU is not there, the models do not fit, or other processes have the memory.
    """
    known = {gpu.index: gpu for gpu in gpus}
    free = [index for index in known if not any(index in model.gpus for model in models)]
    chosen: dict[str, tuple[str, ...]] = {}
    for number, model in enumerate(models):
        if unknown := [index for index in model.gpus if index not in known]:
            raise UserError(f"--{model.role}-gpus: {', '.join(unknown)} is not here; there are {', '.join(known)}")
        chosen[model.role] = model.gpus or ((free or list(known))[min(number, len(free or known) - 1)],)
    shares = {model.role: GPU_SHARE for model in models}
    for index, gpu in known.items():
        here = [model for model in models if index in chosen[model.role]]
        if not here:
            continue
        # what each keeps of a model that is split over its GPUs
        weights = {model.role: model.weight_bytes / len(chosen[model.role]) for model in here}
        left = GPU_SHARE * gpu.total_bytes - sum(weights.values())
        if left <= 0:
            raise UserError(
                f"GPU {index} has {gpu.total_bytes / _GB:.1f} GB, and the weights of {' and '.join(weights)} take "
                f"{sum(weights.values()) / _GB:.1f} GB: name more GPUs (--student-gpus, --teacher-gpus), or take "
                "smaller models"
            )
        for role, size in weights.items():
            shares[role] = min(shares[role], (size + left / len(here)) / gpu.total_bytes)
        if gpu.free_bytes < sum(shares[role] for role in weights) * gpu.total_bytes:
            raise UserError(
                f"GPU {index}: {gpu.free_bytes / _GB:.1f} of {gpu.total_bytes / _GB:.1f} GB are free, and "
                f"{' and '.join(weights)} need {sum(shares[role] for role in weights):.0%}: end what else uses it, or "
                "name another GPU"
            )
    return {
        role: Placement(gpus=indices, memory_share=shares[role], cache_bytes=cache_bytes)
        for role, indices in chosen.items()
    }


def share_a_gpu(placements: Mapping[str, Placement]) -> bool:
    """Whether two of the servers compute on one GPU. vLLM measures what memory is free while it starts, so these start
    one after the other."""
    indices = [index for placement in placements.values() for index in placement.gpus]
    return len(indices) > len(set(indices))


def find_gpus() -> list[Gpu]:
    """The GPUs that this process may use, by nvidia-smi: asking CUDA would take memory on each of them.

    Raises:
        UserError: there is none.
    """
    smi = shutil.which("nvidia-smi")
    if smi is None:
        raise UserError(f"no GPU: this machine has no nvidia-smi, {_NO_GPU}")
    query = [smi, "--query-gpu=index,uuid,memory.total,memory.free", "--format=csv,noheader,nounits"]
    with as_user_error((OSError, subprocess.SubprocessError), f"no GPU: nvidia-smi failed, {_NO_GPU}"):
        listed = subprocess.run(query, capture_output=True, text=True, timeout=SMI_TIMEOUT_S, check=True).stdout
    gpus = visible_gpus(listed, os.environ.get("CUDA_VISIBLE_DEVICES"))
    if not gpus:
        raise UserError(f"no GPU: nvidia-smi lists none that CUDA_VISIBLE_DEVICES allows, {_NO_GPU}")
    return gpus


_NO_GPU = "and this installation of vLLM needs one: take a machine with a GPU, or install relay-verl[cpu]"


def visible_gpus(listed: str, visible: str | None) -> list[Gpu]:
    """The GPUs of nvidia-smi's list that `CUDA_VISIBLE_DEVICES` allows, by its names for them.

    Args:
        listed: lines of index, UUID, total and free MiB.
        visible: the variable; None if it is not set.
    """
    rows = [[cell.strip() for cell in row] for row in csv.reader(listed.splitlines()) if len(row) == 4]
    gpus = {name: Gpu(name, *(float(size) * (1 << 20) for size in row[2:])) for row in rows for name in row[:2]}
    names = [row[0] for row in rows] if visible is None else [name.strip() for name in visible.split(",")]
    return [gpus[name] for name in names if name in gpus]
