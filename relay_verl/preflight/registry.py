"""What is checked, in its order: the same lists before a training and in `relay-verl doctor`.

A check that is one more line here runs in both.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from relay_verl.checkpoints.lock import check_free
from relay_verl.checkpoints.resume import check_every_byte, check_resume, check_sft_resume
from relay_verl.models.address import check_model
from relay_verl.preflight.attention_checks import check_attention
from relay_verl.preflight.check import Check
from relay_verl.preflight.config_checks import (
    check_batch_sizes,
    check_declared_gpus,
    check_micro_batch_sizes,
    check_platform,
    check_recipe_choice,
    check_recipe_was_found,
    check_replica_gpus,
    check_settings,
    check_sft_platform,
)
from relay_verl.preflight.contradictions import check_contradictions
from relay_verl.preflight.counts import check_num_rows, check_validation_rows, check_warmup_rows
from relay_verl.preflight.cpu_memory import check_bucket
from relay_verl.preflight.data_checks import check_data_sources, check_dataset, check_warmup_data
from relay_verl.preflight.distillation_checks import check_distillation, check_topk
from relay_verl.preflight.install_checks import (
    check_engine,
    check_packages,
    check_plugin,
    check_python,
    check_search_path,
)
from relay_verl.preflight.lengths import check_lengths
from relay_verl.preflight.loggers import check_loggers
from relay_verl.preflight.lora import check_lora
from relay_verl.preflight.machine import check_disk, check_own_gpus, check_ports
from relay_verl.preflight.model_checks import check_student_model, check_teacher_models, check_tokenizers
from relay_verl.preflight.ray_checks import (
    check_memory,
    check_models_there,
    check_placement,
    check_ray,
    check_teacher_nodes,
    check_workers,
)
from relay_verl.preflight.student import (
    check_student_given,
    check_student_size,
    check_trains_student,
    check_warmed_up,
)
from relay_verl.preflight.trials import check_training_completions, check_training_prompts
from relay_verl.preflight.wiring import (
    check_agent_loop,
    check_dataset_class,
    check_groups,
    check_replay_buffer,
    check_reward_manager,
    check_teacher_tokens,
    check_trainer,
)
from relay_verl.run_config import RunConfig, VerlConfig, check_references


def _of_verl(check: Callable[[VerlConfig], Any]) -> Callable[[RunConfig], Any]:
    """A check of keys that verl reads and no part of `RunConfig` has."""
    return lambda run: check(run.verl)


INSTALLATION = (
    Check("Python", check_python),
    Check("packages", check_packages),
    Check("plugin", check_plugin, after=("packages",)),
    Check("Hydra's search path", check_search_path),
)
"""Of no argument."""

RECIPE_CHOICE = (Check("recipe's own keys", _of_verl(check_recipe_choice)),)
"""Of the `RunConfig` of any composed config."""

RECIPE = (
    Check("recipe", _of_verl(check_recipe_was_found)),
    *RECIPE_CHOICE,
    Check("relay settings", check_settings),
    Check("what it trains", check_trains_student, after=("relay settings",)),
    Check("references", _of_verl(check_references), after=("relay settings",)),
    Check("student given", check_student_given, after=("relay settings",)),
    Check("student's size", check_student_size, after=("student given",)),
    Check("contradictions", _of_verl(check_contradictions)),
    Check("platform", _of_verl(check_platform)),
    Check("trainer", _of_verl(check_trainer)),
    Check("agent loop", check_agent_loop, after=("relay settings",)),
    Check("reward manager", _of_verl(check_reward_manager)),
    Check("replay buffer", check_replay_buffer, after=("relay settings",)),
    Check("teacher's tokens", check_teacher_tokens, after=("relay settings",)),
    Check("distillation", check_distillation, after=("relay settings",)),
    Check("batch sizes", _of_verl(check_batch_sizes)),
    Check("micro-batches", _of_verl(check_micro_batch_sizes), after=("batch sizes",)),
    Check("groups", check_groups, after=("relay settings", "batch sizes")),
    Check("GPUs declared", check_declared_gpus, after=("relay settings",)),
    Check("teacher's GPUs", check_replica_gpus, after=("relay settings",)),
    Check("training data", lambda run: check_dataset(run.data, "train_files")),
    Check("validation data", lambda run: check_dataset(run.data, "val_files")),
    Check(
        "data sources",
        lambda run: check_data_sources(run.data, run.relay),
        after=("relay settings", "training data", "validation data"),
    ),
    Check("dataset class", _of_verl(check_dataset_class)),
    Check("rows", check_num_rows, after=("training data", "batch sizes")),
    Check("validation rows", lambda run: check_validation_rows(run.data), after=("validation data",)),
    Check("loggers", _of_verl(check_loggers)),
    Check("student", check_student_model, after=("student given",)),
    Check("student's warm-up", check_warmed_up, after=("student",)),
    Check("weights' way to vLLM", _of_verl(check_bucket), after=("student",)),
    Check("LoRA", _of_verl(check_lora), after=("student",)),
    Check("teacher", check_teacher_models, after=("relay settings",)),
    Check("tokenizers", check_tokenizers, after=("relay settings", "student", "teacher")),
    Check("distillation's tokens", check_topk, after=("distillation", "tokenizers")),
    Check("prompts", check_training_prompts, after=("training data", "validation data", "tokenizers")),
    Check("lengths", check_lengths, after=("prompts", "rows")),
    Check("endpoints' answers", check_training_completions, after=("prompts",)),
    Check("checkpoint folder", lambda run: check_free(run.trainer.folder)),
    Check("checkpoint", _of_verl(check_resume), after=("training data", "student", "teacher")),
)
"""Of a GRPO recipe's `RunConfig`."""

DEEP = (Check("checkpoint, every byte", _of_verl(check_every_byte), after=("checkpoint",)),)
"""Of the same, for `relay-verl doctor --deep`: it takes as long as loading the checkpoint."""

MACHINE = (
    Check("vLLM", lambda run: check_engine(), after=("platform",)),
    Check("attention", _of_verl(check_attention), after=("platform",)),
    Check("ports", _of_verl(check_ports)),
    Check("disk", check_disk, after=("student",)),
)
"""Of the same, about where it starts."""

CLUSTER = (
    Check("Ray", check_ray, after=("recipe", "platform", "packages", "ports")),
    Check("GPUs", check_placement, after=("Ray", "relay settings", "batch sizes", "teacher's GPUs")),
    Check("teacher's nodes", check_teacher_nodes, after=("GPUs",)),
    Check("Ray workers", check_workers, after=("Ray", "relay settings")),
    Check("models on the nodes", check_models_there, after=("Ray workers", "student", "teacher")),
    Check("memory", check_memory, after=("Ray workers",)),
)
"""Of the same and the `Cluster`."""

WARMUP = (
    *RECIPE_CHOICE,
    Check("platform", _of_verl(check_sft_platform)),
    Check("student", lambda run: check_model("model.path", run.verl.model.path)),
    Check("LoRA", _of_verl(check_lora), after=("student",)),
    Check("warm-up's data", lambda run: check_warmup_data(run.data)),
    Check("rows", lambda run: check_warmup_rows(run.data), after=("warm-up's data",)),
    Check("checkpoint folder", lambda run: check_free(run.trainer.folder)),
    Check("checkpoint", _of_verl(check_sft_resume)),
    Check("loggers", _of_verl(check_loggers)),
    Check("attention", _of_verl(check_attention), after=("platform",)),
)
"""Of a warm-up recipe's `RunConfig`, for verl's SFT trainer."""

WARMUP_MACHINE = (
    Check("disk", check_disk),
    Check("GPUs", lambda run: check_own_gpus(run.trainer), after=("platform",)),
)
"""Of the same, about where it starts; verl's SFT trainer runs without Ray."""
