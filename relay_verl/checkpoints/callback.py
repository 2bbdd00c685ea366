"""verl's checkpoint callback that writes the records (`trainer.checkpoint_callback_class`), where the trainer runs.

verl removes only the models of the checkpoints that are too many, and forgets at each start those of the sessions
before; what this run's records name and `trainer.max_actor_ckpt_to_keep` does not keep goes here.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from verl.trainer.ppo.checkpoint_callback import CheckpointCallback

from relay_verl.checkpoints import metrics_log
from relay_verl.checkpoints.changes import find_changes
from relay_verl.checkpoints.integrity import last_saved, step_of
from relay_verl.checkpoints.record import (
    CHECKPOINT_FILE,
    RunRecord,
    read_checkpoint,
    record_of,
    write_checkpoint,
    write_run,
)
from relay_verl.checkpoints.resume import runs_folder
from relay_verl.errors import UserError
from relay_verl.jobs.byproducts import by_product
from relay_verl.run_config import VerlConfig


class RecordCheckpoint(CheckpointCallback):
    """Writes the run's record at the start, and a checkpoint's as soon as it is whole."""

    def __init__(self, config: VerlConfig):
        """Raises UserError or OSError: the run's record cannot be made or written."""
        super().__init__(config)
        self.run = record_of(config)
        mode = config.trainer.get("resume_mode", "auto")
        # `check_resume` has read the checkpoint in the driver: in mode auto, the pointer's is the one.
        if mode == "resume_path" or (mode == "auto" and last_saved(runs_folder(config)) is not None):
            metrics_log.resume()
        if (config.trainer.get("save_freq") or 0) > 0:
            write_run(runs_folder(config), self.run)

    def on_save(
        self, trainer: Any, global_step: int, checkpoint_dir: str, async_save: bool = False, **kwargs: Any
    ) -> None:
        """Record the checkpoint, and remove those that are too many. An asynchronous save is not whole yet."""
        if async_save:
            return
        folder = Path(checkpoint_dir).absolute()
        metrics = getattr(trainer.replay_buffer, "last_metrics", {})
        write_checkpoint(folder, self.run, global_step, metrics)
        keep = self.config.trainer.get("max_actor_ckpt_to_keep")
        if keep:
            # a folder that cannot be removed costs room on the disk, not the training
            with by_product("the removal of old checkpoints"):
                remove_old(folder, self.run, keep)


def remove_old(newest: Path, run: RunRecord, keep: int) -> None:
    """Remove this run's checkpoints but the `keep` newest, of which `newest` is one.

    Others' are left alone: a folder without a record, or with that of another config, and all that are newer.
    """
    last = step_of(newest)
    assert last is not None
    folders = {step_of(file.parent): file.parent for file in newest.parent.glob(f"global_step_*/{CHECKPOINT_FILE}")}
    kept = 0
    for step in sorted((step for step in folders if step is not None and step <= last), reverse=True):
        folder = folders[step]
        if (folder / "actor").is_dir() and kept < keep:
            kept += 1
        elif _is_of(folder, run):
            shutil.rmtree(folder)


def _is_of(folder: Path, run: RunRecord) -> bool:
    try:
        record = read_checkpoint(folder)
    except UserError:
        return False
    return record is not None and next(find_changes(record.run, run), None) is None
