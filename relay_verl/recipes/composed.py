"""Recipes composed, each over the defaults of the trainer it is for, and how two composed configs differ.

Values are compared as written: an interpolation counts as its text, so that only what somebody set is a difference.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf, open_dict

from relay_verl.recipes.grammar import quote, shown
from relay_verl.recipes.layers import own_keys
from relay_verl.recipes.recipe import Recipe, defaults_of, flat, recipe_folders

SECTIONS = ("actor_rollout_ref", "data", "distillation", "engine", "model", "relay", "trainer")
"""The parts of a config that tell what a recipe needs (`relay_verl.recipes.estimate`)."""


@dataclass(frozen=True)
class Difference:
    """One key that differs."""

    key: str
    before: Any
    """Its value in the one; None where it is new."""
    after: Any
    """Its value in the other; None where it is gone."""
    is_new: bool = False
    is_gone: bool = False

    def __str__(self) -> str:
        if self.is_new:
            return f"+ {self.key}: {shown(self.after)}"
        if self.is_gone:
            return f"- {self.key}: {shown(self.before)}"
        return f"  {self.key}: {shown(self.before)} -> {shown(self.after)}"


def compose_all(recipes: Sequence[Recipe], also: Sequence[Path] = ()) -> dict[str, Any]:
    """Each recipe over verl's defaults, by name; verl's own files are read once, which is most of the time.

    The same as composing each as the command line does, for recipes that override none of verl's groups.

    Args:
        recipes: which ones.
        also: further `recipe/` folders than those on Hydra's search path.
    """
    bases = {name: verl_defaults(name) for name in {defaults_of(recipe) for recipe in recipes}}
    composed = {}
    for recipe in recipes:
        with open_dict(bases[defaults_of(recipe)]) as base:
            composed[recipe.name] = OmegaConf.merge(base, _by_hydra(recipe, also))
    return composed


def compose_quickly(recipes: Sequence[Recipe], also: Sequence[Path] = ()) -> dict[str, Any]:
    """The same, of the SECTIONS alone, in a few hundredths of a second a recipe (`relay_verl.recipes.layers`)."""
    bases = {
        name: OmegaConf.masked_copy(verl_defaults(name), SECTIONS)  # type: ignore[arg-type]
        for name in {defaults_of(recipe) for recipe in recipes}
    }
    roots = [folder.parent for folder in (*recipe_folders(), *also)]
    composed = {}
    for recipe in recipes:
        keys = own_keys(recipe.folder / f"{recipe.name}.yaml", roots)
        if keys is None:
            keys = OmegaConf.to_container(_by_hydra(recipe, also), resolve=False)  # type: ignore[assignment]
        kept = {section: value for section, value in (keys or {}).items() if section in SECTIONS}
        with open_dict(bases[defaults_of(recipe)]) as base:
            composed[recipe.name] = OmegaConf.merge(base, kept)
    return composed


def _by_hydra(recipe: Recipe, also: Sequence[Path]) -> Any:
    """What a recipe sets, composed by Hydra without verl's defaults."""
    from hydra import compose, initialize

    paths = ",".join(quote(f"file://{folder.parent.absolute()}") for folder in also)
    with initialize(None, version_base=None):
        return compose(overrides=[f"hydra.searchpath=[{paths}]", f"+recipe={recipe.name}"])


def verl_defaults(name: str) -> Any:
    """verl's config `name` as it is without a recipe. verl itself is not imported: its files are read."""
    from hydra import compose, initialize_config_dir

    verl = find_spec("verl")
    assert verl is not None and verl.submodule_search_locations
    folder = Path(verl.submodule_search_locations[0]) / "trainer" / "config"
    with initialize_config_dir(str(folder.absolute()), version_base=None):
        return compose(name)


def differences(one: Any, other: Any) -> list[Difference]:
    """What `other` has otherwise than `one`, sorted by key."""
    before, after = (flat(OmegaConf.to_container(config, resolve=False)) for config in (one, other))
    groups = {
        key.rsplit(".", depth)[0] for key in before.keys() | after.keys() for depth in range(1, key.count(".") + 1)
    }
    return [
        Difference(key, before.get(key), after.get(key), key not in before, key not in after)
        for key in sorted(
            (before.keys() | after.keys()) - groups
        )  # a group that is empty in one of them is not a value
        if (key in before, before.get(key)) != (key in after, after.get(key))
    ]
