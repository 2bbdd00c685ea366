"""Is there room for a run's checkpoints? Said before the training, where a full disk costs nothing yet."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from omegaconf import OmegaConf

from relay_verl.checkpoints.integrity import find_steps
from relay_verl.errors import UserError
from relay_verl.models.address import count_parameters
from relay_verl.recipes.adapter import count_adapter, rank_of
from relay_verl.recipes.shapes import shape_of
from relay_verl.run_config import RunConfig, VerlConfig

BYTES_OF = {"model": 4, "optimizer": 8, "hf_model": 4}
"""Bytes a parameter takes in each part of a checkpoint: 32-bit weights, and Adam's two moments."""


def check_space(run: RunConfig) -> None:
    """A run's checkpoints must fit where they are written. Nothing is said of a student whose size is not known here.

    Raises:
        UserError: the folder cannot be written, or the free space is too small for sure.
    """
    trainer, folder = run.trainer, run.trainer.folder
    if folder is None or not trainer.saves:
        return
    there = nearest_folder(folder)
    if not os.access(there, os.W_OK):
        raise UserError(f"trainer.default_local_dir={folder}: {there} cannot be written")
    size = checkpoint_bytes(run.verl)
    if size is None:
        return
    keep = trainer.num_kept
    num_wanted = max(1, (max(keep, 2) if keep else 2) - len(find_steps(folder)))
    free = shutil.disk_usage(there).free
    if free < size * num_wanted:
        raise UserError(
            f"trainer.default_local_dir={folder}: {in_gb(free)} free, but {num_wanted} checkpoint(s) of {in_gb(size)} "
            "each are still to be written: free some, or give a folder on another disk"
        )


def checkpoint_bytes(config: VerlConfig) -> int | None:
    """Bytes of a checkpoint of either trainer on each node; None if the student's size is not known here."""
    is_grpo = "actor_rollout_ref" in config
    model = (config.actor_rollout_ref if is_grpo else config).model
    num_parameters = count_parameters(model.path)
    if num_parameters is None:
        return None
    checkpoint = OmegaConf.select(config, f"{'actor_rollout_ref.actor.' if is_grpo else ''}checkpoint") or {}
    num_of = dict.fromkeys(BYTES_OF, num_parameters)
    if rank_of(model):
        # LoRA: Adam's moments are the adapter's, and `save_lora_only` leaves the base out.
        shape = shape_of(model.path)
        num_adapter = (count_adapter(shape, model) or 0) if shape else 0
        num_of["optimizer"] = num_adapter
        num_of["model"] = num_adapter + (0 if checkpoint.get("save_lora_only") else num_parameters)
    parts = checkpoint.get("save_contents") or ["model", "optimizer"]
    num_bytes = sum(num_of[part] * BYTES_OF[part] for part in parts if part in BYTES_OF)
    return num_bytes // (config.trainer.get("nnodes") or 1)


def nearest_folder(folder: Path) -> Path:
    """The folder itself, or the nearest one above it that is there."""
    return next(path for path in (folder, *folder.parents) if path.is_dir())


def in_gb(num_bytes: int) -> str:
    """Bytes for people."""
    return f"{num_bytes / 1e9:.2f} GB" if num_bytes >= 1e8 else f"{num_bytes / 1e9:.4f} GB"
