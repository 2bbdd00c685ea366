"""Whether a composed config agrees with itself and with this process's environment."""

from __future__ import annotations

import difflib
import os

from omegaconf import OmegaConf

from relay_verl.config import num_gpus_of
from relay_verl.errors import UserError
from relay_verl.models.ray_session import joins_cluster
from relay_verl.preflight.check import CheckWarning
from relay_verl.recipes import overrides
from relay_verl.recipes.recipe import recipe_names
from relay_verl.run_config import RunConfig, VerlConfig


def check_recipe_was_found(config: VerlConfig) -> None:
    """`+recipe=NAME` loads a recipe only if Hydra knows the group; else it sets a key, and plain PPO would run."""
    for key in map(str, config):
        if key != "relay" and difflib.get_close_matches(key, ["recipe", "recipes"], cutoff=0.75):
            raise UserError(
                f"{key}={config[key]}: no recipe was loaded; write +recipe=NAME with one of {', '.join(recipe_names())}"
            )


def check_recipe_choice(config: VerlConfig) -> CheckWarning | None:
    """The recipe fits the trainer and the overrides next to it; see `relay_verl.recipes.overrides`."""
    warning = overrides.check_recipe_choice(config)
    return CheckWarning(warning) if warning else None


def check_settings(run: RunConfig) -> str:
    """The `relay:` node can be read; says who writes and who is asked."""
    settings = run.relay
    if not settings.needs_teacher:
        return "no calls"
    teachers = ", ".join(str(teacher.address) for teacher in settings.active_teachers.values())
    limit = "any number of" if settings.max_calls is None else f"at most {settings.max_calls}"
    return f"{settings.policy}, {limit} calls of {teachers}"


def check_platform(config: VerlConfig) -> None:
    """A CPU recipe needs `VERL_PLATFORM=cpu` in the driver too, and only a CPU recipe may have it.

    verl sets `trainer.device` to what it detects, so the recipe's own word is the platform it gives to Ray's workers.
    """
    in_driver = os.environ.get("VERL_PLATFORM", "")
    in_workers = OmegaConf.select(config, "ray_kwargs.ray_init.runtime_env.env_vars.VERL_PLATFORM") or ""
    if (in_workers == "cpu") != (in_driver == "cpu"):
        raise UserError(
            f"VERL_PLATFORM={in_driver!r} in the environment, but the recipe "
            + ("trains on CPU: set VERL_PLATFORM=cpu" if in_workers == "cpu" else "does not train on CPU: unset it")
        )


def check_sft_platform(config: VerlConfig) -> str:
    """The same for verl's SFT trainer, whose config says the device."""
    on_cpu = os.environ.get("VERL_PLATFORM", "") == "cpu"
    if (config.trainer.device == "cpu") != on_cpu:
        raise UserError(
            f"trainer.device={config.trainer.device}: "
            + ("VERL_PLATFORM=cpu is for CPU recipes: unset it" if on_cpu else "set VERL_PLATFORM=cpu")
        )
    return str(config.trainer.device)


def check_batch_sizes(config: VerlConfig) -> None:
    """The batch must split into mini-batches, and those over the GPUs."""
    batch, mini = config.data.train_batch_size, config.actor_rollout_ref.actor.ppo_mini_batch_size
    num_gpus = config.trainer.n_gpus_per_node * config.trainer.nnodes
    positive = {
        "data.train_batch_size": batch,
        "actor_rollout_ref.actor.ppo_mini_batch_size": mini,
        "actor_rollout_ref.rollout.n": config.actor_rollout_ref.rollout.n,
        "trainer.n_gpus_per_node x trainer.nnodes": num_gpus,
    }
    for key, value in positive.items():
        if value < 1:
            raise UserError(f"{key}={value} is not at least 1")
    if batch % mini:
        raise UserError(
            f"data.train_batch_size={batch} is not a multiple of actor_rollout_ref.actor.ppo_mini_batch_size={mini}"
        )
    rows = mini * config.actor_rollout_ref.rollout.n
    if rows % num_gpus:
        raise UserError(
            f"actor_rollout_ref.actor.ppo_mini_batch_size={mini} x actor_rollout_ref.rollout.n="
            f"{config.actor_rollout_ref.rollout.n} samples do not split over trainer.n_gpus_per_node x trainer.nnodes="
            f"{num_gpus} GPUs"
        )


def check_micro_batch_sizes(config: VerlConfig) -> None:
    """Without dynamic batches, each GPU's rows must split into its micro-batches."""
    parts = config.actor_rollout_ref
    if parts.actor.use_dynamic_bsz:
        return
    num_gpus = config.trainer.n_gpus_per_node * config.trainer.nnodes
    mini_rows = parts.actor.ppo_mini_batch_size * parts.rollout.n // num_gpus
    all_rows = config.data.train_batch_size * parts.rollout.n // num_gpus
    for key, rows in (
        ("actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu", mini_rows),
        ("actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu", all_rows),
        ("actor_rollout_ref.ref.log_prob_micro_batch_size_per_gpu", all_rows),
    ):
        micro = OmegaConf.select(config, key)
        if micro is not None and (micro < 1 or rows % micro):
            raise UserError(f"{key}={micro}: a GPU's {rows} samples do not split into micro-batches of that size")


def check_declared_gpus(run: RunConfig) -> None:
    """Where the recipe says how many GPUs Ray is to have, they must hold the trainer and the teacher. Where Ray counts
    them itself, or a cluster that runs already is joined, the checks of the nodes do this."""
    if joins_cluster(run.verl):
        return  # what a recipe declares is for a cluster that it starts
    declared = OmegaConf.select(run.verl, "ray_kwargs.ray_init.num_gpus")
    teachers, trainer = run.teachers, run.trainer.num_gpus
    num_asked = num_gpus_of(teachers.values())
    if declared is not None and declared < trainer + num_asked:
        raise UserError(
            f"ray_kwargs.ray_init.num_gpus={declared}: the trainer takes {trainer} (trainer.n_gpus_per_node x "
            f"trainer.nnodes) and the teacher {num_asked} "
            f"({' + '.join(f'{key}.num_replicas x {key}.tensor_parallel_size' for key in teachers)}); "
            f"{trainer + num_asked - declared} missing"
        )


def check_replica_gpus(run: RunConfig) -> None:
    """verl spreads a replica evenly over nodes of the trainer's size."""
    for key, teacher in run.relay.active_teachers.items():
        num_gpus = teacher.tensor_parallel_size
        on_a_node = min(num_gpus, max(1, run.trainer.gpus_per_node))
        if num_gpus % on_a_node:
            raise UserError(
                f"{key}.tensor_parallel_size={num_gpus} is neither at most trainer.n_gpus_per_node={on_a_node} nor a "
                "multiple of it"
            )
