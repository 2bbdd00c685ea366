"""Hydra that reads and composes once a session: verl's config is made of some thirty files and takes a second.

Invariant: a file that changed is read anew, and each caller has a copy of its own.
"""

import copy
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from hydra.core.global_hydra import GlobalHydra

RECIPES = Path(__file__).parents[2] / "recipes"
FIXED = {"pkg://hydra.conf", "pkg://verl.trainer.config", f"file://{RECIPES}", "structured://"}
"""Where configs come from that no test changes."""


def read_once(load: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """`OmegaConf.load` that keeps what it read of files on disk."""
    kept: dict[tuple[int, ...], Any] = {}

    def load_copy(file: Any) -> Any:
        path = file if isinstance(file, (str, Path)) else getattr(file, "name", None)
        if not isinstance(path, (str, Path)) or not os.path.isfile(path):
            return load(file)
        status = os.stat(path)
        key = (status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size)
        if key not in kept:
            kept[key] = load(file)
        return copy.deepcopy(kept[key])

    return load_copy


def compose_once(compose: Callable[..., Any]) -> Callable[..., Any]:
    """`hydra.compose` that keeps what it made of verl's config, our recipes and overrides alone."""
    kept: dict[tuple[str, ...], Any] = {}

    def compose_copy(config_name: str | None = None, overrides: Sequence[str] = (), **options: Any) -> Any:
        places = {entry.path for entry in GlobalHydra.instance().config_loader().get_search_path().get_path()}
        if options or config_name is None or places - FIXED or any("hydra" in word for word in overrides):
            return compose(config_name, overrides=list(overrides), **options)
        key = (config_name, *sorted(places), *overrides)
        if key not in kept:
            kept[key] = compose(config_name, overrides=list(overrides))
        return copy.deepcopy(kept[key])

    return compose_copy
