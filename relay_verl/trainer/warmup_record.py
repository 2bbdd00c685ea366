"""What says that a student was warmed up: `relay_warmup.json` in the Hugging Face folder that the SFT trainer leaves.

verl's SFT trainer has no callback on a save; remove the wrapping when it has one.
"""

from __future__ import annotations

import functools
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from relay_verl.files import replace_file
from relay_verl.jobs.byproducts import by_product
from relay_verl.versions import versions

WARMUP_FILE = "relay_warmup.json"
HF_FOLDER = "huggingface"


@dataclass(frozen=True)
class WarmupRecord:
    """What a warmed-up student was trained on."""

    step: int
    """Step of the SFT trainer that this was saved at."""
    num_rows: int
    """Rows of the warm-up data."""
    files: list[str]
    """Names of its files."""
    versions: dict[str, str]
    """Versions of what a result depends on."""


def install(module: Any) -> None:
    """Wrap the save of verl's SFT trainers; a second call does nothing."""
    original = module.CheckpointHandler.save_checkpoint
    if getattr(original, "is_relay_save", False):
        return

    @functools.wraps(original)
    def save(self: Any, step: int) -> None:
        original(self, step)
        if self.rank == 0:
            # without it start-up warns of a student that was not warmed up, and no weight is lost
            with by_product("the record of the warm-up"):
                record_save(Path(self.default_local_dir) / f"global_step_{step}", self.train_dataloader.dataset, step)

    save.is_relay_save = True  # type: ignore[attr-defined]
    module.CheckpointHandler.save_checkpoint = save


def record_save(folder: Path, dataset: Any, step: int) -> None:
    """Write the record into a checkpoint's Hugging Face folder, if the data are those of a warm-up. Raises OSError."""
    from relay_verl.trainer.warmup_dataset import WarmupDataset

    if isinstance(dataset, WarmupDataset) and (folder / HF_FOLDER).is_dir():
        names = [Path(file).name for file in dataset.files]
        record = WarmupRecord(step, len(dataset), names, versions())
        replace_file(folder / HF_FOLDER / WARMUP_FILE, json.dumps(asdict(record), indent=1).encode())


def says_warmed_up(folder: Path) -> bool:
    """Whether a model folder says that its student knows commands: by this record, or as an export of ours."""
    return (folder / WARMUP_FILE).is_file() or _is_export(folder)


def _is_export(folder: Path) -> bool:
    import yaml
    from huggingface_hub import metadata_load

    from relay_verl.checkpoints.card import CARD_FILE, TAG

    try:
        return TAG in ((metadata_load(folder / CARD_FILE) or {}).get("tags") or ())
    except (OSError, ValueError, yaml.YAMLError):  # somebody else's file
        return False
