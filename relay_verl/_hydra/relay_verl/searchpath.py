"""Lets every Hydra app find our recipes: `+recipe=relay_1.7b` from any directory.

Hydra imports this at the start of every app, so it imports Hydra alone. The recipes are found as a folder, not as
`pkg://`, which Hydra cannot read from an editable install of a folder of YAML files.
"""

from importlib.util import find_spec
from pathlib import Path

from hydra.core.config_search_path import ConfigSearchPath
from hydra.plugins.search_path_plugin import SearchPathPlugin


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


class RelaySearchPathPlugin(SearchPathPlugin):
    """Appends the folder of recipes to the search path."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        search_path.append(provider="relay_verl", path=f"file://{recipes_folder()}")
