"""Checks of a composed config, of this machine and of the Ray cluster, before any model loads.

`install` puts them in front of functions that verl calls in the driver. Bad input ends the program with a message
that names the key, the value and what is allowed. `relay-verl doctor` runs the same checks, all of them.
"""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable
from typing import Any

from omegaconf import OmegaConf

from relay_verl.checkpoints.lock import hold, release
from relay_verl.errors import UserError
from relay_verl.preflight.check import demand
from relay_verl.preflight.config_checks import check_recipe_choice, check_recipe_was_found
from relay_verl.run_config import RunConfig, VerlConfig, resolve
from relay_verl.secrets import hide, hide_in_text
from relay_verl.trainer import ending, hydra_files


def install_check(module: Any, function: str, check: Callable[[VerlConfig], None]) -> None:
    """Put `check` of the composed config in front of a function of verl's that is given it; a second call does nothing.

    Remove the wrapping when verl offers plugins a hook on the composed config.
    """
    original = getattr(module, function)
    if getattr(original, "is_relay_preflight", False):
        return

    @functools.wraps(original)
    def checked(config: VerlConfig, *args: Any, **kwargs: Any) -> Any:
        try:
            check(config)
        except UserError as error:
            sys.exit(f"relay_verl: {hide_in_text(str(error))}")
        return original(config, *args, **kwargs)

    checked.is_relay_preflight = True  # type: ignore[attr-defined]
    setattr(module, function, checked)


def check_config(config: VerlConfig) -> None:
    """Everything about a composed config that can be known before Ray starts; a config without our node is left alone.

    Raises:
        UserError: the first check that fails; says what fixes it.
    """
    from relay_verl.preflight.registry import RECIPE, RECIPE_CHOICE

    if "relay" not in config:
        check_recipe_was_found(config)
        demand(RECIPE_CHOICE, RunConfig(config))
        return
    demand(RECIPE, RunConfig(config))


def check_training(config: VerlConfig) -> None:
    """The same, then this installation and this machine; then Ray is started, as verl would, and the cluster checked.

    verl's trainer continues in that Ray.

    Raises:
        UserError: the first check that fails; says what fixes it; Ray is then down again.
    """
    hydra_files.hide_secrets(config)
    check_config(config)
    if "relay" not in config:
        return
    import ray

    from relay_verl.preflight.ray_checks import Cluster
    from relay_verl.preflight.registry import CLUSTER, INSTALLATION, MACHINE

    demand(INSTALLATION)
    run = RunConfig(config)
    demand(MACHINE, run)
    was_there = ray.is_initialized()
    # A sweep has several runs in one process: each leaves it as it was.
    ending.install(dict(os.environ), ends_ray=not was_there)
    hold(run.trainer.folder)
    try:
        demand(CLUSTER, run, Cluster(run))
        resolve(config)
        config.ray_kwargs = hide("ray_kwargs", OmegaConf.to_container(config.ray_kwargs))  # Ray has what it needs
    except UserError:
        release()
        if not was_there:
            ray.shutdown()
        raise


def is_warmup(config: VerlConfig) -> bool:
    """Whether a composed config is of a warm-up recipe."""
    return config.data.custom_cls.get("name") == "WarmupDataset"


def check_sft_config(config: VerlConfig) -> None:
    """The same as `check_config` for verl's SFT trainer and the warm-up recipes.

    Raises:
        UserError: the first check that fails; says what fixes it.
    """
    from relay_verl.preflight.registry import RECIPE_CHOICE, WARMUP

    hydra_files.hide_secrets(config)
    if "actor_rollout_ref" in config:  # the GRPO trainer's, which `check_config` checks, or its recipe in this trainer
        check_recipe_choice(config)
        return
    check_recipe_was_found(config)
    run = RunConfig(config)
    if not is_warmup(config):
        demand(RECIPE_CHOICE, run)
        return
    demand(WARMUP, run)
    hold(run.trainer.folder)
