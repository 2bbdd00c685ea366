"""The call warm-up (paper 3.1) with verl's SFT trainer: a recipe in, a Hugging Face folder out."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from relay_verl.checkpoints.lock import check_free
from relay_verl.pipeline.processes import run, trainer_folders


def warm_up(
    recipe: str, student: Path, folder: Path, *, overrides: Sequence[str] = (), variables: Mapping[str, str] = {}
) -> None:
    """Train the warm-up `recipe` and put its student into the folder `student`, unless it is there.

    Args:
        recipe: its name.
        student: the folder to make.
        folder: for checkpoints, log and metrics.
        overrides: of the recipe.
        variables: environment variables to add.

    Raises:
        UserError: another training writes into `folder`.
        StageError: the trainer failed; names its log.
    """
    if (student / "config.json").is_file():
        return
    folder.mkdir(parents=True, exist_ok=True)
    checkpoints = folder / "checkpoints"
    check_free(checkpoints)  # else the folder is taken from under a training, and its lock with it
    shutil.rmtree(checkpoints, ignore_errors=True)  # one epoch is short: it starts from its beginning
    launcher = ["torch.distributed.run", "--standalone", "--nproc_per_node=1", "-m", "verl.trainer.sft_trainer"]
    command = [sys.executable, "-m", *launcher, f"+recipe={recipe}", *overrides]
    command += trainer_folders(checkpoints, folder)
    metrics = {"VERL_FILE_LOGGER_PATH": str(folder / "metrics.jsonl")}
    print(f"{student.name}: verl's SFT trainer, +recipe={recipe}")
    run(command, {**variables, **metrics}, log=folder / "train.log")
    [exported] = checkpoints.glob("global_step_*/huggingface")
    exported.rename(student)
    shutil.rmtree(checkpoints)
