"""Lets every Hydra app find our recipes: `+recipe=relay_1.7b` from any directory.

Hydra imports this at the start of every app, so it imports Hydra and OmegaConf alone. The recipes are found as a
folder, not as `pkg://`, which Hydra cannot read from an editable install of a folder of YAML files.
"""

import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from hydra._internal.core_plugins import file_config_source
from hydra.core.config_search_path import ConfigSearchPath
from hydra.plugins.search_path_plugin import SearchPathPlugin
from hydra_plugins.relay_verl.defaults import RelayDefaults

from relay_verl.cpu import threads
from relay_verl.models import attention


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
        SystemExit: with a one-line message that names them.
    """
    values = [value for key, _, value in (argument.partition("=") for argument in arguments) if key == "+recipe"]
    is_sweep = len(values) == 1 and not values[0].startswith("[") and bool({"-m", "--multirun"} & set(arguments))
    names = [name.strip() for value in values for name in value.strip("[]").split(",")]
    ours = {path.stem for path in recipes_folder().glob("recipe/*.yaml")}
    if len(names) > 1 and not is_sweep and ours & set(names):
        from relay_verl.recipes.grammar import two_recipes

        sys.exit(f"relay_verl: {two_recipes(names)}")


def refuse_unreadable(arguments: Sequence[str]) -> None:
    """A word that Hydra cannot read ends a trainer of verl's with the way to write it; Hydra shows a mark below it.

    Args:
        arguments: of the command line. Other apps than verl's are left alone.

    Raises:
        SystemExit: with a one-line error.
    """
    spec = getattr(sys.modules.get("__main__"), "__spec__", None)
    if spec is None or not spec.name.startswith("verl.trainer."):
        return
    from hydra._internal.utils import get_args_parser

    from relay_verl.errors import UserError
    from relay_verl.recipes.grammar import check_single_values, parse

    parsed, _ = get_args_parser().parse_known_args(list(arguments))
    try:
        parse(parsed.overrides) if parsed.multirun else check_single_values(parsed.overrides)
    except UserError as error:
        sys.exit(f"relay_verl: {error}")


def take_byte_order_marks() -> None:
    """Let Hydra read a recipe that an editor saved with a byte order mark: it would take no notice of the header
    `# @package`, and set a key `recipe` instead. Remove this when Hydra reads such files.
    """

    def open_config(file: Any, *, encoding: str) -> Any:
        return open(file, encoding="utf-8-sig" if encoding == "utf-8" else encoding)

    file_config_source.open = open_config  # type: ignore[attr-defined]


class RelaySearchPathPlugin(SearchPathPlugin):
    """Appends the recipes and the defaults of `relay:` to the search path; lets OmegaConf resolve what they write."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        attention.register_resolver()
        threads.register_resolver()
        take_byte_order_marks()
        refuse_two_recipes(sys.argv[1:])
        refuse_unreadable(sys.argv[1:])
        search_path.append(provider="relay_verl", path=f"file://{recipes_folder()}")
        search_path.append(provider="relay_verl", path=f"{RelayDefaults.scheme()}://")
