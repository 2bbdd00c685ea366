"""The colours of all pages, light and dark: paper, ink and lines, who wrote what, verdicts. Pictures have the light
ones. Pure.

What else a page colours is in its own style sheet. The colours of data are those of `relay_verl.pictures`.
"""

from __future__ import annotations

from collections.abc import Mapping

LIGHT = {
    "page": "#f7f7f5",
    "card": "#fff",
    "ink": "#1d2026",
    "soft": "#5a606b",
    "line": "#e0e2e7",
    "focus": "#2456c9",
    "teacher": "#ffefcf",
    "teacher-line": "#b35c00",
    "call": "#e6edff",
    "call-ink": "#1d3c9e",
    "call-line": "#93a9e8",
    "good": "#dbf3e6",
    "good-ink": "#0b5d3b",
    "bad": "#fde5e2",
    "bad-ink": "#9c2018",
    "other": "#ecedf0",
    "other-ink": "#474d57",
    "bar": "#7f9be0",
}
"""By the names of the CSS variables: background of the page and of a card, text, labels, lines, focus; the teacher's
words, commands; what is right, wrong and neither; the share of a cell."""
DARK = {
    "page": "#121417",
    "card": "#1b1e23",
    "ink": "#e6e8ec",
    "soft": "#a0a7b3",
    "line": "#30353e",
    "focus": "#8fb0ff",
    "teacher": "#42320f",
    "teacher-line": "#f2b445",
    "call": "#1c2a50",
    "call-ink": "#bccdff",
    "call-line": "#4b66b5",
    "good": "#12372a",
    "good-ink": "#7fe0b2",
    "bad": "#45201d",
    "bad-ink": "#ffaca3",
    "other": "#2c3038",
    "other-ink": "#c3c8d1",
    "bar": "#5573c4",
}
"""The same where the reader prefers dark pages."""


def to_css() -> str:
    """The colours as CSS variables."""
    return f":root {{ {_declare(LIGHT)} }}\n@media (prefers-color-scheme: dark) {{ :root {{ {_declare(DARK)} }} }}"


def _declare(colours: Mapping[str, str]) -> str:
    return " ".join(f"--{name}: {colour};" for name, colour in colours.items())
