"""A recipe as its file says it: description, parent, keys. Nothing is composed here.

A recipe whose `defaults` begin with another recipe is a variant of that one; the keys it sets, names apart, are what it
is about.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from hydra.core.global_hydra import GlobalHydra

from relay_verl.errors import UserError, suggest
from relay_verl.recipes.paper import Row, paper, rows

NAMES = ("trainer.experiment_name", "trainer.project_name")


@dataclass(frozen=True)
class Recipe:
    """One file of a `recipe/` folder."""

    name: str
    """What `+recipe=` takes."""
    description: str
    """The first line of its comments."""
    parent: str | None
    """The recipe it is a variant of."""
    parts: tuple[str, ...]
    """The shared parts among its `defaults`, such as '/relay/base'."""
    keys: Mapping[str, Any]
    """The keys it sets, dotted, names apart; with a parent these are what it is about."""
    folder: Path
    """The `recipe/` folder it is in."""

    @property
    def row(self) -> Row | None:
        """The row of the paper, or of a pair of our own, that it trains."""
        return next((row for row in rows() if row.recipe == self.name), None)

    @property
    def table(self) -> str | None:
        """The paper's first table with that row."""
        row = self.row
        return next((entry.table for entry in paper().entries if row and entry.row == row.name), None)


def recipe_folders() -> tuple[Path, ...]:
    """The `recipe/` folders on the running Hydra app's search path (`--config-dir`'s, too), or ours where none runs."""
    from hydra_plugins.relay_verl.searchpath import recipes_folder

    roots = [recipes_folder()]
    if GlobalHydra.instance().is_initialized():
        sources = GlobalHydra.instance().config_loader().get_sources()
        roots = [Path(source.path) for source in sources if source.scheme() == "file"]
    return tuple(folder for root in roots if (folder := root / "recipe").is_dir())


def recipe_names(also: Sequence[Path] = ()) -> list[str]:
    """The recipes that are there, sorted; `also` are further `recipe/` folders to look in."""
    return sorted({path.stem for folder in (*recipe_folders(), *also) for path in folder.glob("*.yaml")})


def find_recipe(name: str, also: Sequence[Path] = ()) -> Recipe:
    """The recipe called `name`; `also` are further `recipe/` folders to look in.

    Raises:
        UserError: no such recipe; lists the valid ones.
    """
    for folder in (*recipe_folders(), *also):
        path = folder / f"{name}.yaml"
        if path.is_file() and path.parent == folder:
            return _read(path)
    names = recipe_names(also)
    raise UserError(f"recipe={name}: no such recipe; one of {', '.join(names)}{suggest(name, names)}")


def lineage(recipe: Recipe) -> list[Recipe]:
    """The recipe, its parent, that one's parent, and so on."""
    chain = [recipe]
    while (parent := chain[-1].parent) is not None:
        chain.append(find_recipe(parent, [recipe.folder]))
    return chain


def is_warm_up(recipe: Recipe) -> bool:
    """Whether it is for verl's SFT trainer."""
    return "/relay/warmup" in lineage(recipe)[-1].parts


def defaults_of(recipe: Recipe) -> str:
    """The name of verl's config that the recipe is laid over."""
    return "sft_trainer_engine" if is_warm_up(recipe) else "ppo_trainer"


def _read(path: Path) -> Recipe:
    try:
        text = path.read_text(encoding="utf-8-sig")  # an editor may have put a byte order mark in front
    except UnicodeDecodeError:
        raise UserError(f"{path}: expected a file in UTF-8; save it in that encoding") from None
    try:
        content = yaml.safe_load(text) or {}
    except yaml.YAMLError as error:
        raise UserError(f"{path} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise UserError(f"{path}: expected keys with values, got {str(content)[:40]!r}")
    comments = (line.removeprefix("#").strip() for line in text.splitlines() if line.startswith("#"))
    description = next((line for line in comments if not line.startswith("@")), "")
    defaults = [str(item) for item in content.pop("defaults", []) if isinstance(item, str) and item != "_self_"]
    parents = [item for item in defaults if "/" not in item]
    keys = {key: value for key, value in flat(content).items() if key not in NAMES}
    parts = tuple(item for item in defaults if "/" in item)
    return Recipe(path.stem, description, parents[0] if parents else None, parts, keys, path.parent)


def flat(node: Any, prefix: str = "") -> dict[str, Any]:
    """Nested groups as dotted keys; a list is one value, and so is an empty group.

    >>> flat({"a": {"b": 1, "c": [2]}})
    {'a.b': 1, 'a.c': [2]}
    """
    if not isinstance(node, Mapping) or (prefix and not node):
        return {prefix: node}
    return {
        dotted: value
        for key, inner in node.items()
        for dotted, value in flat(inner, f"{prefix}.{key}" if prefix else str(key)).items()
    }
