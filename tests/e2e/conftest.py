"""Built once for all end-to-end tests: a small pair, barely trained, and a training of it on a cluster."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.cluster_training import Job, train_on_two_nodes

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


@pytest.fixture(scope="session")
def job(pair: Path, installation: Path, tmp_path_factory: pytest.TempPathFactory) -> Job:
    """What a training left that was submitted to a cluster and lost its teacher."""
    return train_on_two_nodes(pair, installation, tmp_path_factory)
