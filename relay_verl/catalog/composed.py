"""Recipes composed, each over the defaults of the trainer it is for, and how two composed configs differ.

Values are compared as written: an interpolation counts as its text, so that only what somebody set is a difference.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from omegaconf import OmegaConf, open_dict

from relay_verl.catalog.recipe import Recipe, defaults_of, flat


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
            return f"+ {self.key}: {_shown(self.after)}"
        if self.is_gone:
            return f"- {self.key}: {_shown(self.before)}"
        return f"  {self.key}: {_shown(self.before)} -> {_shown(self.after)}"


def compose_all(recipes: Sequence[Recipe]) -> dict[str, Any]:
    """Each recipe over verl's defaults, by name; verl's own files are read once, which is most of the time.

    The same as composing each as the command line does, for recipes that override none of verl's groups.
    """
    from hydra import compose, initialize

    bases = {name: verl_defaults(name) for name in {defaults_of(recipe) for recipe in recipes}}
    with initialize(None, version_base=None):
        parts = {recipe.name: compose(overrides=[f"+recipe={recipe.name}"]) for recipe in recipes}
    composed = {}
    for recipe in recipes:
        with open_dict(bases[defaults_of(recipe)]) as base:
            composed[recipe.name] = OmegaConf.merge(base, parts[recipe.name])
    return composed


def verl_defaults(name: str) -> Any:
    """verl's config `name` as it is without a recipe."""
    from hydra import compose, initialize_config_module

    with initialize_config_module("verl.trainer.config", version_base=None):
        return compose(name)


def differences(one: Any, other: Any) -> list[Difference]:
    """What `other` has otherwise than `one`, sorted by key."""
    before, after = (flat(OmegaConf.to_container(config, resolve=False)) for config in (one, other))
    groups = {
        key.rsplit(".", depth)[0] for key in before.keys() | after.keys() for depth in range(1, key.count(".") + 1)
    }
    return [
        Difference(key, before.get(key), after.get(key), key not in before, key not in after)
        for key in sorted((before.keys() | after.keys()) - groups)  # a group that is empty in one of them is no value
        if (key in before, before.get(key)) != (key in after, after.get(key))
    ]


def _shown(value: Any) -> str:
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)
