"""The one style of all pictures: fonts, lines, and colours that mean the same everywhere.

Blue is the student, amber the teacher, green the relay of both; grey is what neither of them can do, and what is drawn
to compare with. On the pages (`relay_verl.palette`) the teacher's words are amber, too. The six colours are Okabe and
Ito's, which people with a colour vision deficiency can tell apart, without their yellow and black.

Uses matplotlib's objects, not pyplot: no window and no global figure.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import FixedLocator, MaxNLocator

from relay_verl.files import replace_file
from relay_verl.palette import LIGHT

BLUE, VERMILION, GREEN, PURPLE, AMBER, SKY = "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"
STUDENT, TEACHER, RELAY, NEITHER = BLUE, AMBER, GREEN, "#80868f"
"""Whose a line, bar or area is."""
OTHERS = (VERMILION, PURPLE, SKY)
"""For what none of them is, such as a baseline or another run."""
COLOURS = (STUDENT, VERMILION, RELAY, PURPLE, TEACHER, SKY, NEITHER)
"""For things of one kind, such as runs, in order."""
INK, SOFT, LINE = LIGHT["ink"], LIGHT["soft"], LIGHT["line"]
"""Text, labels and frames, grid: those of a light page."""
DPI = 180


def style(ink: str = INK, soft: str = SOFT, line: str = LINE) -> Any:
    """matplotlib's settings, a dictionary, with these colours of what is not data."""
    return {
        "font.family": "DejaVu Sans",
        "font.size": 9.0,
        "text.color": ink,
        "text.parse_math": False,
        "axes.edgecolor": soft,
        "axes.labelcolor": soft,
        "axes.titlecolor": ink,
        "axes.titlelocation": "left",
        "axes.titlesize": 10.5,
        "axes.titleweight": "bold",
        "axes.linewidth": 0.7,
        "axes.facecolor": "none",
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.grid.axis": "y",
        "axes.axisbelow": True,
        "grid.color": line,
        "grid.linewidth": 0.8,
        "xtick.color": soft,
        "ytick.color": soft,
        "xtick.major.size": 3.0,
        "ytick.major.size": 3.0,
        "legend.frameon": False,
        "legend.fontsize": 8.0,
        "legend.labelcolor": ink,
        "figure.titlesize": 12.5,
        "figure.titleweight": "bold",
        "svg.hashsalt": "relay_verl",
    }


@contextmanager
def new_figure(width: float, height: float, title: str = "") -> Iterator[Figure]:
    """A figure of this many inches on white, in the style while the block lasts."""
    with matplotlib.rc_context(style()):
        layout = ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.1)
        figure = Figure(figsize=(width, height), layout=layout, facecolor="white")
        FigureCanvasAgg(figure)
        if title:
            figure.suptitle(title, x=0.01, ha="left")
        yield figure


def save(figure: Figure, *paths: Path) -> None:
    """Write the figure to each path, a PNG or an SVG by its suffix; the same figure gives the same bytes."""
    for path in paths:
        options: dict[str, Any] = {"dpi": DPI} if path.suffix == ".png" else {"metadata": {"Date": None}}
        picture = io.BytesIO()
        figure.savefig(picture, format=path.suffix[1:], **options)
        replace_file(path, picture.getvalue())


def dress(axis: Axes, title: str = "", *, x: str = "", y: str = "") -> None:
    """Title and labels of both axes."""
    axis.set_title(title)
    axis.set_xlabel(x)
    axis.set_ylabel(y)


def mark_steps(axis: Axes, first: int, last: int) -> None:
    """Ticks of training steps: round numbers, and always the last step."""
    ticks = [tick for tick in MaxNLocator(5, integer=True).tick_values(first, last) if first <= tick < last]
    # a round number next to the last step would be printed over it
    room = (last - first) / 12
    axis.xaxis.set_major_locator(FixedLocator([*(tick for tick in ticks if last - tick > room), last]))


def reference_line(axis: Axes, value: float, name: str, colour: str, *, side: str = "right", ink: str = SOFT) -> None:
    """A dotted line across the axis at `value`, with its name in `ink` at one end of it."""
    axis.axhline(value, color=colour, linewidth=1.1, linestyle=(0, (1, 1.6)), zorder=1.5)
    place = 1.0 if side == "right" else 0.0
    axis.annotate(
        name,
        (place, value),
        xycoords=("axes fraction", "data"),
        xytext=(4 - 8 * place, 2),
        textcoords="offset points",
        ha=side,
        color=ink,
        fontsize=8,
    )


def colour_of(kind: str, others: Sequence[str] = OTHERS, number: int = 0) -> str:
    """The colour of a condition: 'student', 'teacher', 'relay' or 'neither'; the others' by number.

    >>> colour_of("teacher") == TEACHER, colour_of("router", number=1) == OTHERS[1]
    (True, True)
    """
    known = {"student": STUDENT, "teacher": TEACHER, "relay": RELAY, "neither": NEITHER}
    return known.get(kind) or others[number % len(others)]
