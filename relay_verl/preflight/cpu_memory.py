"""What a training recipe takes of memory where everything runs on CPU, term by term, against what the node has.

An estimate: a term that is not known, such as the size of a hub model that is not in the cache, counts as nothing.
The constants are fitted to a run of the real pair (examples/real/README.md), whose peak is 22 GB.
"""

from __future__ import annotations

import os
from typing import Any

from omegaconf import OmegaConf

from relay_verl import cpu
from relay_verl.errors import UserError
from relay_verl.models.address import count_parameters
from relay_verl.preflight.check import CheckWarning
from relay_verl.recipes.adapter import count_adapter, rank_of
from relay_verl.recipes.shapes import shape_of
from relay_verl.run_config import RunConfig, VerlConfig

GB = 1e9
PROCESSES_GB = 7.6
"""Ray, the trainer's driver, the agent loop's and the reward's workers, the trainer without its model."""
ENGINE_GB = 1.3
"""Each vLLM engine without its model and cache: 0.6 the server, 0.7 the core that computes."""
TOLERANCE = 0.85
"""Share of the estimate that has to be free; less is refused, and between this and the whole is a warning."""
_TOKEN = 10_000
"""Bytes of a token of the vocabulary: some ten processes hold a tokenizer."""
_TRAINED, _FROZEN = 16, 4
"""Bytes of a parameter in the trainer: weight, gradient and Adam's two moments in 32 bits; the weight alone."""
_LOGIT = 12
"""Bytes of a logit in a micro-batch: in the forward pass' format, in 32 bits, its log-softmax, its gradient."""
_BYTES = {"float32": 4, "fp32": 4}
_SPACE = "VLLM_CPU_KVCACHE_SPACE"
"""vLLM's variable with the size of an engine's cache, in GiB."""


def cpu_terms(run: RunConfig) -> dict[str, float]:
    """Bytes that a recipe takes on CPU, by what takes them."""
    config = run.verl
    actor, rollout = config.actor_rollout_ref.actor, config.actor_rollout_ref.rollout
    model = config.actor_rollout_ref.model
    student, shape = count_parameters(model.path) or 0, shape_of(model.path)
    adapter = (count_adapter(shape, model) or 0) if shape else 0
    has_reference = actor.use_kl_loss and not rank_of(model)  # else it is the student without its adapter
    trained = _FROZEN * student + _TRAINED * adapter if rank_of(model) else _TRAINED * student
    sequences = int(actor.ppo_micro_batch_size_per_gpu or 1)
    length = config.data.max_prompt_length + config.data.max_response_length
    teachers = [teacher for teacher in run.teachers.values() if teacher.path]
    of_student = max(1, run.trainer.gpus_per_node // int(rollout.tensor_model_parallel_size))
    num_engines = of_student + sum(teacher.num_replicas for teacher in teachers)
    vocab = shape.vocab if shape else 0
    return {
        "the trained student": trained,
        "the reference": _FROZEN * student if has_reference else 0,
        "the copy that it computes with": _BYTES.get(_compute_type(actor), 2) * student,
        "a micro-batch's logits": _LOGIT * sequences * length * vocab,
        "the student's engines": of_student * _in_engine(model.path, rollout.dtype),
        "the teacher": sum(
            teacher.num_replicas * _in_engine(teacher.path, teacher.dtype or rollout.dtype) for teacher in teachers
        ),
        "caches": _cache_bytes(config) * num_engines,
        "tokenizers": _TOKEN * vocab,
        "processes": (PROCESSES_GB + ENGINE_GB * num_engines) * GB,
    }


def check_bucket(config: VerlConfig) -> str:
    """The student's embedding, its largest weight, goes through shared memory to its engine in one piece.

    Raises:
        UserError: the pieces are too small for it.
    """
    shape = shape_of(config.actor_rollout_ref.model.path)
    if not cpu.is_chosen() or shape is None:
        return "no limit is known"
    key = "actor_rollout_ref.rollout.checkpoint_engine.update_weights_bucket_megabytes"
    bucket = int(OmegaConf.select(config, key))
    # the sums of base and adapter are sent as the trainer has them (`relay_verl.cpu.lora_weights`)
    size = 4 if rank_of(config.actor_rollout_ref.model) else _bytes_of(config.actor_rollout_ref.rollout.dtype)
    embedding = shape.num_embedding * size
    if embedding > bucket * 2**20:
        raise UserError(
            f"{key}={bucket}: the embedding of {config.actor_rollout_ref.model.path} is {embedding / 2**20:.0f} MiB "
            f"and goes to vLLM in one piece; take {-(-embedding // 2**20)} or more"
        )
    return f"{embedding / 2**20:.0f} of {bucket} MiB"


def _compute_type(actor: Any) -> str:
    return str(OmegaConf.select(actor, "fsdp_config.mixed_precision.param_dtype") or "bf16")


def _cache_bytes(config: VerlConfig) -> float:
    """Bytes of an engine's KV cache, as vLLM reads its settings."""
    given = OmegaConf.select(config, "actor_rollout_ref.rollout.engine_kwargs.vllm.kv_cache_memory_bytes")
    variables = OmegaConf.select(config, "ray_kwargs.ray_init.runtime_env.env_vars") or {}
    space = variables.get(_SPACE, os.environ.get(_SPACE))
    return float(float(space) * 2**30 if space else given or 0)  # vLLM takes the variable before the option


def _in_engine(path: str | None, dtype: str) -> float:
    """Bytes of a model in an engine, whose kernels have a copy of a tied embedding as the head."""
    shape = shape_of(path)
    head = shape.num_embedding if shape and shape.is_tied else 0
    return _bytes_of(dtype) * ((count_parameters(path or "") or 0) + head)


def _bytes_of(dtype: str) -> int:
    """Bytes of a number in a format; `auto` is the file's, which is 16 bits nearly always."""
    return _BYTES.get(str(dtype), 2)


def check_cpu_memory(terms: dict[str, float], where: str, free: float, total: float) -> CheckWarning | None:
    """The node has room for all terms.

    Raises:
        UserError: it has too little, or too little is free.
    """
    needed = sum(terms.values())
    detail = ", ".join(f"{name} {size / GB:.1f}" for name, size in terms.items() if size >= 0.05 * GB)
    figures = f"{where}: {free / GB:.1f} of {total / GB:.1f} GB of memory are free; on CPU this takes some "
    figures += f"{needed / GB:.1f} ({detail})"
    if free < TOLERANCE * needed:
        raise UserError(
            f"{figures}: end what else runs, or take smaller models, LoRA (actor_rollout_ref.model.lora_rank), "
            "relay.teacher.dtype=bfloat16, smaller micro-batches, or GPUs"
        )
    return CheckWarning(figures) if free < needed else None
