"""A recipe composed, Ray started as it says, and models started in Ray: what every command of ours begins with."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from relay_verl.config import ConfigError, TeacherSettings, read_settings
from relay_verl.cpu.threads import share_cores
from relay_verl.data.parquet import first_line
from relay_verl.engines.base import EngineError, TokenEngine
from relay_verl.models.ray_session import start_ray
from relay_verl.recipes.grammar import check_single_values


def compose(recipe: str, overrides: Sequence[str] = ()) -> Any:
    """verl's config with a recipe of ours, as the command line composes it.

    Raises:
        ConfigError: no such recipe, or an override that Hydra or the recipe does not take.
    """
    from relay_verl.recipes.overrides import check_trainer, the_recipe

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

    from relay_verl.recipes.overrides import check_overrides, the_recipe

    chosen = the_recipe(overrides)
    check_single_values(overrides)
    with initialize_config_module("verl.trainer.config", version_base=None):
        try:
            config = hydra_compose(trainer, overrides=list(overrides))
        except (HydraException, OmegaConfBaseException) as error:
            raise ConfigError(" ".join(str(error).split())) from None
    if chosen is not None:
        check_overrides(config, chosen, overrides)
    return config


def resolve(config: Any) -> None:
    """Put the values of a composed config's interpolations into it, as they are in this process.

    Workers, those of other nodes too, may have other variables and other packages: what was checked here is what they
    get.

    Raises:
        ConfigError: one has no value; names the key.
    """
    from omegaconf import OmegaConf

    check_references(config)
    OmegaConf.resolve(config)


def check_references(config: Any) -> None:
    """Each interpolation of a composed config, such as `${oc.env:RELAY_STUDENT}`, has a value in this process.

    Raises:
        ConfigError: one has none; names the key.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        OmegaConf.to_container(config, resolve=True)
    except OmegaConfBaseException as error:
        raise ConfigError(f"{error.full_key}: {str(error.msg or error).splitlines()[0]}") from None


def template_of(config: Any) -> dict[str, Any]:
    """A recipe's arguments of the chat template."""
    from omegaconf import OmegaConf

    template = config.data.get("apply_chat_template_kwargs") or {}
    return OmegaConf.to_container(template, resolve=True) if OmegaConf.is_config(template) else dict(template)  # type: ignore[return-value]


def prompt_spec(config: Any, tokenizer: str | None) -> dict[str, Any]:
    """What else than the models and `template_of` decides a row's prompt, for a job's spec; None where a recipe leaves
    it to the model.

    Args:
        config: a composed recipe.
        tokenizer: whose tokenizer was asked for.
    """
    from omegaconf import OmegaConf

    own = OmegaConf.select(config, "actor_rollout_ref.model.custom_chat_template")
    return {"tokenizer": tokenizer, "chat_template": own}


def tokenizer_at(config: Any, path: str) -> Any:
    """The tokenizer at `path` as training loads the student's, so that one row is one prompt wherever it is asked: with
    the recipe's own chat template (`actor_rollout_ref.model.custom_chat_template`) if it has one.

    Raises:
        ConfigError: it does not load, no response could end, or no question be put to it.
    """
    from verl.utils import hf_tokenizer

    model = config.actor_rollout_ref.model
    try:
        tokenizer = hf_tokenizer(path, trust_remote_code=model.get("trust_remote_code", False))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} {explain_tokenizer_error(error)}") from None
    own_template = model.get("custom_chat_template")
    if own_template is not None:
        tokenizer.chat_template = own_template
    if tokenizer.eos_token_id is None:
        raise ConfigError(f"{path}: its tokenizer has no end-of-sequence token; no response could end")
    if not tokenizer.chat_template:
        raise ConfigError(f"{path}: its tokenizer has no chat template; a question cannot be put to it")
    return tokenizer


def explain_tokenizer_error(error: BaseException) -> str:
    """Why a tokenizer does not load, as the end of a line that names it."""
    if "trust_remote_code" in str(error):
        return "has a tokenizer of its own code: set actor_rollout_ref.model.trust_remote_code=true if you trust it"
    return f"has no tokenizer that loads: {first_line(error)}"


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
        resolve(config)
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
    resolve(config)
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

    from relay_verl.models.launch import check_resources, start_teacher

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
