"""Around verl's save: nothing is mixed with what a killed save left, and a save that fails is one line.

verl writes into `global_step_N` even if that is there, and a full disk ends in a traceback of a worker's. Remove this
when verl writes a checkpoint next to its place and renames it.
"""

from __future__ import annotations

import functools
import shutil
from pathlib import Path
from typing import Any

from relay_verl.checkpoints.integrity import find_damage, newest_whole
from relay_verl.checkpoints.resume import runs_folder
from relay_verl.checkpoints.space import in_gb, nearest_folder
from relay_verl.errors import SaveError


def install(module: Any) -> None:
    """Wrap the save of verl's trainer; a second call does nothing."""
    original = module.PPOTrainer._save_checkpoint
    if getattr(original, "is_relay_save", False):
        return

    @functools.wraps(original)
    def save(self: Any) -> None:
        if "relay" not in self.config:
            return original(self)
        folder = runs_folder(self.config) / f"global_step_{self.global_steps}"
        set_aside(folder)
        try:
            original(self)
        except Exception as error:
            raise SaveError(explain_failed_save(folder, error)) from None

    save.is_relay_save = True  # type: ignore[attr-defined]
    module.PPOTrainer._save_checkpoint = save


def set_aside(folder: Path) -> None:
    """Rename what is at a checkpoint's place to the first free `global_step_N.old-K`."""
    if not folder.exists():
        return
    names = (folder.with_name(f"{folder.name}.old-{number}") for number in range(1, 1000))
    aside = next(name for name in names if not name.exists())
    folder.rename(aside)
    print(f"relay_verl: {folder} was there already; it is {aside.name} now, and may be removed", flush=True)


def explain_failed_save(folder: Path, error: Exception) -> str:
    """One line on a save that failed: where, why, how much room there is, and where the same command continues.

    Of a checkpoint that verl did not finish, which is of no use to anybody, the files are removed.
    """
    room = shutil.disk_usage(nearest_folder(folder)).free
    if folder.exists() and find_damage(folder):
        room += size_of(folder)
        shutil.rmtree(folder, ignore_errors=True)
    before = newest_whole(folder.parent)
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    reason = lines[-1][:300]
    if before is None:
        return (
            f"{folder} could not be saved with {in_gb(room)} free: {reason}; the same command starts at the beginning"
        )
    if room < size_of(before):
        reason = f"the disk is full: a checkpoint takes {in_gb(size_of(before))} ({reason})"
    return (
        f"{folder} could not be saved with {in_gb(room)} free: {reason}; "
        f"the same command resumes at {before.name}, which is whole"
    )


def size_of(folder: Path) -> int:
    """Bytes of all files in a folder."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
