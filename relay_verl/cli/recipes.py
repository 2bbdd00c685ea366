"""The recipes: all of them as a table, one in full, one next to another."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from relay_verl.cli.options import TRAIN, ConfigDir, Json, name_recipe, recipe_folder
from relay_verl.cli.output import print_json
from relay_verl.errors import UserError

app = typer.Typer()
UNCUT = 10_000
"""Columns where no one looks at a screen: wide enough that no cell is broken."""


@app.command(rich_help_panel=TRAIN)
def recipes(
    name: Annotated[
        str | None, typer.Argument(help="One recipe, in full, as NAME or +recipe=NAME; all as a table if not given.")
    ] = None,
    against: Annotated[
        str | None, typer.Option("--against", "--diff", help="Recipe to compare it with, not verl's defaults.")
    ] = None,
    config_dir: ConfigDir = None,
    as_json: Json = False,
) -> None:
    """List the recipes for `+recipe=NAME`: what each trains, its models, GPUs and memory; or show one in full."""
    from relay_verl.recipes.composed import compose_all, differences, verl_defaults
    from relay_verl.recipes.detail import command_of, describe, explain_recipe, list_differences
    from relay_verl.recipes.recipe import defaults_of, find_recipe
    from relay_verl.run_config import RunConfig

    also = recipe_folder(config_dir)
    if name is not None:
        named, others = name_recipe(None, [name])
        name = named or others[0]
    if name is None:
        if against is not None:
            raise UserError(f"--against {against}: name the recipe to compare with it, too")
        _print_all(also, as_json)
        return
    recipe = find_recipe(name, also)
    other = find_recipe(against, also) if against is not None else None
    configs = compose_all([each for each in (recipe, other) if each is not None], also)
    config, run = configs[recipe.name], RunConfig(configs[recipe.name])
    base = verl_defaults(defaults_of(recipe)) if other is None else configs[other.name]
    label = f"verl's {defaults_of(recipe)}" if other is None else other.name
    changes = differences(base, config)
    if as_json:
        facts = {"name": recipe.name, "description": recipe.description, "command": command_of(recipe, run)}
        listed = [{"key": each.key, "before": each.before, "after": each.after} for each in changes]
        print_json({**facts, "against": label, "changes": listed})
        return
    text = list_differences(changes, label)
    typer.echo(text if other else f"{describe(recipe, run)}\n\n{explain_recipe(run)}\n\n{text}")


def _print_all(also: list[Path], as_json: bool) -> None:
    import sys

    from omegaconf.errors import OmegaConfBaseException
    from rich.console import Console

    from relay_verl.recipes.composed import compose_all, compose_quickly
    from relay_verl.recipes.listing import listing, rows_of
    from relay_verl.recipes.recipe import find_recipe, recipe_names
    from relay_verl.run_config import read_all

    recipes = [find_recipe(name, also) for name in recipe_names(also)]
    show: Any = rows_of if as_json else listing
    try:
        shown = show(recipes, read_all(compose_quickly(recipes, also)))
    except (OmegaConfBaseException, UserError):  # a recipe refers to a part of verl's config that is left out there
        shown = show(recipes, read_all(compose_all(recipes, also)))
    if as_json:
        print_json(shown)
        return
    console = Console(highlight=False) if sys.stdout.isatty() else Console(width=UNCUT, highlight=False, no_color=True)
    console.print(shown)
    console.print(
        "\nAccuracy and calls (the teacher's share of the tokens) are the paper's, in percent; - is not there."
    )
    console.print("GPUs and GiB of one: trainer+teacher, estimated on 80 GB; `relay-verl recipes NAME` shows the sum.")
