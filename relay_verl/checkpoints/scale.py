"""Rank and alpha of the LoRA adapter in a checkpoint, as verl's FSDP trainers write them down."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from relay_verl.errors import UserError, as_user_error

META_FILE = "lora_train_meta.json"
"""verl's, in the actor's folder."""


@dataclass(frozen=True)
class Scale:
    """How much an adapter adds: alpha / rank times the product of its two matrices."""

    rank: int
    """Columns of B and rows of A."""
    alpha: int
    """The numerator."""


def read_scale(actor: Path) -> Scale | None:
    """Rank and alpha of the checkpoint in an actor's folder; None if it was trained without LoRA.

    Raises:
        UserError: the file that says so cannot be read.
    """
    file = actor / META_FILE
    if not file.exists():
        return None
    with as_user_error(
        (OSError, ValueError, KeyError, TypeError),
        lambda error: f"{file} does not say r and lora_alpha of the adapter ({type(error).__name__})",
    ):
        meta = json.loads(file.read_bytes())
        scale = Scale(int(meta["r"]), int(meta["lora_alpha"]))
    if scale.rank < 1 or scale.alpha < 1:
        raise UserError(f"{file}: r={scale.rank} and lora_alpha={scale.alpha}, expected at least 1 each")
    return scale
