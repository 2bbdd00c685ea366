"""Which keys of a run's config may differ when it continues from a checkpoint. All others must be as they were: the run
would be neither the old one nor a new one.

Invariant: a key of the `relay:` node that the record does not have, since an earlier version wrote it, had its default.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from fnmatch import fnmatchcase
from functools import cache
from typing import Any

from relay_verl.checkpoints.record import RunRecord
from relay_verl.config.defaults import default_config
from relay_verl.recipes.recipe import flat
from relay_verl.secrets import HIDDEN

MAY_CHANGE: dict[str, tuple[str, ...]] = {
    "where things are and what they are called": (
        "trainer.default_local_dir",
        "trainer.default_hdfs_dir",
        "trainer.project_name",
        "trainer.experiment_name",
        "trainer.rollout_data_dir",
        "trainer.validation_data_dir",
        "data.train_files",  # compared by their contents
        "*.custom_cls.path",
        "distillation.*model_path",  # follows relay.teacher.path
        "relay.*base_url",
        "relay.*api_key_env",
    ),
    "how the run is watched, saved and resumed": (
        "trainer.logger",
        "trainer.log_val_generations",
        "relay.num_logged_groups",
        "relay.max_failed_call_share",
        "trainer.save_freq",
        "trainer.test_freq",
        "trainer.val_before_train",
        "trainer.val_only",
        "trainer.esi_redundant_time",
        "trainer.resume_mode",
        "trainer.resume_from_path",
        "trainer.checkpoint_callback_class",
        "trainer.remove_previous_ckpt_in_save",
        "trainer.del_local_ckpt_after_load",
        "trainer.max_*_ckpt_to_keep",
        "*.checkpoint.*",
        "*.profiler.*",
        "global_profiler.*",
        "*.trace.*",
        "*.prometheus.*",
    ),
    "validation, which weights do not depend on": (
        "data.val_*",
        "data.validation_shuffle",
        "actor_rollout_ref.rollout.val_kwargs.*",
    ),
    "where the run ends": ("trainer.total_epochs", "trainer.total_training_steps"),
    "how Ray and its workers are started, and how long they are waited for": (
        "ray_kwargs.*",
        "transfer_queue.*",
        "trainer.ray_wait_register_center_timeout",
        "trainer.v1.sampler.sampler_kwargs.*",
        "*.nccl_timeout",
        "*.num_workers",
        "relay.rollout_timeout_s",
        "data.filter_overlong_prompts_workers",
    ),
    "how large the pieces are that a step is computed in": (
        "*micro_batch_size*",
        "*max_token_len_per_gpu",
        "*use_dynamic_bsz",
        "*enable_gradient_checkpointing",
        "*.offload_policy",
        "*.param_offload",
        "*.optimizer_offload",
        "*.forward_prefetch",
        "*.reshard_after_forward",
    ),
    "which kernels compute the same model": ("*.attn_implementation", "*.use_remove_padding"),
    "how an engine serves the same model": (
        "actor_rollout_ref.rollout.gpu_memory_utilization",
        "actor_rollout_ref.rollout.max_num_seqs",
        "actor_rollout_ref.rollout.max_num_batched_tokens",
        "actor_rollout_ref.rollout.enforce_eager",
        "actor_rollout_ref.rollout.free_cache_engine",
        "actor_rollout_ref.rollout.enable_sleep_mode",
        "actor_rollout_ref.rollout.enable_chunked_prefill",
        "actor_rollout_ref.rollout.enable_prefix_caching",
        "actor_rollout_ref.rollout.tensor_model_parallel_size",
        "actor_rollout_ref.rollout.checkpoint_engine.*",
        "actor_rollout_ref.model.lora.merge",
        "distillation.nnodes",
        "distillation.n_gpus_per_node",
        *(f"distillation.*.inference.{name}" for name in ("gpu_memory_utilization", "max_num_seqs", "enforce_eager")),
        *(f"distillation.*.inference.{name}" for name in ("max_num_batched_tokens", "tensor_model_parallel_size")),
        "relay.*num_replicas",
        "relay.*node_resource",
        "relay.*tensor_parallel_size",
        "relay.*gpu_memory_utilization",
        "relay.*max_num_seqs",
        "relay.*timeout_s",
        "relay.*num_retries",
        "relay.*breaker_*",
    ),
    "stage one, which is over": ("relay.warmup.*", "relay.filter.num_samples", "relay.filter.seed"),
}
"""Patterns of keys, by why they may change."""

_ENDS = MAY_CHANGE["where the run ends"]
_PATTERNS = [pattern for patterns in MAY_CHANGE.values() for pattern in patterns]
_NODES, _GPUS = "trainer.nnodes", "trainer.n_gpus_per_node"
_SCHEDULE = "actor_rollout_ref.actor.optim."


def find_changes(old: RunRecord, now: RunRecord) -> Iterator[tuple[str, Any, Any]]:
    """What differs that must not: key, value then, value now."""
    one, other = (default_keys() | record.config for record in (old, now))
    for key in sorted(one.keys() | other.keys()):
        then, today = one.get(key), other.get(key)
        # A secret is not in the record, so it cannot be compared; the number of GPUs is compared as a product below.
        if then == today or HIDDEN in (then, today) or key in (_NODES, _GPUS):
            continue
        # A model may have moved: its files decide. Of a hub id or an endpoint only the address is known.
        if key in old.models or key in now.models:
            identity = old.models.get(key)
            if identity is None or identity != now.models.get(key):
                yield key, then, today
        # The last step may move only where the learning rate does not follow from it.
        elif not any(fnmatchcase(key, pattern) for pattern in _PATTERNS) or (key in _ENDS and not _is_constant(other)):
            yield key, then, today
    # The same path with other files in it, such as a base model that was trained again.
    for key in old.models.keys() & now.models.keys():
        if (
            one.get(key) == other.get(key)
            and old.models[key] != now.models[key]
            and None
            not in (
                old.models[key],
                now.models[key],
            )
        ):
            yield f"{key} (its files)", one.get(key), "other files"
    yield from _find_derived_changes(old, now)


@cache
def default_keys() -> dict[str, Any]:
    """The keys of the `relay:` node at their defaults, as a record has them."""
    plain: dict[str, Any] = json.loads(json.dumps(flat(default_config())))
    return plain


def _find_derived_changes(old: RunRecord, now: RunRecord) -> Iterator[tuple[str, Any, Any]]:
    gpus, gpus_now = (record.config.get(_NODES, 1) * record.config.get(_GPUS, 1) for record in (old, now))
    if gpus != gpus_now:
        yield f"{_GPUS} x {_NODES}", gpus, gpus_now  # verl saves a file a GPU
    # A file that was not on the machine has no hash; unknown is not different.
    known = None not in old.train_files and None not in now.train_files
    if known and old.train_files != now.train_files:
        yield "data.train_files (their contents)", _hashes(old.train_files), _hashes(now.train_files)


def _is_constant(config: dict[str, Any]) -> bool:
    """Whether the learning rate does not depend on the number of steps."""
    by_share = config.get(f"{_SCHEDULE}lr_warmup_steps_ratio") and not (
        (config.get(f"{_SCHEDULE}lr_warmup_steps") or -1) > 0
    )
    return config.get(f"{_SCHEDULE}lr_scheduler_type", "constant") == "constant" and not by_share


def _hashes(hashes: list[str | None]) -> str:
    return " ".join(f"{digest or '':.12}" for digest in hashes)
