"""verl's file logger empties its file when it starts. A run that resumes adds to it, so that no step is lost.

A step that was logged after the last checkpoint is logged again: where the steps go back, the later lines count
(`relay_verl.evaluation.curves.read_log`). A line that the end of the earlier process cut is cut off, or the next one
would be joined to it.
Remove this when verl appends.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

_is_resumed = False


def resume() -> None:
    """This process's training goes on from a checkpoint."""
    global _is_resumed
    _is_resumed = True


def install(module: Any) -> None:
    """Let `verl.utils.tracking` open the log as above; a second call does nothing."""

    def open_log(file: Any, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
        if mode == "wb" and _is_resumed:
            _cut_last_line(Path(file))
            mode = "ab"
        return open(file, mode, *args, **kwargs)

    module.open = open_log


def _cut_last_line(file: Path) -> None:
    """Cut off what stands behind the last line break."""
    if not file.exists():
        return
    content = file.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    if len(whole) < len(content):
        os.truncate(file, len(whole))
