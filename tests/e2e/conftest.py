"""A small pair for the end-to-end tests: built once, barely trained."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def pair() -> Path:
    """Folder with a student, its warmed-up copy, a teacher and data; a fifth of the pre-training, and fewer samples a
    question in the filter than the recipe's."""
    folder = ROOT / "outputs" / "test-pair"
    stage_one = ROOT / "examples" / "tiny" / "stage_one.py"
    command = [sys.executable, str(stage_one), "--out", str(folder), "--steps-scale", "0.2", "--filter-samples", "4"]
    subprocess.run(command, check=True, timeout=1600)
    os.environ |= {"RELAY_TINY_DIR": str(folder), "VERL_PLATFORM": "cpu", "HF_HUB_OFFLINE": "1"}
    return folder
