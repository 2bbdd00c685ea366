"""Is there room for a run's checkpoints? Said before the training, where a full disk costs nothing yet."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

from relay_verl.checkpoints.integrity import find_steps
from relay_verl.config import ConfigError

BYTES_OF = {"model": 4, "optimizer": 8, "hf_model": 4}
"""Bytes a parameter takes in each part of a checkpoint: 32-bit weights, and Adam's two moments."""


def check_space(config: Any) -> None:
    """A run's checkpoints must fit where they are written. Nothing is said of a student whose size is not known here.

    Raises:
        ConfigError: the folder cannot be written, or the free space is too small for sure.
    """
    trainer = config.trainer
    if (trainer.get("save_freq") or 0) <= 0:
        return
    folder = Path(trainer.default_local_dir).absolute()
    there = nearest_folder(folder)
    if not os.access(there, os.W_OK):
        raise ConfigError(f"trainer.default_local_dir={folder}: {there} cannot be written")
    size = checkpoint_bytes(config)
    if size is None:
        return
    keep = trainer.get("max_actor_ckpt_to_keep")
    num_wanted = max(1, (max(keep, 2) if keep else 2) - len(find_steps(folder)))
    free = shutil.disk_usage(there).free
    if free < size * num_wanted:
        raise ConfigError(
            f"trainer.default_local_dir={folder}: {in_gb(free)} free, but {num_wanted} checkpoint(s) of {in_gb(size)} "
            "each are still to be written: free some, or give a folder on another disk"
        )


def checkpoint_bytes(config: Any) -> int | None:
    """Bytes of a checkpoint on each node, by the student's number of parameters; None if that is not known here."""
    num_parameters = count_parameters(config.actor_rollout_ref.model.path)
    if num_parameters is None:
        return None
    saved = (config.actor_rollout_ref.actor.get("checkpoint") or {}).get("save_contents") or ["model", "optimizer"]
    return num_parameters * sum(BYTES_OF.get(part, 0) for part in saved) // config.trainer.nnodes


def count_parameters(address: str) -> int | None:
    """Parameters of a model in a folder or in the hub's cache, by the headers of its safetensors; None if unknown."""
    folder = Path(address).expanduser()
    if not folder.is_dir():
        from huggingface_hub import try_to_load_from_cache
        from huggingface_hub.errors import HFValidationError

        try:
            cached = try_to_load_from_cache(address, "config.json")
        except HFValidationError:
            return None
        if not isinstance(cached, str):
            return None
        folder = Path(cached).parent
    files = list(folder.glob("*.safetensors"))
    try:
        return sum(map(_count_in_file, files)) if files else None
    except (OSError, ValueError, KeyError):  # whoever loads it says what is wrong
        return None


def _count_in_file(file: Path) -> int:
    from math import prod

    with open(file, "rb") as content:
        header = json.loads(content.read(int.from_bytes(content.read(8), "little")))
    return sum(prod(entry["shape"]) for name, entry in header.items() if name != "__metadata__")


def nearest_folder(folder: Path) -> Path:
    """The folder itself, or the nearest one above it that is there."""
    return next(path for path in (folder, *folder.parents) if path.is_dir())


def in_gb(num_bytes: int) -> str:
    """Bytes for people."""
    return f"{num_bytes / 1e9:.2f} GB" if num_bytes >= 1e8 else f"{num_bytes / 1e9:.4f} GB"
