"""Compose a recipe as the command line does: what every command of ours begins with."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any

from relay_verl.errors import UserError, as_user_error, first_line
from relay_verl.recipes.grammar import check_single_values
from relay_verl.secrets import hide_in_text

_CONFIGS = "verl.trainer.config"


def print_warning(text: str) -> None:
    """Print a warning for the user on standard error, without secrets."""
    print(f"relay_verl: {hide_in_text(text)}", file=sys.stderr)


def compose(recipe: str, overrides: Sequence[str] = ()) -> Any:
    """verl's config with a recipe of ours, as the command line composes it.

    Raises:
        UserError: no such recipe, or an override that Hydra or the recipe does not take.
    """
    from relay_verl.recipes.overrides import check_trainer, the_recipe

    words = [f"+recipe={recipe}", *overrides]
    chosen = the_recipe(words)
    assert chosen is not None
    check_trainer(chosen, "ppo_trainer")
    return compose_overrides(words)


def compose_overrides(
    overrides: Sequence[str], trainer: str = "ppo_trainer", warn: Callable[[str], None] = print_warning
) -> Any:
    """The config of a trainer of verl's, named as in its config folder, with the overrides of a command line.

    Args:
        overrides: as typed.
        trainer: the config's name.
        warn: takes the warning where overrides undo what the recipe is about.

    Raises:
        UserError: an override that Hydra or a recipe does not take, or verl cannot be imported.
    """
    from hydra import compose as hydra_compose
    from hydra import initialize_config_module
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    from relay_verl.recipes.overrides import check_overrides, the_recipe

    chosen = the_recipe(overrides)
    check_single_values(overrides)
    # imported first, since of an error in it, or in what it imports, Hydra only says that there are no configs
    with as_user_error(
        Exception, lambda error: f"verl cannot be imported: {type(error).__name__}: {first_line(error)}"
    ):
        import_module(_CONFIGS)
    with initialize_config_module(_CONFIGS, version_base=None):
        try:
            config = hydra_compose(trainer, overrides=list(overrides))
        except (HydraException, OmegaConfBaseException) as error:
            raise UserError(" ".join(str(error).split())) from None
    if chosen is not None:
        warning = check_overrides(config, chosen, overrides)
        if warning:
            warn(warning)
    return config
