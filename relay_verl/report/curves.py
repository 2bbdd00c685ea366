"""Pictures of a training run, or of several on top of each other, from the log of verl's file logger.

A log is JSON lines, `{"step": 3, "data": {"relay/accuracy": 0.41, ...}}`, from `trainer.logger=[file]`. A short run is
drawn as it was: a point for each step, and a thin line through them. In a longer one raw points are faint, and the line
is a centred moving average over about a tenth of the run. A single run shows its scenarios as stacked areas; several
runs keep one colour each in every panel, and the quantities of a panel differ in line style. Validation, where the log
has it, is a diamond at each of its steps: the mean over its data sources.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from relay_verl.checkpoints import metrics_log
from relay_verl.pictures import (
    COLOURS,
    INK,
    NEITHER,
    SOFT,
    STUDENT,
    TEACHER,
    dress,
    mark_steps,
    new_figure,
    reference_line,
    save,
)
from relay_verl.report.panels import PANELS, Panel

Log = Mapping[int, Mapping[str, Any]]
"""Metrics by step."""


NUM_STEPS_TO_SMOOTH = 30
"""A run of fewer steps is not averaged: a window of three of ten steps would show a trend that is not there."""
_LINE_STYLES: tuple[Any, ...] = ("-", (0, (4, 1.6)), (0, (1, 1.3)))
_VALIDATION_MARK: dict[str, Any] = {"marker": "D", "markersize": 5.5, "linestyle": "none", "markerfacecolor": "white"}


def read_log(path: Path) -> Log:
    """The steps of one log (`relay_verl.checkpoints.metrics_log.read_log`).

    Raises:
        ValueError: it is not a log; names the file and the line's number. Or it has no step.
    """
    log = metrics_log.read_log(path)
    if not log:
        raise ValueError(f"{path}: no step is logged yet")
    return log


def plot_curves(
    logs: Path | Mapping[str, Path], out: Path, title: str = "", *, references: Mapping[str, float] = {}
) -> None:
    """Draw accuracy, call rate, call ratio, teacher tokens, scenarios and reward over the training steps.

    Args:
        logs: one log, or logs by label to lay on top of each other, such as seeds or recipes.
        out: the picture, a PNG; the same as SVG goes next to it, under its name with the suffix .svg.
        title: a line above the panels; the runs' labels and their numbers of steps if it is empty.
        references: accuracies (shares of 1) to compare with, such as {"student alone": 0.4}: dotted lines in the first
            panel, in the colour of whom their name begins with.

    Raises:
        ValueError: a log cannot be read, or has no step.
    """
    runs = {label: read_log(path) for label, path in (logs if isinstance(logs, Mapping) else {"": logs}).items()}
    if not runs:
        raise ValueError("logs: there is nothing to draw")
    title = title or f"Training of {', '.join(runs)}".removesuffix(" of ") + f", {_tell_steps(runs.values())}"
    with new_figure(11.0, 6.9, title) as figure:
        axes = figure.subplots(2, 3)
        for panel, axis in zip(PANELS, axes.flat, strict=True):
            _draw_panel(axis, panel, runs)
        for name, accuracy in references.items():
            colour = STUDENT if name.startswith("student") else TEACHER if name.startswith("teacher") else NEITHER
            reference_line(axes.flat[0], accuracy, name, colour)
        handles = _run_handles(runs)
        if handles:
            figure.legend(handles=handles, loc="outside lower center", ncols=min(len(handles), 6))
        save(figure, Path(out).with_suffix(".png"), Path(out).with_suffix(".svg"))


def _tell_steps(logs: Iterable[Log]) -> str:
    numbers = sorted({max(log) for log in logs})
    return f"{'/'.join(map(str, numbers))} step{'s' * (numbers != [1])}"


def _run_handles(runs: Mapping[str, Log]) -> list[Line2D]:
    """What the legend below all panels says: which run has which colour, and what the marks are."""
    handles = []
    if len(runs) > 1:
        handles = [Line2D([], [], color=_run_colour(i), linewidth=2.2, label=name) for i, name in enumerate(runs)]
    else:
        is_short = _is_short(len(next(iter(runs.values()))))
        handles.append(Line2D([], [], color=INK, marker="o" if is_short else ".", linestyle="none", label="one step"))
        if not is_short:
            label = "average over about a tenth of the run"
            handles.append(Line2D([], [], color=INK, linewidth=1.9, label=label))
    if any(_validation(log, series.validation) for log in runs.values() for p in PANELS for series in p.series):
        handles.append(Line2D([], [], **_VALIDATION_MARK, color=INK, label="validation, mean over its data sources"))
    return handles


def _validation(log: Log, variable: str) -> dict[int, float]:
    """Validation's mean of a variable by step, over data sources; empty where the log has none."""
    if not variable:
        return {}
    name = re.compile(rf"val-(core|aux)/.+/{re.escape(variable)}/mean@\d+")
    means = {
        step: [float(value) for key, value in metrics.items() if name.fullmatch(key) and _is_finite(value)]
        for step, metrics in log.items()
    }
    return {step: sum(values) / len(values) for step, values in means.items() if values}


def _draw_panel(axis: Axes, panel: Panel, runs: Mapping[str, Log]) -> None:
    dress(axis, panel.title, x="training step", y=panel.ylabel)
    if not any(
        series.metric in metrics for log in runs.values() for metrics in log.values() for series in panel.series
    ):
        axis.text(0.5, 0.5, "not logged", transform=axis.transAxes, ha="center", va="center", color=SOFT)
        axis.set_xticks([])
        axis.set_yticks([])
        return
    if len(runs) == 1 and panel.is_stacked:
        _draw_stack(axis, panel, next(iter(runs.values())))
    else:
        _draw_lines(axis, panel, list(runs.values()))
    all_steps = [step for log in runs.values() for step in log]
    margin = 0.5 if _is_short(len(set(all_steps))) else 0.0  # points at the edges are whole
    axis.set_xlim(min(all_steps) - margin, max(*all_steps, min(all_steps) + 1) + margin)
    mark_steps(axis, min(all_steps), max(all_steps))
    if panel.is_share:
        axis.yaxis.set_major_formatter(lambda share, _: f"{100 * share:g}")
    if panel.is_whole:
        room = 0.0 if panel.is_stacked and len(runs) == 1 else 0.02
        axis.set_ylim(-room, 1.0 + room)
    elif axis.dataLim.ymin >= 0:
        axis.set_ylim(bottom=0.0)


def _draw_lines(axis: Axes, panel: Panel, logs: Sequence[Log]) -> None:
    is_alone = len(logs) == 1
    for run, log in enumerate(logs):
        for style, series in zip(_LINE_STYLES, panel.series, strict=False):
            steps, (values,) = _read(log, series.metric)
            colour = series.colour if is_alone else _run_colour(run)
            if _is_short(len(steps)):
                axis.plot(steps, values, marker="o", color=colour, markersize=4.5, linewidth=1.2, linestyle=style)
            else:
                faint: dict[str, Any] = {"alpha": 0.3 if is_alone else 0.2, "markersize": 4, "markeredgewidth": 0}
                axis.plot(steps, values, ".", color=colour, **faint)
                axis.plot(steps, _smooth(values), color=colour, linewidth=1.9, linestyle=style)
        for series in panel.series:
            points = _validation(log, series.validation)
            colour = series.colour if is_alone else _run_colour(run)
            if points:
                axis.plot(list(points), list(points.values()), color=colour, **_VALIDATION_MARK)
    if len(panel.series) > 1:
        handles = [
            Line2D([], [], color=s.colour if is_alone else SOFT, linestyle=style, linewidth=1.9, label=s.label)
            for style, s in zip(_LINE_STYLES, panel.series, strict=False)
        ]
        _add_legend(axis, handles=handles, handlelength=2.6)


def _draw_stack(axis: Axes, panel: Panel, log: Log) -> None:
    steps, shares = _read(log, *(series.metric for series in panel.series))
    if _is_short(len(steps)):  # an area between two of few steps would show questions that were never asked
        for series, values, base in zip(panel.series, shares, np.cumsum(shares, axis=0) - shares, strict=True):
            axis.bar(steps, values, 0.8, bottom=base, color=series.colour, alpha=0.85, label=series.label)
    else:
        axis.stackplot(
            steps,
            [_smooth(values) for values in shares],
            labels=[series.label for series in panel.series],
            colors=[series.colour for series in panel.series],
            alpha=0.85,
        )
    _add_legend(axis, reverse=True, handlelength=1.2)


def _add_legend(axis: Axes, **options: Any) -> None:
    axis.legend(frameon=True, framealpha=0.85, edgecolor="none", facecolor="white", **options)


def _read(log: Log, *metrics: str) -> tuple[np.ndarray, np.ndarray]:
    """Steps [num_points] and values [num_metrics, num_points] where all these metrics are finite numbers."""
    rows = [(step, [values.get(metric) for metric in metrics]) for step, values in log.items()]
    rows = [(step, row) for step, row in rows if all(map(_is_finite, row))]
    values = np.asarray([row for _, row in rows], dtype=float).reshape(len(rows), len(metrics))
    return np.asarray([step for step, _ in rows], dtype=int), values.T


def _is_finite(value: object) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)


def _is_short(num_steps: int) -> bool:
    return num_steps < NUM_STEPS_TO_SMOOTH


def _smooth(values: np.ndarray) -> np.ndarray:
    """Centred moving average; the window is about a tenth of the run and narrows at both ends."""
    reach = max(1, round(len(values) / 20))
    return np.asarray([values[max(0, i - reach) : i + reach + 1].mean() for i in range(len(values))])


def _run_colour(run: int) -> str:
    return COLOURS[run % len(COLOURS)]
