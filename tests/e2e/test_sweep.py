"""A sweep over recipes in one process, in a folder whose name Hydra, verl, datasets and vLLM have to take as it is."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from relay_verl.recipes.grammar import override
from tests.helpers.training import command, loggers

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]


def test_a_sweep_in_a_folder_of_any_name_without_a_visible_gpu(pair: Path, tmp_path: Path) -> None:
    """Each run of it ends Ray, so that the next finds its GPUs; Hydra, verl, datasets and vLLM take the paths."""
    folder = tmp_path / 'relay (copy), a=b #1 it\'s "x" & ~ü 用户'
    world = folder / "pair"
    shutil.copytree(pair, world)
    run = folder / "run"
    place = override("trainer.default_local_dir", run / "checkpoints")[:-1] + '/${trainer.experiment_name}"'
    where = [override("hydra.sweep.dir", run / "sweep"), place, "trainer.total_training_steps=1", "trainer.save_freq=1"]
    words = command(run, *where, recipe="relay_tiny,relay_tiny_simple")
    environment = os.environ | loggers(run) | {"RELAY_TINY_DIR": str(world), "CUDA_VISIBLE_DEVICES": ""}
    run.mkdir(parents=True)
    done = subprocess.run([*words, "-m"], env=environment, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, (done.stdout + done.stderr)[-5000:]
    finished = sorted(file.parent.parent.name for file in run.glob("checkpoints/*/global_step_1/relay_checkpoint.json"))
    assert len(finished) == 2, finished
