"""A recipe composed, Ray started as it says, and models started in Ray: what every command of ours begins with."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from relay_verl.config import ConfigError, TeacherSettings, read_settings
from relay_verl.cpu.threads import share_cores
from relay_verl.engines.base import EngineError, TokenEngine
from relay_verl.ray_start import start_ray


def compose(recipe: str, overrides: Sequence[str] = ()) -> Any:
    """verl's config with a recipe of ours, as the command line composes it.

    Raises:
        ConfigError: no such recipe, or an override that Hydra or the recipe does not take.
    """
    from relay_verl.catalog.choice import check_trainer, the_recipe

    words = [f"+recipe={recipe}", *overrides]
    chosen = the_recipe(words)
    assert chosen is not None
    check_trainer(chosen, "ppo_trainer")
    return compose_overrides(words)


def compose_overrides(overrides: Sequence[str], trainer: str = "ppo_trainer") -> Any:
    """The config of a trainer of verl's, named as in its config folder, with the overrides of a command line.

    Raises:
        ConfigError: an override that Hydra or a recipe does not take.
    """
    from hydra import compose as hydra_compose
    from hydra import initialize_config_module
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    from relay_verl.catalog.choice import check_overrides, the_recipe

    chosen = the_recipe(overrides)
    with initialize_config_module("verl.trainer.config", version_base=None):
        try:
            config = hydra_compose(trainer, overrides=list(overrides))
        except (HydraException, OmegaConfBaseException) as error:
            raise ConfigError(" ".join(str(error).split())) from None
    if chosen is not None:
        check_overrides(config, chosen, overrides)
    return config


def template_of(config: Any) -> dict[str, Any]:
    """A recipe's arguments of the chat template."""
    from omegaconf import OmegaConf

    template = config.data.get("apply_chat_template_kwargs") or {}
    return OmegaConf.to_container(template, resolve=True) if OmegaConf.is_config(template) else dict(template)  # type: ignore[return-value]


def tokenizer_at(config: Any, path: str) -> Any:
    """The tokenizer at `path` as training loads the student's, so that one row is one prompt wherever it is asked: with
    the recipe's own chat template (`actor_rollout_ref.model.custom_chat_template`) if it has one.

    Raises:
        ConfigError: no response could end, or no question be put to it.
    """
    from verl.utils import hf_tokenizer

    model = config.actor_rollout_ref.model
    tokenizer = hf_tokenizer(path, trust_remote_code=model.get("trust_remote_code", False))
    own_template = model.get("custom_chat_template")
    if own_template is not None:
        tokenizer.chat_template = own_template
    if tokenizer.eos_token_id is None:
        raise ConfigError(f"{path}: its tokenizer has no end-of-sequence token; no response could end")
    if not tokenizer.chat_template:
        raise ConfigError(f"{path}: its tokenizer has no chat template; a question cannot be put to it")
    return tokenizer


def tokenizer_path_of(config: Any, model: str) -> str:
    """Where training reads the tokenizer of the student at `model`."""
    from omegaconf import OmegaConf

    return OmegaConf.select(config, "actor_rollout_ref.model.tokenizer_path") or model


@contextmanager
def ray_cluster(
    config: Any,
    num_gpus: int,
    *,
    turns: Iterable[Iterable[TeacherSettings]] | None = None,
    is_deterministic: bool = False,
) -> Iterator[None]:
    """Ray as the recipe starts it; a cluster that is there already (a submitted job, `RAY_ADDRESS`) is used as it is
    and left running.

    Args:
        config: a composed recipe.
        num_gpus: GPUs of all replicas; on a machine without GPUs Ray is told that it has so many.
        turns: the models that write at the same time and share the cores of a CPU, turn by turn; all of them if None.
        is_deterministic: one thread an engine on CPU.
    """
    import ray

    if ray.is_initialized():
        yield
        return
    num_together = num_gpus if turns is None else max((num_gpus_of(models) for models in turns), default=0)
    share_cores(config, num_together, is_deterministic=is_deterministic)
    start_ray(
        config,
        log_to_driver=False,
        logging_level=logging.WARNING,
        **({"num_gpus": num_gpus} if config.trainer.device == "cpu" else {}),
    )
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
