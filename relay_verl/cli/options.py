"""Options that several commands have, and the recipe that they name together."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from relay_verl.errors import UserError

if TYPE_CHECKING:
    from relay_verl.run_config import RunConfig

START, DATA, TRAIN, EVALUATE, TALK, SHARE = "Start", "Data", "Train", "Evaluate", "Serve and ask", "Share"
"""The groups of commands in the help."""
GPU_RECIPE, TINY_RECIPE = "relay_1.7b", "relay_tiny"
"""The recipes that commands take where none is named."""
_RECIPE = "+recipe="


def user_path(text: str | Path) -> Path:
    """A file or a folder as the user types it, `~` for the home folder included: in `--out=~/x` no shell reads it.

    The parser of every option and argument that is a path.
    """
    return Path(text).expanduser()


Data = Annotated[
    Path,
    typer.Option(
        parser=user_path, help="Questions as `relay-verl data` writes them: a parquet file or a folder of them."
    ),
]
Recipe = Annotated[
    str | None,
    typer.Option(
        help="Recipe whose settings are used: how the models run, and how responses are sampled. +recipe=NAME does the "
        "same.",
        show_default=GPU_RECIPE,
    ),
]
TinyRecipe = Annotated[
    str | None,
    typer.Option(help="Recipe that says how the models run; +recipe=NAME does the same.", show_default=TINY_RECIPE),
]
ConfigDir = Annotated[
    Path | None,
    typer.Option(parser=user_path, help="Folder of your own that has a folder recipe/, as for verl's trainer."),
]
Workers = Annotated[
    int | None, typer.Option(min=0, help="Ray processes that tokenize and grade; by default one a node.")
]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(help="Changes to the recipe, such as relay.filter.seed=1 or data.max_response_length=4096."),
]
QuestionColumn = Annotated[
    str | None, typer.Option(help="Column of the question in a file of your own; found by its name if not given.")
]
AnswerColumn = Annotated[
    str | None, typer.Option(help="Column of the right answer in a file of your own; found by its name if not given.")
]
Thinking = Annotated[
    bool,
    typer.Option("--thinking", help="Render the chat template in its thinking mode, as the authors' release does."),
]
Refusals = Annotated[
    int,
    typer.Option(
        min=0,
        help="Also refuse each of the first N calls of a response in turn and let the student continue alone, for "
        "`relay-verl learned`.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


def compose_recipe(
    recipe: str | None, overrides: Sequence[str] | None, config_dir: Path | None, default: str = GPU_RECIPE
) -> RunConfig:
    """The recipe that a command line names, composed over verl's config.

    Args:
        recipe: of `--recipe`.
        overrides: may hold +recipe=NAME.
        config_dir: of `--config-dir`.
        default: the recipe where neither names one.

    Raises:
        UserError: two recipes, no such recipe or folder, or an override that Hydra or the recipe does not take.
    """
    from relay_verl.recipes.compose import compose
    from relay_verl.run_config import RunConfig

    name, others = name_recipe(recipe, overrides or ())
    return RunConfig(compose(name or default, [*search_path(config_dir), *others]))


def name_recipe(recipe: str | None, words: Sequence[str]) -> tuple[str | None, list[str]]:
    """The recipe that a command line names in either way, and its other words.

    >>> name_recipe(None, ["+recipe=relay_tiny", "data.seed=2"])
    ('relay_tiny', ['data.seed=2'])

    Raises:
        UserError: two different ones.
    """
    others = [word for word in words if not word.startswith(_RECIPE)]
    named = [word.removeprefix(_RECIPE) for word in words if word.startswith(_RECIPE)]
    names = list(dict.fromkeys([recipe, *named] if recipe is not None else named))
    if len(names) > 1:
        raise UserError(f"recipe: {' and '.join(names)} at once; a command takes one recipe")
    return (names[0] if names else None), others


def recipe_folder(config_dir: Path | None) -> list[Path]:
    """The `recipe/` folder of `--config-dir`; none if that is not given.

    Raises:
        UserError: it is not there.
    """
    if config_dir is None:
        return []
    folder = config_dir / "recipe"
    if not folder.is_dir():
        raise UserError(f"--config-dir: {config_dir} has no folder recipe/ with recipes in it")
    return [folder]


def search_path(config_dir: Path | None) -> list[str]:
    """The override that makes Hydra find the recipes of `--config-dir`.

    Raises:
        UserError: it has none.
    """
    from relay_verl.recipes.grammar import quote

    roots = [folder.parent.absolute() for folder in recipe_folder(config_dir)]
    return [f"hydra.searchpath=[{quote(f'file://{root}')}]" for root in roots]
