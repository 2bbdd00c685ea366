"""Is a command line about its recipe? Two recipes at once, or a variant without what makes it one, are refused.

A run that is called `relay_1.7b_simple` has the simple reward: who wants another one takes the parent and says so.
Where a model lies is no part of that, nor is where and how long it runs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any

from relay_verl.errors import UserError
from relay_verl.recipes.grammar import parse, words_of_the_job
from relay_verl.recipes.recipe import Recipe, defaults_of, find_recipe, lineage
from relay_verl.run_config import VerlConfig

GROUP = "recipe"
TEACHER = "relay.teacher.path"
_ENGINE = ("num_replicas", "tensor_parallel_size", "gpu_memory_utilization", "max_num_seqs")
_FREE = ("actor_rollout_ref.model.path", "model.path", *(f"relay.teacher.{name}" for name in _ENGINE))
_FREE_GROUPS = ("trainer.", "ray_kwargs.")
_TRAINERS = {"ppo_trainer": "verl.trainer.main_ppo", "sft_trainer_engine": "verl.trainer.sft_trainer"}


def check_recipe_choice(config: VerlConfig) -> None:
    """The recipe of the running Hydra app and the overrides beside it fit each other, and the trainer.

    Raises:
        UserError: they do not; names the key, the value, the recipe, and what to do instead.
    """
    from hydra.core.hydra_config import HydraConfig

    if not HydraConfig.initialized():
        return
    words = words_of_the_job()
    recipe = the_recipe(words)
    if recipe is None:
        return
    check_trainer(recipe, HydraConfig.get().job.config_name)
    check_overrides(config, recipe, words)


def check_trainer(recipe: Recipe, config_name: str | None) -> None:
    """The recipe is for the trainer whose config it is laid over; a config that is not verl's own is left alone.

    Raises:
        UserError: it is for the other trainer.
    """
    wanted = defaults_of(recipe)
    if config_name in _TRAINERS and config_name != wanted:
        raise UserError(f"recipe={recipe.name}: it is for {_TRAINERS[wanted]}, this is {_TRAINERS[config_name]}")


def the_recipe(words: Sequence[str]) -> Recipe | None:
    """The recipe that a command line names; None if it names none.

    Args:
        words: as typed, such as ['+recipe=relay_1.7b', 'data.seed=2'].

    Raises:
        UserError: more than one, or a word that Hydra cannot read.
    """
    chosen: list[str] = []
    also: list[Path] = []
    for override in parse(words):
        if override.key_or_group == "hydra.searchpath":
            also += [Path(str(root).removeprefix("file://"), "recipe") for root in override.value()]
        if override.key_or_group == GROUP:
            value = override.value()
            chosen += map(str, value) if isinstance(value, list) else [str(value)]
    if len(chosen) > 1:
        raise UserError(
            f"+recipe: {' and '.join(chosen)} at once; a run has one recipe: take one of them and override its keys, "
            "or write a recipe whose defaults name it"
        )
    return find_recipe(chosen[0], also) if chosen else None


def check_overrides(config: VerlConfig, recipe: Recipe, words: Sequence[str]) -> None:
    """No override takes a variant's subject from it.

    Args:
        config: the composed config, overrides included.
        recipe: the one chosen.
        words: the overrides as typed.

    Raises:
        UserError: a key that the recipe, or a variant that it descends from, is about has another value.
    """
    from omegaconf import OmegaConf

    words = [word for word in words if not word.lstrip("+").startswith(f"{GROUP}=")]
    typed = {override.key_or_group: word for override, word in zip(parse(words), words, strict=True)}
    for key, value, owner in _subjects(recipe):
        word = next((word for touched, word in typed.items() if _touches(touched, key)), None)
        final = OmegaConf.select(config, key)
        if word is None or final == value or (key == TEACHER and _is_same_model(value, config)):
            continue
        whose = "it" if owner is recipe else f"it is a variant of {owner.name}, which"
        raise UserError(
            f"{key}={_shown(final)}: not with the recipe {recipe.name}: {whose} is about {key}={_shown(value)}; "
            f"take +recipe={owner.parent} {word}"
        )


def _subjects(recipe: Recipe) -> Iterator[tuple[str, Any, Recipe]]:
    """Key, value and variant of all that the recipe and its ancestors are about; the nearest one's word counts."""
    seen: set[str] = set(_FREE)
    for owner in lineage(recipe):
        for key, value in owner.keys.items() if owner.parent is not None else ():
            if key not in seen and not key.startswith(_FREE_GROUPS):
                yield key, value, owner
        seen |= owner.keys.keys()


def _is_same_model(wanted: str | None, config: VerlConfig) -> bool:
    """Whether the teacher given is the wanted one at another address: by its path's last part, or its name there."""
    teacher = config.relay.teacher
    given = teacher.path if teacher.path is not None else teacher.get("model") if teacher.get("base_url") else None
    return wanted is not None and given is not None and PurePath(given).name == PurePath(wanted).name


def _touches(touched: str, key: str) -> bool:
    """Whether setting `touched` may change `key`: the same, a group around it, or something inside it."""
    return touched == key or key.startswith(f"{touched}.") or touched.startswith(f"{key}.")


def _shown(value: Any) -> str:
    """A value as the command line takes it."""
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(dict(value) if isinstance(value, Mapping) else value)
