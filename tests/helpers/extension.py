"""Installs examples/extend as a user does, into a folder of its own."""

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def install_example(folder: Path) -> Path:
    """What `pip install --no-deps --target` leaves, in a folder inside `folder`; pip builds in a copy."""
    source, target = folder / "source", folder / "site"
    shutil.copytree(ROOT / "examples" / "extend", source, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, "--target", str(target), str(source)], check=True, timeout=300)
    return target
