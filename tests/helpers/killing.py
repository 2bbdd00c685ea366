"""End a command in the middle of its work, as an out-of-memory killer does, and read what it had finished."""

import contextlib
import os
import shutil
import signal
import sqlite3
import subprocess
import tempfile
import time
from pathlib import Path

import psutil

PROGRESS_S = 600.0
"""Seconds until so many queries are finished: engines start first."""
END_S = 120.0
"""Seconds until the processes that the command started have ended."""


def finished(work: Path) -> dict[str, str]:
    """The finished queries of a job and their results, from a copy of its database, which the job may be writing."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            for file in work.glob("results.sqlite*"):  # and its log
                shutil.copy(file, folder)
            with contextlib.closing(sqlite3.connect(Path(folder) / "results.sqlite")) as database:
                return dict(database.execute("SELECT key, json FROM results"))
        except (OSError, sqlite3.DatabaseError):  # it was not there yet, or changed while it was copied
            return {}


def kill_when(process: subprocess.Popen[bytes], work: Path, num_finished: int) -> None:
    """End the process by SIGKILL once so many queries are finished; its engines end with it."""
    deadline = time.monotonic() + PROGRESS_S
    while len(finished(work)) < num_finished:
        assert process.poll() is None, "it ended by itself"
        assert time.monotonic() < deadline, "it makes no progress"
        time.sleep(0.02)
    started_by_it = descendants(process.pid)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    deadline = time.monotonic() + END_S
    while left := {pid: name for pid, name in started_by_it.items() if is_running(pid)}:
        assert time.monotonic() < deadline, f"processes are left: {left}"
        time.sleep(0.1)


def descendants(pid: int) -> dict[int, str]:
    """The processes that it and its children started, by id; without Ray's agents, which need a minute more."""
    named = {child.pid: " ".join(child.cmdline()[:3]) for child in psutil.Process(pid).children(recursive=True)}
    return {pid: name for pid, name in named.items() if "Agent" not in name}


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
