"""Pictures of a training run, or of several on top of each other, from the log of verl's file logger.

A log is JSON lines, `{"step": 3, "data": {"relay/accuracy": 0.41, ...}}`, from `trainer.logger=[file]`. A short run is
drawn as it was: a point for each step, and a thin line through them. In a longer one raw points are faint, and the line
is a centred moving average over about a tenth of the run. A single run shows its scenarios as stacked areas; several
runs keep one colour each in every panel, and the quantities of a panel differ in line style.

Uses matplotlib's objects, not pyplot: no window and no global figure.
"""

from __future__ import annotations

import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from relay_verl.files import replace_file

Log = Mapping[int, Mapping[str, Any]]
"""Metrics by step."""


@dataclass(frozen=True)
class Series:
    """One metric in a panel."""

    metric: str
    """Its name in the log."""
    label: str
    """Its name in the legend."""
    colour: str
    """Where it does not tell runs apart."""


@dataclass(frozen=True)
class Panel:
    """One of the six pictures."""

    title: str
    ylabel: str
    """What the vertical axis shows, with its unit."""
    series: tuple[Series, ...]
    is_share: bool = False
    """Values between 0 and 1, shown as percentages."""
    is_whole: bool = False
    """The axis covers 0 to 100%."""
    is_stacked: bool = False
    """The series are shares of one whole."""


# Okabe and Ito's colours, which people with a colour vision deficiency can tell apart.
_BLUE, _VERMILION, _GREEN, _PURPLE, _ORANGE, _SKY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"
_RUN_COLOURS = (_BLUE, _VERMILION, _GREEN, _PURPLE, _ORANGE, _SKY, "#555555")
_LINE_STYLES: tuple[Any, ...] = ("-", (0, (4, 1.6)), (0, (1, 1.3)))
_GREY = "#5f6570"
NUM_STEPS_TO_SMOOTH = 30
"""A run of fewer steps is not averaged: a window of three of ten steps would show a trend that is not there."""

PANELS = (
    Panel("Accuracy", "right answers by rule (%)", (Series("relay/accuracy", "accuracy", _BLUE),), True, True),
    Panel("Call rate", "responses that call (%)", (Series("relay/call_rate", "call rate", _VERMILION),), True, True),
    Panel("Call ratio", "teacher's share of tokens (%)", (Series("relay/call_ratio", "call ratio", _PURPLE),), True),
    Panel(
        "Teacher tokens",
        "tokens per response",
        (
            Series("relay/requested_tokens", "requested", _ORANGE),
            Series("relay/delivered_tokens", "delivered", _BLUE),
        ),
    ),
    Panel(
        "Scenarios",
        "questions (%)",
        (
            Series("relay/scenario/student_solvable", "student-solvable", _GREEN),
            Series("relay/scenario/teacher_dependent", "teacher-dependent", _ORANGE),
            Series("relay/scenario/teacher_unsolvable", "teacher-unsolvable", "#9AA0A6"),
        ),
        True,
        True,
        True,
    ),
    Panel("Reward", "mean reward per response", (Series("critic/score/mean", "reward", _GREEN),)),
)

_STYLE: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 9.0,
    "axes.edgecolor": "#b8bdc7",
    "axes.labelcolor": "#3c4149",
    "axes.linewidth": 0.8,
    "xtick.color": _GREY,
    "ytick.color": _GREY,
    "svg.hashsalt": "relay_verl",
    "text.parse_math": False,
}


def read_log(path: Path) -> Log:
    """Metrics by step of one log; lines of the same step are merged, and a half-written last line is left out. Where
    the steps go back, the run was resumed there: what an earlier attempt logged from that step on is left out, too.

    Raises:
        ValueError: another line is not a step; names the file and the line's number. Or there is no step.
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
    if not steps:
        raise ValueError(f"{path}: no step is logged yet")
    return dict(sorted(steps.items()))


def plot_curves(logs: Path | Mapping[str, Path], out: Path, title: str = "") -> None:
    """Draw accuracy, call rate, call ratio, teacher tokens, scenarios and reward over the training steps.

    Args:
        logs: one log, or logs by label to lay on top of each other, such as seeds or recipes.
        out: the picture, a PNG; the same as SVG goes beside it, under its name with the suffix .svg.
        title: a line above the panels.

    Raises:
        ValueError: a log cannot be read, or has no step.
    """
    runs = {label: read_log(path) for label, path in (logs if isinstance(logs, Mapping) else {"": logs}).items()}
    if not runs:
        raise ValueError("logs: there is nothing to draw")
    with matplotlib.rc_context(_STYLE):
        layout = ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.1)
        figure = Figure(figsize=(11.0, 6.4), layout=layout, facecolor="white")
        FigureCanvasAgg(figure)
        axes = figure.subplots(2, 3)
        for panel, axis in zip(PANELS, axes.flat, strict=True):
            _draw_panel(axis, panel, runs)
        for axis in axes[-1]:
            axis.set_xlabel("training step")
        if title:
            figure.suptitle(title, fontsize=12.5, fontweight="bold", color="#1d2026")
        if len(runs) > 1:
            handles = [Line2D([], [], color=_run_colour(i), linewidth=2.2, label=name) for i, name in enumerate(runs)]
            figure.legend(handles=handles, loc="outside lower center", ncols=min(len(runs), 6), frameon=False)
        for path, options in (
            (Path(out).with_suffix(".png"), {"dpi": 180}),
            (Path(out).with_suffix(".svg"), {"metadata": {"Date": None}}),
        ):
            picture = io.BytesIO()
            figure.savefig(picture, format=path.suffix[1:], **options)
            replace_file(path, picture.getvalue())


def _draw_panel(axis: Axes, panel: Panel, runs: Mapping[str, Log]) -> None:
    axis.set_title(panel.title, loc="left", fontsize=10.5, fontweight="bold", color="#1d2026")
    axis.set_ylabel(panel.ylabel)
    axis.grid(axis="y", color="#e6e8ec", linewidth=0.8)
    axis.set_axisbelow(True)
    axis.spines[["top", "right"]].set_visible(False)
    axis.tick_params(length=3)
    axis.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    if not any(
        series.metric in metrics for log in runs.values() for metrics in log.values() for series in panel.series
    ):
        axis.text(0.5, 0.5, "not logged", transform=axis.transAxes, ha="center", va="center", color=_GREY)
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
                continue
            axis.plot(steps, values, ".", color=colour, alpha=0.3 if is_alone else 0.2, markersize=4, markeredgewidth=0)
            axis.plot(steps, _smooth(values), color=colour, linewidth=1.9, linestyle=style)
    if len(panel.series) > 1:
        handles = [
            Line2D([], [], color=s.colour if is_alone else _GREY, linestyle=style, linewidth=1.9, label=s.label)
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
    axis.legend(fontsize=8, labelcolor="#3c4149", framealpha=0.85, edgecolor="none", **options)


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
    return _RUN_COLOURS[run % len(_RUN_COLOURS)]
