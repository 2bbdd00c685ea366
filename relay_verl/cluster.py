"""A recipe composed, Ray started as it says, and models started in Ray: what every command of ours begins with."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from relay_verl.config import ConfigError, read_settings
from relay_verl.engines.base import TokenEngine


def compose(recipe: str, overrides: Sequence[str] = ()) -> Any:
    """verl's config with a recipe of ours, as the command line composes it."""
    from hydra import compose as hydra_compose
    from hydra import initialize_config_module

    with initialize_config_module("verl.trainer.config", version_base=None):
        return hydra_compose("ppo_trainer", overrides=[f"+recipe={recipe}", *overrides])


@contextmanager
def ray_cluster(config: Any, num_gpus: int) -> Iterator[None]:
    """Ray as the recipe starts it, with room for `num_gpus` replicas on a machine without GPUs; a cluster that is there
    already (a submitted job, `RAY_ADDRESS`) is used as it is and left running."""
    import ray
    from omegaconf import OmegaConf
    from verl.trainer.constants_ppo import get_ppo_ray_runtime_env

    if ray.is_initialized():
        yield
        return
    options: dict[str, Any] = OmegaConf.to_container(config.ray_kwargs.ray_init, resolve=True)  # type: ignore[assignment]
    runtime_env = get_ppo_ray_runtime_env(config)
    runtime_env["env_vars"] |= (options.pop("runtime_env", None) or {}).get("env_vars", {})
    if config.trainer.device == "cpu":
        options["num_gpus"] = num_gpus
    if os.environ.get("RAY_ADDRESS"):
        options = {}  # they start a cluster, and Ray refuses them beside an address
    ray.init(**options, runtime_env=runtime_env, log_to_driver=False)
    try:
        yield
    finally:
        ray.shutdown()


async def start_models(config: Any, paths: Sequence[str], tokenizer: Any) -> dict[str, TokenEngine]:
    """One replica group a model, started side by side.

    Raises:
        ConfigError: they did not start within `relay.teacher.start_timeout_s`.
    """
    from relay_verl.teacher import start_replicas

    settings = read_settings(config.relay).teacher
    starts = (
        start_replicas(config, settings, path, tokenizer, is_teacher=False, name=f"model{index}")
        for index, path in enumerate(paths)
    )
    try:
        async with asyncio.timeout(settings.start_timeout_s):
            groups = await asyncio.gather(*starts)
            warm_up = [tokenizer.eos_token_id]  # an engine's first request makes what later ones use
            await asyncio.gather(
                *(engine.generate(warm_up, max_tokens=1, request_id="warm-up") for engine, _ in groups)
            )
    except TimeoutError:
        raise ConfigError(
            f"relay.teacher.start_timeout_s: {', '.join(paths)} did not start within {settings.start_timeout_s:g} s"
        ) from None
    return {path: engine for path, (engine, _) in zip(paths, groups, strict=True)}
