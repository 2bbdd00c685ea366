"""Lets every Hydra app find our recipes: `+recipe=relay_1.7b` from any directory.

Hydra imports this at the start of every app, so it imports Hydra and OmegaConf alone. The recipes are found as a
folder, not as `pkg://`, which Hydra cannot read from an editable install of a folder of YAML files.
"""

import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from hydra.core.config_search_path import ConfigSearchPath
from hydra.plugins.search_path_plugin import SearchPathPlugin

from relay_verl import attention
from relay_verl.cpu import threads


def recipes_folder() -> Path:
    """Where the recipes are installed.

    Raises:
        FileNotFoundError: the installation lacks them; without them `+recipe=x` would set a key and start plain PPO.
    """
    spec = find_spec("relay_verl_recipes")
    for location in (spec.submodule_search_locations or []) if spec else []:
        if Path(location, "recipe").is_dir():
            return Path(location)
    raise FileNotFoundError(
        "relay_verl: the recipes (package relay_verl_recipes) are not installed; reinstall relay-verl"
    )


def refuse_two_recipes(arguments: Sequence[str]) -> None:
    """A run has one recipe. Hydra speaks of defaults lists where two are given, and lays a list of them one on another.

    Args:
        arguments: of the command line. Only those that choose a recipe of ours count, and a sweep's may be several.

    Raises:
        SystemExit: with one line that names them.
    """
    values = [value for key, _, value in (argument.partition("=") for argument in arguments) if key == "+recipe"]
    is_sweep = len(values) == 1 and not values[0].startswith("[") and bool({"-m", "--multirun"} & set(arguments))
    names = [name.strip() for value in values for name in value.strip("[]").split(",")]
    ours = {path.stem for path in recipes_folder().glob("recipe/*.yaml")}
    if len(names) > 1 and not is_sweep and ours & set(names):
        sys.exit(
            f"relay_verl: +recipe: {' and '.join(names)} at once; a run has one recipe: take one of them and override "
            "its keys, or write a recipe whose defaults name it"
        )


class RelaySearchPathPlugin(SearchPathPlugin):
    """Appends the folder of recipes to the search path, and lets OmegaConf resolve what they write."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        attention.register_resolver()
        threads.register_resolver()
        refuse_two_recipes(sys.argv[1:])
        search_path.append(provider="relay_verl", path=f"file://{recipes_folder()}")
