"""One training at a time writes into a folder of checkpoints: two would mix their steps, and each remove the other's.

The driver holds the lock, so that a run that is killed leaves none; its workers, wherever they are, are the driver's.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import IO

from relay_verl.errors import as_user_error
from relay_verl.files import LockedError, lock

LOCK_FILE = "relay_run.lock"
_held: dict[Path, IO[str]] = {}
"""The locks of this process, by folder."""


def hold(folder: Path | None) -> None:
    """Take the lock of a run's folder, if it has one, until `release`, or the end of this process. Makes the folder.

    Raises:
        UserError: another process has it; names the process and its host.
    """
    if folder is None or folder in _held or not _is_first_rank():
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _held[folder] = _lock(folder)
    except OSError as error:  # a disk without locks, or one that only the workers write to
        print(f"relay_verl: {folder} is not locked against a second training: {error.strerror}", file=sys.stderr)


def release() -> None:
    """Give back what this process holds: the next run of a sweep may take the same folder."""
    while _held:
        _held.popitem()[1].close()


def check_free(folder: Path | None) -> str:
    """Another training may be writing there; this one has not begun.

    Raises:
        UserError: another process has the lock.
    """
    if folder is None or folder in _held or not _is_first_rank() or not (folder / LOCK_FILE).exists():
        return "no other training has written there"
    try:
        _lock(folder).close()
    except OSError as error:
        return f"not known: {error.strerror}"
    return "no other training is writing there"


def _is_first_rank() -> bool:
    """torchrun starts the SFT trainer once a GPU."""
    return os.environ.get("RANK", "0") == "0"


def _lock(folder: Path) -> IO[str]:
    with as_user_error(
        LockedError,
        lambda holder: (
            f"trainer.default_local_dir={folder}: another training writes there: {holder}; end that one, "
            "or give another folder"
        ),
    ):
        return lock(folder / LOCK_FILE)
