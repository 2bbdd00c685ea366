"""The colours of paper, ink and lines on all pages, light and dark; pictures have the light ones. Pure.

What else a page colours, such as the teacher's words, is in its own style sheet. The colours of data are those of
`relay_verl.pictures`.
"""

from __future__ import annotations

from collections.abc import Mapping

LIGHT = {"page": "#f7f7f5", "card": "#fff", "ink": "#1d2026", "soft": "#5a606b", "line": "#e0e2e7", "focus": "#2456c9"}
"""By the names of the CSS variables: background of the page and of a card, text, labels, lines, focus."""
DARK = {
    "page": "#121417",
    "card": "#1b1e23",
    "ink": "#e6e8ec",
    "soft": "#a0a7b3",
    "line": "#30353e",
    "focus": "#8fb0ff",
}
"""The same where the reader prefers dark pages."""


def to_css() -> str:
    """The colours as CSS variables."""
    return f":root {{ {_declare(LIGHT)} }}\n@media (prefers-color-scheme: dark) {{ :root {{ {_declare(DARK)} }} }}"


def _declare(colours: Mapping[str, str]) -> str:
    return " ".join(f"--{name}: {colour};" for name, colour in colours.items())
