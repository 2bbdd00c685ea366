"""What verl's loggers do that a run must not pay for.

verl's file logger empties its file when it starts. A run that resumes adds to it, so that no step is lost. A step that
was logged after the last checkpoint is logged again: where the steps go back, the later lines count
(`read_log`). A line that the end of the earlier process cut is cut off, or the next one
would be joined to it. Remove this when verl appends.

A logger that fails while the run lasts (a full disk under TensorBoard's files, a tracking server that is away) ends
verl's training; here it costs its own metrics and a warning. Remove this when verl catches the failures of its loggers.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from relay_verl.jobs.byproducts import by_product

_is_resumed = False


def resume() -> None:
    """This process's training continues from a checkpoint."""
    global _is_resumed
    _is_resumed = True


def install(module: Any) -> None:
    """Let `verl.utils.tracking` open the log and bear failures as above; a second call does nothing."""

    def open_log(file: Any, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
        if mode == "wb" and _is_resumed:
            _cut_last_line(Path(file))
            mode = "ab"
        return open(file, mode, *args, **kwargs)

    module.open = open_log
    tracking = getattr(module, "Tracking", None)
    if tracking is not None and not hasattr(tracking, "relay_verl_log"):
        tracking.relay_verl_log, tracking.relay_verl_finish = tracking.log, tracking.finish
        tracking.log, tracking.finish = _log, _finish
    samples = getattr(module, "ValidationGenerationsLogger", None)
    if samples is not None and not hasattr(samples, "relay_verl_log"):
        samples.relay_verl_log = samples.log
        samples.log = by_product("the table of validation samples")(samples.log)


def _log(self: Any, data: Any, step: Any, backend: Any = None) -> None:
    """verl's `Tracking.log`, one backend at a time: those behind one that fails get their metrics."""
    for name in self.logger if backend is None else [name for name in self.logger if name in backend]:
        with by_product(f"a step of the logger {name!r}"):
            self.relay_verl_log(data, step, backend=[name])


def _finish(self: Any, exit_code: int = 0) -> None:
    """verl's `Tracking.finish`, which the trainer calls before its last lines."""
    with by_product("the end of the loggers' files"):
        self.relay_verl_finish(exit_code)


def _cut_last_line(file: Path) -> None:
    """Cut off what stands behind the last line break."""
    if not file.exists():
        return
    content = file.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    if len(whole) < len(content):
        os.truncate(file, len(whole))


def read_log(path: Path) -> dict[int, dict[str, Any]]:
    """Metrics by step of one log of verl's logger `file`; empty if no step is logged yet.

    Lines of the same step are merged, and a half-written last line is left out. Where the steps go back, the run was
    resumed there: what an earlier attempt logged from that step on is left out, too.

    Raises:
        OSError: the file cannot be read.
        ValueError: a line that ends is not a step; names the file and the line's number.
    """
    steps: dict[int, dict[str, Any]] = {}
    latest = -1
    *lines, last = Path(path).read_bytes().split(b"\n")
    for number, line in enumerate([*lines, last], start=1):
        try:
            entry = json.loads(line)
            step, data = int(entry["step"]), dict(entry["data"])
        except (ValueError, TypeError, KeyError) as error:
            if number > len(lines):  # no line break follows: still being written, or the empty rest of the file
                break
            raise ValueError(f"{path}, line {number}: not a step of verl's file logger ({error})") from error
        if step < latest:
            steps = {earlier: metrics for earlier, metrics in steps.items() if earlier < step}
        steps.setdefault(step, {}).update(data)
        latest = step
    return dict(sorted(steps.items()))
