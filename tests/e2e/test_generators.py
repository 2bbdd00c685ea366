"""The generators over real vLLM, killed in the middle: every query exactly once, and what was finished stays."""

import contextlib
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import pandas as pd
import pytest

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

GENERATORS = [
    # command, options, after which numbers of finished queries it is killed
    ("filter", [], [60]),
    ("warmup-data", ["--student", "{pair}/student"], [45]),
]


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


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def descendants(pid: int) -> dict[int, str]:
    """Processes that it started, and theirs, by their ids; but for Ray's agents, which need a minute more."""
    import psutil

    named = {child.pid: " ".join(child.cmdline()[:3]) for child in psutil.Process(pid).children(recursive=True)}
    return {pid: name for pid, name in named.items() if "Agent" not in name}


def kill_when(process: subprocess.Popen[bytes], work: Path, num_finished: int) -> None:
    """End the process by SIGKILL once so many queries are finished; its engines end with it."""
    deadline = time.monotonic() + 200
    while len(finished(work)) < num_finished:
        assert process.poll() is None, "it ended by itself"
        assert time.monotonic() < deadline, "it makes no progress"
        time.sleep(0.02)
    started_by_it = descendants(process.pid)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    deadline = time.monotonic() + 60
    while left := {pid: name for pid, name in started_by_it.items() if is_running(pid)}:
        assert time.monotonic() < deadline, f"processes are left: {left}"
        time.sleep(0.1)


@pytest.mark.parametrize(("command", "options", "kills"), GENERATORS, ids=[c for c, _, _ in GENERATORS])
def test_killed_in_the_middle_every_query_is_there_once(
    command: str, options: list[str], kills: list[int], pair: Path, tmp_path: Path
) -> None:
    out, log = tmp_path / "out.parquet", (tmp_path / "log").open("wb")
    questions = pd.read_parquet(pair / "questions.parquet").iloc[::2]
    questions.to_parquet(tmp_path / "questions.parquet")
    arguments = [sys.executable, "-m", "relay_verl", command, "--recipe", "relay_tiny"]
    arguments += ["--data", str(tmp_path / "questions.parquet"), "--out", str(out)]
    arguments += [option.format(pair=pair) for option in options]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    work = out.with_name(f"{out.name}.work")
    before: dict[str, str] = {}
    for num_finished in kills:
        process = subprocess.Popen(arguments, env=environment, stdout=log, stderr=log)
        try:
            kill_when(process, work, num_finished)
        finally:
            process.terminate()
        now = finished(work)
        assert before.items() <= now.items(), "a result changed or was lost"
        before = now
    subprocess.run(arguments, env=environment, stdout=log, stderr=log, check=True, timeout=200)
    wanted = [extra["id"] for extra in questions["extra_info"]]
    made = pd.read_parquet(out)
    manifest = json.loads(out.with_name(f"{out.name}.manifest.json").read_text())
    assert manifest["num_resumed"] == len(before) >= kills[-1]
    if command == "filter":
        assert [extra["id"] for extra in made["extra_info"]] == wanted
        assert {count["num_done"] for count in made["teacher_pass"]} == {10}
        return
    assert Counter(made["id"]) == Counter(dict.fromkeys(wanted, 6 * 4))
    assert not made.duplicated(["id", "sample", "placement"]).any()
