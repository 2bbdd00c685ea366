"""vLLM's offline engine in this process, on what a recipe gives its engines: what the benchmarks compare with."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from relay_verl.config import TeacherSettings
from relay_verl.cpu.threads import engine_environment
from relay_verl.run_config import RunConfig

if TYPE_CHECKING:
    from vllm import LLM


def set_engine_environment(run: RunConfig) -> None:
    """Give this process the environment of the engines in Ray. Before torch computes, and before Ray starts: the
    environment of a cluster that is started later is the recipe's own."""
    from omegaconf import OmegaConf

    variables = OmegaConf.select(run.verl, "ray_kwargs.ray_init.runtime_env.env_vars") or {}
    for name, value in engine_environment(variables).items():
        os.environ.setdefault(name, str(value))


def offline_engine(run: RunConfig, model: TeacherSettings, path: str) -> LLM:
    """The model at `path` as the recipe starts it, with the limits of `model`."""
    from vllm import LLM

    rollout = run.verl.actor_rollout_ref.rollout
    return LLM(
        path,
        dtype=rollout.dtype,
        enforce_eager=rollout.enforce_eager,
        max_model_len=run.lengths.max_context,
        max_num_seqs=model.max_num_seqs,
        tensor_parallel_size=model.tensor_parallel_size,
        gpu_memory_utilization=model.gpu_memory_utilization,
    )
