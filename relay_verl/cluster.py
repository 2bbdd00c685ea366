"""A recipe composed, Ray started as it says, and models started in Ray: what every command of ours begins with."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from relay_verl.config import ConfigError, TeacherSettings, read_settings
from relay_verl.engines.base import EngineError, TokenEngine


def compose(recipe: str, overrides: Sequence[str] = ()) -> Any:
    """verl's config with a recipe of ours, as the command line composes it.

    Raises:
        ConfigError: no such recipe, or an override that Hydra or the recipe does not take.
    """
    from hydra import compose as hydra_compose
    from hydra import initialize_config_module
    from hydra.errors import HydraException

    from relay_verl.catalog.choice import check_overrides, check_trainer, the_recipe

    words = [f"+recipe={recipe}", *overrides]
    with initialize_config_module("verl.trainer.config", version_base=None):
        try:
            chosen = the_recipe(words)
            config = hydra_compose("ppo_trainer", overrides=words)
        except HydraException as error:
            raise ConfigError(" ".join(str(error).split())) from None
        assert chosen is not None
        check_trainer(chosen, "ppo_trainer")
        check_overrides(config, chosen, words)
    return config


def template_of(config: Any) -> dict[str, Any]:
    """A recipe's arguments of the chat template."""
    from omegaconf import OmegaConf

    template = config.data.get("apply_chat_template_kwargs") or {}
    return OmegaConf.to_container(template, resolve=True) if OmegaConf.is_config(template) else dict(template)  # type: ignore[return-value]


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


def num_gpus_of(models: Iterable[TeacherSettings]) -> int:
    """GPUs that the replicas of these models take; an endpoint takes none."""
    return sum(model.num_replicas * model.tensor_parallel_size for model in models if model.path is not None)


async def start_models(config: Any, models: Mapping[str, TeacherSettings], tokenizer: Any) -> dict[str, TokenEngine]:
    """Start the models side by side, each by its own settings; gives their engines by the same names.

    Raises:
        ConfigError: the cluster lacks the GPUs, or they did not start within `relay.teacher.start_timeout_s`.
    """
    import ray

    from relay_verl.teacher import check_resources, start_teacher

    needed = num_gpus_of(models.values())
    if needed:
        check_resources(ray.available_resources(), needed, f"{len(models)} models")
    starts = (
        start_teacher(config, settings, tokenizer, is_teacher=False, name=f"model{index}")
        for index, settings in enumerate(models.values())
    )
    timeout_s = read_settings(config.relay).teacher.start_timeout_s
    try:
        async with asyncio.timeout(timeout_s):
            engines = [group.engine for group in await asyncio.gather(*starts) if group is not None]
            warm_up = [tokenizer.eos_token_id]  # an engine's first request makes what later ones use
            await asyncio.gather(*(engine.generate(warm_up, max_tokens=1, request_id="warm-up") for engine in engines))
    except TimeoutError:
        names = ", ".join(str(model.path or model.base_url) for model in models.values())
        raise ConfigError(f"relay.teacher.start_timeout_s: {names} did not start within {timeout_s:g} s") from None
    except EngineError as error:
        raise ConfigError(f"a model does not answer: {error}") from None
    return dict(zip(models, engines, strict=True))
