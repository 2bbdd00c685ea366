"""Check overrides against the chosen recipe: one recipe a run, and a variant that keeps its name keeps its subject.

The command line wins. Overrides that undo what a variant changes are taken: the run says so, and the experiment's name
ends in `-modified`, so that its checkpoints and curves are not taken for the variant's. `relay.allow_overrides=false`
refuses them instead. Where a model lies is not part of a variant's subject, nor is where and how long it runs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from relay_verl.errors import UserError
from relay_verl.recipes.grammar import parse, shown, two_recipes, words_of_the_job
from relay_verl.recipes.recipe import Recipe, defaults_of, find_recipe, lineage
from relay_verl.run_config import VerlConfig

GROUP = "recipe"
TEACHER = "relay.teacher.path"
ALLOW = "relay.allow_overrides"
NAME = "trainer.experiment_name"
MODIFIED = "-modified"
"""What an experiment's name ends in where overrides undo what its recipe is about."""
_ENGINE = ("num_replicas", "tensor_parallel_size", "gpu_memory_utilization", "max_num_seqs")
_FREE = (
    "actor_rollout_ref.model.path",
    "model.path",
    ALLOW,
    *(f"relay.teacher.{name}" for name in _ENGINE),
)
_FREE_GROUPS = ("trainer.", "ray_kwargs.")
_TRAINERS = {"ppo_trainer": "verl.trainer.main_ppo", "sft_trainer_engine": "verl.trainer.sft_trainer"}


def check_recipe_choice(config: VerlConfig) -> str | None:
    """The recipe of the running Hydra app fits the trainer and the overrides next to it.

    Returns:
        A warning where the overrides undo what the recipe is about; the config's experiment then has another name.

    Raises:
        UserError: the recipe is for the other trainer, two are chosen, or `relay.allow_overrides` is false and an
            override conflicts with the recipe.
    """
    from hydra.core.hydra_config import HydraConfig

    if not HydraConfig.initialized():
        return None
    words = words_of_the_job()
    recipe = the_recipe(words)
    if recipe is None:
        return None
    check_trainer(recipe, HydraConfig.get().job.config_name)
    return check_overrides(config, recipe, words)


def check_trainer(recipe: Recipe, config_name: str | None) -> None:
    """The recipe is for the trainer whose config it is laid over; a config that is not verl's own is left alone.

    Raises:
        UserError: it is for the other trainer.
    """
    own = defaults_of(recipe)
    if config_name in _TRAINERS and config_name != own:
        raise UserError(f"recipe={recipe.name}: it is for {_TRAINERS[own]}, this is {_TRAINERS[config_name]}")


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
        raise UserError(two_recipes(chosen))
    return find_recipe(chosen[0], also) if chosen else None


@dataclass(frozen=True)
class _Conflict:
    """An override that undoes what a recipe is about."""

    key: str
    value: Any
    """What the recipe, or a variant that it descends from, sets."""
    final: Any
    """What the config has instead."""
    owner: Recipe
    """The recipe or the variant."""
    word: str
    """The override as typed."""


def check_overrides(config: VerlConfig, recipe: Recipe, words: Sequence[str]) -> str | None:
    """Mark the experiment's name where overrides undo what the recipe is about.

    A second call changes nothing more, and gives the same warning.

    Args:
        config: the composed config, overrides included.
        recipe: the one chosen.
        words: the overrides as typed.

    Returns:
        The warning, if there is something to warn of.

    Raises:
        UserError: there is, and `relay.allow_overrides` is false.
    """
    from omegaconf import OmegaConf

    words = [word for word in words if not word.lstrip("+").startswith(f"{GROUP}=")]
    typed = {override.key_or_group: word for override, word in zip(parse(words), words, strict=True)}
    conflicts = list(_conflicts(config, recipe, typed))
    if not conflicts:
        return None
    if not OmegaConf.select(config, ALLOW, default=True):
        first = conflicts[0]
        variant = "" if first.owner is recipe else f", a variant of {first.owner.name}"
        raise UserError(
            f"{first.key}={shown(first.final)} conflicts with recipe {recipe.name}{variant}, which sets "
            f"{first.key}={shown(first.value)}; use +recipe={first.owner.parent} {first.word} instead, or {ALLOW}=true"
        )
    changes = "; ".join(
        f"{one.key}={shown(one.final)} (recipe {one.owner.name} sets {shown(one.value)})" for one in conflicts
    )
    return f"{changes}: {_mark_name(config, typed)}"


def _conflicts(config: VerlConfig, recipe: Recipe, typed: Mapping[str, str]) -> Iterator[_Conflict]:
    """The overrides that undo what the recipe is about; `typed` are the words by the key that they set."""
    from omegaconf import OmegaConf

    for key, value, owner in _subjects(recipe):
        word = next((word for touched, word in typed.items() if _touches(touched, key)), None)
        final = OmegaConf.select(config, key)
        if word is None or final == value or (key == TEACHER and _is_same_model(value, config)):
            continue
        yield _Conflict(key, value, final, owner, word)


def _mark_name(config: VerlConfig, typed: Mapping[str, str]) -> str:
    """Append MODIFIED to the experiment's name, unless the command line gives one; says what the name is."""
    name = str(config.trainer.experiment_name)
    if any(_touches(key, NAME) for key in typed):
        return f"the command line names the experiment {name}"
    if not name.endswith(MODIFIED):
        config.trainer.experiment_name = name = f"{name}{MODIFIED}"
    return f"the experiment is named {name}"


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
