"""Processes by what tells them from later ones with the same number."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import psutil


class ProcessId(NamedTuple):
    """A process of this machine."""

    pid: int
    created_at: float
    """When it was started, in seconds since 1970."""


def descendants() -> list[ProcessId]:
    """What this process has started, and what that has."""
    return [ProcessId(child.pid, child.create_time()) for child in psutil.Process().children(recursive=True)]


def end(processes: Iterable[ProcessId]) -> None:
    """Kill those that are still there."""
    for process in processes:
        try:
            current = psutil.Process(process.pid)
            if current.create_time() == process.created_at:
                current.kill()
        except psutil.NoSuchProcess:
            continue
