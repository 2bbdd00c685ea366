"""The one writer of Markdown tables: aligned as text too, labels to the left and numbers to the right. Pure."""

from __future__ import annotations

from collections.abc import Sequence

MIN_WIDTH = 3
"""Narrowest column: the rule below the head has three characters."""


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]], *, num_labels: int = 1) -> str:
    r"""A table without a final line break.

    Args:
        head: the columns' names.
        rows: cells in Markdown, so that special characters are escaped; short rows end with empty cells.
        num_labels: columns of labels, which come first.

    >>> print(markdown_table(["way", "seconds"], [["relay", "12.5"], ["student\nalone"]]))
    | way           | seconds |
    | :------------ | ------: |
    | relay         |    12.5 |
    | student alone |         |
    """
    lines = [[" ".join(cell.split()) for cell in (*line, *[""] * (len(head) - len(line)))] for line in (head, *rows)]
    widths = [max(MIN_WIDTH, *map(len, column)) for column in zip(*lines, strict=True)]
    is_label = [i < num_labels for i in range(len(widths))]
    padded = [
        [
            cell.ljust(width) if left else cell.rjust(width)
            for cell, width, left in zip(line, widths, is_label, strict=True)
        ]
        for line in lines
    ]
    rule = [
        f":{'-' * (width - 1)}" if left else f"{'-' * (width - 1)}:"
        for width, left in zip(widths, is_label, strict=True)
    ]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (padded[0], rule, *padded[1:]))
