"""verl's file logger empties its file when it starts. A run that resumes adds to it, so that no step is lost.

A step that was logged after the last checkpoint is logged again: of two lines with the same step the later counts.
Remove this when verl appends.
"""

from __future__ import annotations

from typing import Any

_is_resumed = False


def resume() -> None:
    """This process's training goes on from a checkpoint."""
    global _is_resumed
    _is_resumed = True


def install(module: Any) -> None:
    """Let `verl.utils.tracking` open the log as above; a second call does nothing."""

    def open_log(file: Any, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
        return open(file, "ab" if mode == "wb" and _is_resumed else mode, *args, **kwargs)

    module.open = open_log
