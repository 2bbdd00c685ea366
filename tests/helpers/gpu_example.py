"""The scripts of examples/gpu as modules: the folder is not a package, and its scripts import each other."""

import importlib
import sys
from pathlib import Path
from types import ModuleType

FOLDER = Path(__file__).parents[2] / "examples" / "gpu"


def script(name: str) -> ModuleType:
    """One of them."""
    if str(FOLDER) not in sys.path:
        sys.path.append(str(FOLDER))
    return importlib.import_module(name)
