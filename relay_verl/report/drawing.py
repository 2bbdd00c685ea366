"""Figures as SVG whose ink follows the page's colours. The same input gives the same bytes.

Ink, soft ink and lines are drawn in marker colours, which `to_svg` turns into the page's CSS variables and
`standalone` into the colours of a light page. Style and the colours of data are those of all pictures
(`relay_verl.pictures`).
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable

import matplotlib
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from relay_verl import pictures
from relay_verl.pictures import style

INK, SOFT, LINE, CARD = "#010203", "#040506", "#070809", "#0a0b0c"
"""Marker colours: text, labels, grid, background."""
_VARIABLES = {INK: "var(--ink)", SOFT: "var(--soft)", LINE: "var(--line)", CARD: "var(--card)"}
_LIGHT = {
    "var(--ink)": pictures.INK,
    "var(--soft)": pictures.SOFT,
    "var(--line)": pictures.LINE,
    "var(--card)": "#ffffff",
}


def draw(paint: Callable[[Figure], None], *, size: tuple[float, float]) -> str:
    """An <svg> element; `paint` draws on a figure of `size` inches."""
    with matplotlib.rc_context(style(INK, SOFT, LINE)):
        figure = Figure(figsize=size, facecolor="none", layout=ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.08))
        FigureCanvasSVG(figure)
        paint(figure)
        made = io.StringIO()
        figure.savefig(made, format="svg", metadata={"Date": None})
    return to_svg(made.getvalue())


def to_svg(file: str, *, is_light: bool = False) -> str:
    """The <svg> element of a file of matplotlib, without metadata, fixed size and colours of its own for ink.

    `is_light`: its ink has the colours of a light page in the place of the markers.
    """
    svg = file[file.index("<svg") :]
    svg = re.sub(r"\s*<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(
        r'(<svg[^>]*?) width="[\d.]+pt" height="[\d.]+pt"|(<svg[^>]*?) height="[\d.]+pt"', r"\1\2", svg, count=1
    )
    head, mark, body = svg.partition(">")
    svg = re.sub(r' (width|height)="[^"]*"', "", head) + mark + body
    markers = {colour: variable for variable, colour in _LIGHT.items()} if is_light else _VARIABLES
    for marker, variable in markers.items():
        svg = svg.replace(marker, variable)
    return svg.strip()


def standalone(svg: str) -> str:
    """The element as a file of its own, on a white ground."""
    for variable, colour in _LIGHT.items():
        svg = svg.replace(variable, colour)
    return svg.replace("<svg ", '<svg style="background: #fff" ', 1) + "\n"
