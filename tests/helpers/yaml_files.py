"""YAML files parsed once a session: composing verl's config reads some thirty of them, every time.

Invariant: a file that changed is read anew, and each reader has a copy of its own.
"""

import copy
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any


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
