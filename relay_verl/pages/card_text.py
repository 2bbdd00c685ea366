"""The text of a relay card: a response as lines of fixed width, whose middle is left out where it is long. Pure.

A text is a list of cells: one character with its columns and its style, or one call, which never breaks. Lines break at
blanks, and inside a word that is longer than a line.

Invariants: no line is wider than asked, and the cells of a text that is short enough are, in order, all of its
characters. Of a longer text the beginning, the end and what surrounds the calls stay, and the gaps say how much they
leave out.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Literal

Style = Literal["student", "teacher", "call", "unserved", "gap"]

CALL_PADDING = 1
"""Columns of a call's label that its frame takes."""
MIN_GAP = 40
"""Fewest characters that are worth leaving out."""
MAX_SHIFT = 16
"""Most characters by which a cut moves to stand between words."""
_TAB = "    "


@dataclass(frozen=True)
class Cell:
    """What stands together on a line."""

    text: str
    """A character with those that combine with it, a call's label, or '\\n'."""
    columns: int
    """Its width; wide characters, as in Chinese, have 2."""
    style: Style
    """Who wrote it, or what it is."""
    num_chars: int = 1
    """Characters of the response that it stands for."""
    num_tokens: float = 0.0
    """Tokens of the response that it stands for: its share of its segment's."""

    @property
    def is_blank(self) -> bool:
        """Whether a line may break after it."""
        return self.style in ("student", "teacher") and self.text.isspace()


def to_cells(text: str, style: Style, num_tokens: float = 0.0) -> list[Cell]:
    """The cells of a text that one author wrote with `num_tokens` tokens."""
    cells: list[Cell] = []
    share = num_tokens / len(text) if text else 0.0
    for character in text.replace("\r\n", "\n"):
        if character == "\n":
            cells.append(Cell("\n", 0, style, 1, share))
        elif character == "\t":
            cells += [Cell(blank, 1, style, int(not i), 0.0 if i else share) for i, blank in enumerate(_TAB)]
        elif (columns := _columns(character)) or not cells or cells[-1].text == "\n":
            cells.append(Cell(_visible(character), max(columns, 1), style, 1, share))
        else:
            last = cells[-1]
            cells[-1] = replace(
                last, text=last.text + character, num_chars=last.num_chars + 1, num_tokens=last.num_tokens + share
            )
    return cells


def call_cell(label: str, columns: int, *, is_served: bool, num_chars: int, num_tokens: float) -> Cell:
    """A call as one cell of at most `columns` columns, for a command of so many characters and tokens."""
    shown = "".join(_visible(character) for character in label)
    if len(shown) + 2 * CALL_PADDING > columns:
        shown = shown[: columns - 2 * CALL_PADDING - 1] + "…"
    width = sum(map(_columns, shown)) + 2 * CALL_PADDING
    return Cell(shown, min(width, columns), "call" if is_served else "unserved", num_chars, num_tokens)


def wrap_cells(cells: Sequence[Cell], columns: int) -> list[list[Cell]]:
    """The cells as lines of at most `columns` columns. A blank at which a line breaks is left out."""
    lines: list[list[Cell]] = [[]]
    width = 0
    for is_break, group in groupby(cells, key=lambda cell: cell.text == "\n"):
        if is_break:
            for _ in group:
                lines.append([])
                width = 0
            continue
        for word in _words(list(group)):
            length = sum(cell.columns for cell in word)
            if width and width + length > columns and not word[0].is_blank:
                lines.append([])
                width = 0
            for cell in word:
                if width + cell.columns > columns:
                    if cell.is_blank:
                        continue
                    lines.append([])
                    width = 0
                lines[-1].append(cell)
                width += cell.columns
    return lines


def shorten(cells: Sequence[Cell], max_lines: int, columns: int) -> list[Cell]:
    """The cells, less what has to go for `max_lines` lines: as much is kept around each call as fits. Where there are
    more calls than lines, those in the middle go too."""
    anchors = [i for i, cell in enumerate(cells) if cell.style in ("call", "unserved")]
    anchors += [i for i in range(1, len(cells)) if {cells[i - 1].style, cells[i].style} == {"student", "teacher"}]
    anchors = sorted({0, len(cells) - 1, *anchors}) if cells else []

    def fits(radius: int, kept: Sequence[int]) -> bool:
        return len(wrap_cells(_leave_out(cells, kept, radius), columns)) <= max_lines

    if fits(len(cells), anchors):
        return list(cells)
    num_kept = len(anchors)
    if not fits(MIN_GAP, anchors):
        num_kept = _largest(lambda num: fits(MIN_GAP, _ends(anchors, num)), 1, len(anchors))
    kept = _ends(anchors, num_kept)
    return _leave_out(cells, kept, _largest(lambda radius: fits(radius, kept), 0, len(cells)))


def _leave_out(cells: Sequence[Cell], anchors: Sequence[int], radius: int) -> list[Cell]:
    """What stands within `radius` cells of an anchor, and gaps that say what is missing between."""
    is_kept = [False] * len(cells)
    for anchor in anchors:
        start, end = max(0, anchor - radius), anchor + radius + 1
        start, end = _at_word(cells, start, anchor, -1), _at_word(cells, min(end, len(cells)), anchor, 1)
        is_kept[start:end] = [True] * (end - start)
    shown: list[Cell] = []
    position = 0
    for keeps, group in groupby(is_kept):
        run = cells[position : position + len(list(group))]
        position += len(run)
        if keeps or sum(cell.num_chars for cell in run) < MIN_GAP:
            shown += run
        else:
            shown += _gap(run)
    return shown


def _at_word(cells: Sequence[Cell], border: int, anchor: int, towards: Literal[-1, 1]) -> int:
    """The border of what is kept around an anchor, moved up to `MAX_SHIFT` cells inwards so that it cuts no word."""
    if border in (0, len(cells)):
        return border
    for shift in range(min(MAX_SHIFT, abs(border - anchor))):
        position = border - towards * shift
        if position <= anchor < border or border <= anchor < position:
            break
        if cells[position - (towards == -1)].is_blank:
            return position
    return border


def _gap(run: Sequence[Cell]) -> list[Cell]:
    """A line of its own that says what `run` was. Records count tokens by segment, so the number inside one is the
    text's share of it, and only about right."""
    num_calls = sum(cell.style in ("call", "unserved") for cell in run)
    num_tokens = max(1, round(sum(cell.num_tokens for cell in run)))
    parts = [f"about {_count(num_tokens, 'token')}"] + ([_count(num_calls, "call")] if num_calls else [])
    label = f"… {' and '.join(parts)} left out …"
    return [Cell("\n", 0, "gap", 0), *(Cell(character, 1, "gap", 0) for character in label), Cell("\n", 0, "gap", 0)]


def _ends(anchors: Sequence[int], num: int) -> list[int]:
    """`num` anchors: as many from the front as from the back, or one more."""
    num_front = (num + 1) // 2
    return [*anchors[:num_front], *anchors[len(anchors) - (num - num_front) :]]


def _largest(fits: Callable[[int], bool], low: int, high: int) -> int:
    """The largest number from `low` on that fits, by bisection; `low` if none does."""
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(middle) else (low, middle - 1)
    return low


def _words(cells: Sequence[Cell]) -> list[list[Cell]]:
    """Runs of blanks, calls, and runs of other cells between them."""
    return [list(group) for _, group in groupby(cells, key=_word_key)]


def _word_key(cell: Cell) -> tuple[str, int]:
    if cell.style in ("call", "unserved"):
        return "call", id(cell)
    return ("blank" if cell.is_blank or cell.text == " " else "word"), 0


def _columns(character: str) -> int:
    if unicodedata.category(character) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def _visible(character: str) -> str:
    """The character, or a sign for one that XML cannot hold or that would not be seen."""
    code = ord(character)
    if code < 0x20:
        return chr(0x2400 + code)
    if 0x7F <= code < 0xA0 or 0xD800 <= code < 0xE000 or code & 0xFFFE == 0xFFFE or character in "\u2028\u2029":
        return "\ufffd"
    return character


def _count(num: int, noun: str) -> str:
    return f"{num:,} {noun}{'s' * (num != 1)}"
