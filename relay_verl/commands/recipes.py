"""The recipes: all of them as a table, one in full, one beside another."""

from __future__ import annotations

from typing import Annotated

import typer

from relay_verl.config import ConfigError

app = typer.Typer()
UNCUT = 10_000
"""Columns where nobody looks at a screen: wide enough that no cell is broken."""


@app.command()
def recipes(
    name: Annotated[str | None, typer.Argument(help="One recipe, in full; all as a table if not given.")] = None,
    against: Annotated[
        str | None, typer.Option("--against", "--diff", help="Recipe to compare it with, not verl's defaults.")
    ] = None,
) -> None:
    """List the recipes for `+recipe=NAME` with the paper's numbers and what they take; or show one in full."""
    from relay_verl.catalog.composed import compose_all, differences, verl_defaults
    from relay_verl.catalog.page import describe, explain, list_differences
    from relay_verl.catalog.recipe import defaults_of, find_recipe

    if name is None:
        if against is not None:
            raise ConfigError(f"--against {against}: name the recipe to compare with it, too")
        _print_table()
        return
    recipe = find_recipe(name)
    other = find_recipe(against) if against is not None else None
    configs = compose_all([each for each in (recipe, other) if each is not None])
    config = configs[recipe.name]
    base = verl_defaults(defaults_of(recipe)) if other is None else configs[other.name]
    label = f"verl's {defaults_of(recipe)}" if other is None else other.name
    changes = list_differences(differences(base, config), label)
    typer.echo(changes if other else f"{describe(recipe, config)}\n\n{explain(config)}\n\n{changes}")


def _print_table() -> None:
    import sys

    from rich.console import Console

    from relay_verl.catalog.composed import compose_all
    from relay_verl.catalog.listing import listing
    from relay_verl.catalog.recipe import find_recipe, recipe_names

    found = [find_recipe(name) for name in recipe_names()]
    console = Console(highlight=False) if sys.stdout.isatty() else Console(width=UNCUT, highlight=False, no_color=True)
    console.print(listing(found, compose_all(found)))
    console.print(
        "\nAccuracy and calls (the teacher's share of the tokens) are the paper's, in percent; - is not there."
    )
    console.print("GPUs and GiB of one: trainer+teacher, estimated on 80 GB; `relay-verl recipes NAME` shows the sum.")
