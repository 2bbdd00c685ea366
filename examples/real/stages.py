"""Runs the stages of the example one after the other, and writes down what each took: seconds and memory.

A stage that was killed and taken up again has the seconds of all its runs. Memory is sampled, so that a short peak can
be missed; a process' resident memory counts pages that it shares with others.
"""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from relay_verl.files import replace_file

SAMPLE_S = 5.0
GIB = 2**30


class Stages:
    """The record of all stages in a JSON file.

    Args:
        file: where it is, also from earlier runs.
    """

    def __init__(self, file: Path):
        self._file = file
        self.record: dict[str, dict[str, Any]] = json.loads(file.read_text()) if file.is_file() else {}

    def run(self, name: str, bound: str, is_done: bool, work: Callable[[], object]) -> None:
        """Do `work` unless it is done, and print what it took and what bounds it."""
        if is_done:
            print(f"{name}: done before, in {self.record.get(name, {}).get('seconds', 0) / 60:.1f} min")
            return
        print(f"{name}: bounded by {bound}", flush=True)
        before = self.record.get(name, {"seconds": 0.0, "bound": bound, "total_gib": 0.0, "gib": {}})
        started = time.monotonic()

        def save(peak: Peak) -> None:
            self.record[name] = {
                "seconds": round(before["seconds"] + time.monotonic() - started, 1),
                "bound": bound,
                "total_gib": round(max(before["total_gib"], peak.total_gib), 2),
                "gib": {
                    process: round(max(before["gib"].get(process, 0.0), peak.gib.get(process, 0.0)), 2)
                    for process in {**before["gib"], **peak.gib}
                },
            }
            replace_file(self._file, (json.dumps(self.record, indent=2) + "\n").encode())

        with Peak(save).watch():
            work()
        now = self.record[name]
        print(f"{name}: {now['seconds'] / 60:.1f} min, at most {now['total_gib']:.1f} GiB of memory", flush=True)

    def to_markdown(self) -> str:
        """A table of all stages."""
        lines = ["| stage | minutes | GiB at most | bounded by |", "|:--|--:|--:|:--|"]
        for name, stage in self.record.items():
            lines.append(f"| {name} | {stage['seconds'] / 60:.1f} | {stage['total_gib']:.1f} | {stage['bound']} |")
        total = sum(stage["seconds"] for stage in self.record.values())
        return "\n".join([*lines, f"| all | {total / 60:.1f} | | |"])


class Peak:
    """The most memory that each process of this one took, in GiB, by the process' title.

    Args:
        save: is called now and then while the stage runs, for a stage may be killed, and at its end.
    """

    def __init__(self, save: Callable[["Peak"], None]):
        self._save = save
        self.gib: dict[str, float] = {}
        self.total_gib = 0.0

    @contextmanager
    def watch(self) -> Iterator[None]:
        """Sample until the block ends."""
        is_over = threading.Event()
        free_before = psutil.virtual_memory().available

        def sample() -> None:
            while not is_over.wait(SAMPLE_S):
                self.total_gib = max(self.total_gib, (free_before - psutil.virtual_memory().available) / GIB)
                for process in psutil.Process().children(recursive=True):
                    try:
                        title, size = _title(process.cmdline()), process.memory_info().rss / GIB
                    except psutil.Error:  # it has ended
                        continue
                    if size > 0.5:
                        self.gib[title] = max(self.gib.get(title, 0.0), size)
                self._save(self)

        thread = threading.Thread(target=sample, daemon=True)
        thread.start()
        try:
            yield
        finally:
            is_over.set()
            thread.join()
            self._save(self)


def _title(command: list[str]) -> str:
    """A process' name: what Ray and vLLM call theirs, else the module or script that Python runs."""
    if not command or "::" in command[0]:
        return command[0] if command else "?"
    if "-m" in command[1:-1]:
        return command[command.index("-m") + 1]
    return next((Path(word).name for word in command[1:] if not word.startswith("-")), Path(command[0]).name)
