"""What a model is called outside of this machine, by the address that a run's config has of it."""

from __future__ import annotations

import re
from pathlib import Path

from relay_verl.checkpoints.card_words import without_paths
from relay_verl.models.address import name_of

_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")


def shown(address: str | None) -> str | None:
    """A model's hub id, or the last part of its folder."""
    return address if not address or hub_id(address) else without_paths(name_of(address))


def hub_id(address: str | None) -> str | None:
    """A model's id on the hub; None for a folder of this machine."""
    is_id = address and _HUB_ID.fullmatch(address) and not Path(address).exists()
    return address if is_id else None
