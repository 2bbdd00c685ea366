"""A document as files: an HTML page that is whole by itself, the same as Markdown, each picture, and data as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from relay_verl.files import replace_file
from relay_verl.report.curves_picture import CURVES
from relay_verl.report.document import Document, Picture, document_to_markdown, to_html
from relay_verl.report.drawing import standalone


def write_page(document: Document, out: Path, name: str) -> str:
    """Write NAME.html, NAME.md and each picture as NAME_OF_THE_PICTURE.svg; returns the Markdown.

    Args:
        document: the page.
        out: its folder; it is made.
        name: of its files, without the suffix.
    """
    write_pictures(document, out)
    markdown = document_to_markdown(document)
    replace_file(out / f"{name}.md", markdown.encode())
    replace_file(out / f"{name}.html", to_html(document).encode())
    return markdown


def write_pictures(document: Document, out: Path) -> None:
    """Each picture as a file of its own; learning curves have theirs already."""
    for section in document.sections:
        for block in section.blocks:
            if isinstance(block, Picture) and block.name != CURVES:
                replace_file(out / f"{block.name}.svg", standalone(block.svg).encode())


def to_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows of the same columns as CSV; at least one."""
    file = io.StringIO()
    writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue()
