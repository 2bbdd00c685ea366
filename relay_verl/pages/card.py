"""A relay card: one response as a picture, for a README or a talk. An SVG file that needs no font, script or network.

It shows the question, who wrote what, each call with what it asked for, got and took, the answer against the truth, and
the numbers of the response. Colours are those of the page (`relay_verl.palette`), light or dark as the reader's.

Every text is set in columns of one width, and each run of it is told its width, so that frames and grounds fit whatever
monospaced font the reader has. Texts enter as text nodes of an XML tree: nothing that a model writes becomes markup.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import groupby

from relay_verl import palette
from relay_verl.pages.card_text import CALL_PADDING, Cell, call_cell, shorten, to_cells, wrap_cells
from relay_verl.pages.page import name_verdict
from relay_verl.traces.pieces import make_pieces
from relay_verl.traces.records import ResponseRecord

WIDTH, PADDING = 880, 24
ADVANCE, FONT_SIZE, LINE = 8.0, 13.3, 22
"""Width of a column, size of the letters and height of a line, in pixels; monospaced fonts are 0.6 em wide."""
COLUMNS = int((WIDTH - 2 * PADDING) / ADVANCE)
END_MARK = "∎"
"""In the place of the token that ends a text."""
MAX_LINES, MAX_QUESTION_LINES, MAX_ANSWER_LINES = 32, 8, 2
"""Most lines of the response, the question, and an answer."""

_RULES = {
    ".card": "fill: {card}; stroke: {line}",
    "text": "fill: {ink}",
    ".soft": "fill: {soft}",
    ".head": "fill: {soft}; font-weight: 600",
    ".ground": "fill: {teacher}",
    ".under": "fill: {teacher-line}",
    ".frame": "fill: {call}; stroke: {call-line}",
    ".unserved": "fill: none; stroke: {call-line}; stroke-dasharray: 3 2",
    "text.label": "fill: {call-ink}",
    ".track": "fill: {other}",
    ".badge": "fill: {other}",
    ".badge.good": "fill: {good}",
    ".badge.bad": "fill: {bad}",
    "text.verdict": "fill: {other-ink}; font-weight: 600",
    "text.verdict.good": "fill: {good-ink}",
    "text.verdict.bad": "fill: {bad-ink}",
}
"""Colours by class, under the names that `relay_verl.palette` has for them."""


def make_card(record: ResponseRecord, *, max_lines: int = MAX_LINES) -> str:
    """The card as an SVG file's text; `max_lines` bounds the response, whose middle is left out if it has more."""
    sheet = _Sheet()
    kind = {"correct": "good", "wrong": "bad"}.get(name_verdict(record), "")
    verdict = {"correct": "right"}.get(name_verdict(record), name_verdict(record))
    sheet.badge(verdict, kind)
    sheet.at_end(_numbers_of(record))
    sheet.line()
    name = f"{record.condition} · {record.benchmark} · {record.id}"
    sheet.lines([_cut_end(to_cells(name, "student"), COLUMNS)], "soft")
    sheet.bar(record)
    sheet.heading("question")
    sheet.lines(_fit(to_cells(record.question.strip(), "student"), MAX_QUESTION_LINES))
    sheet.heading("response", ("student", "teacher", "call"))
    cells = shorten(list(_cells_of(record)), max_lines, COLUMNS)
    sheet.lines(wrap_cells(cells, COLUMNS) if cells else [to_cells("empty", "gap")])
    answer = "none" if record.answer is None else record.answer
    sheet.heading("answer")
    sheet.lines(_fit(to_cells(answer, "student" if record.answer is not None else "gap"), MAX_ANSWER_LINES))
    sheet.heading("truth")
    sheet.lines(_fit(to_cells(record.ground_truth, "student"), MAX_ANSWER_LINES))
    return sheet.to_svg(f"{verdict}: {name}")


def _numbers_of(record: ResponseRecord) -> str:
    num_own = record.num_tokens - record.num_teacher_tokens
    calls = f"{record.num_calls} call{'s' * (record.num_calls != 1)}"
    tokens = f"student {num_own:,} + teacher {record.num_teacher_tokens:,} tokens"
    return f"{tokens} · {calls} · call ratio {record.call_ratio:.1%} · {record.latency_s:.1f} s"


def _cells_of(record: ResponseRecord) -> Iterator[Cell]:
    """The response; each segment's tokens spread over its text, calls included."""
    shares = _token_shares(record)
    for piece in make_pieces(record):
        text, kind = piece["text"], piece["kind"]
        share = next(shares) if text else 0.0
        if kind == "call":
            label = " · ".join(filter(None, [text, piece["tip"], piece.get("cut")]))
            is_served = piece["outcome"] == "served"
            yield call_cell(label, COLUMNS, is_served=is_served, num_chars=len(text), num_tokens=len(text) * share)
        elif kind == "end":
            yield Cell(END_MARK, 1, "gap", len(text), len(text) * share)
        else:
            yield from to_cells(text, "teacher" if kind == "teacher" else "student", len(text) * share)


def _token_shares(record: ResponseRecord) -> Iterator[float]:
    """Tokens a character, for each piece that has text."""
    ends: list[tuple[int, float]] = []
    end = 0
    for segment in record.segments:
        end += len(segment["text"])
        ends.append((end, segment["num_tokens"] / max(1, len(segment["text"]))))
    position = 0
    for piece in make_pieces(record):
        if piece["text"]:
            yield next(share for end, share in ends if position < end)
            position += len(piece["text"])


def _fit(cells: Sequence[Cell], max_lines: int) -> list[list[Cell]]:
    """The cells as lines; a text of more lines is cut at its end, and says so."""
    lines = wrap_cells(cells, COLUMNS)
    if len(lines) <= max_lines:
        return lines
    left_out = sum(cell.num_chars for line in lines[max_lines - 1 :] for cell in line)
    return [*lines[: max_lines - 1], to_cells(f"… {left_out:,} characters left out", "gap")]


def _cut_end(cells: Sequence[Cell], columns: int) -> list[Cell]:
    [first, *others] = wrap_cells([cell for cell in cells if cell.text != "\n"], columns - 1)
    return [*first, Cell("…", 1, "gap")] if others else first


def _run_key(cell: Cell) -> tuple[str, int]:
    """Cells of one style are one run of text; each call is one."""
    return cell.style, id(cell) if cell.style in ("call", "unserved") else 0


class _Sheet:
    """The picture while it is drawn, from the top down; `_y` is the base line of the next text."""

    def __init__(self) -> None:
        self._root = ET.Element("svg", xmlns="http://www.w3.org/2000/svg", role="img")
        self._body = ET.SubElement(self._root, "g")
        self._y = PADDING + 16.0

    def line(self) -> None:
        self._y += LINE

    def heading(self, text: str, legend: Sequence[str] = ()) -> None:
        self._y += 10
        self._text(text, PADDING, "head", size=11.5)
        x = WIDTH - PADDING - ADVANCE * sum(len(name) + 5 for name in legend)
        for name in legend:
            x += 3 * ADVANCE
            self._mark({"student": "student", "teacher": "teacher"}.get(name, "call"), x, 2 * ADVANCE)
            self._text(name, x + 3 * ADVANCE - 4, "soft", size=11.5)
            x += (len(name) + 2) * ADVANCE
        self._y += LINE

    def badge(self, text: str, kind: str) -> None:
        width = ADVANCE * (len(text) + 2)
        self._rect(PADDING, self._y - 15, width, 21, f"badge {kind}".strip(), radius=10)
        self._text(text, PADDING + ADVANCE, f"verdict {kind}".strip())

    def at_end(self, text: str) -> None:
        self._text(text, WIDTH - PADDING - ADVANCE * len(text), "soft")

    def bar(self, record: ResponseRecord) -> None:
        """Tokens by author, in order, as on the page."""
        top, room = self._y - 11, WIDTH - 2 * PADDING
        self._rect(PADDING, top, room, 5, "track")
        x = float(PADDING)
        for segment in record.segments:
            width = room * segment["num_tokens"] / max(1, record.num_tokens)
            if segment["source"] == "teacher":
                self._rect(x, top, max(width, 2.0), 5, "under")
            x += width
        self._y += 14

    def lines(self, lines: Sequence[Sequence[Cell]], kind: str = "") -> None:
        for line in lines:
            x = float(PADDING)
            for style, group in groupby(line, key=_run_key):
                run = list(group)
                width = ADVANCE * sum(cell.columns for cell in run)
                self._mark(style[0], x, width)
                text = "".join(cell.text for cell in run)
                if style[0] in ("call", "unserved"):
                    self._text(text, x + CALL_PADDING * ADVANCE, "label", width - 2 * CALL_PADDING * ADVANCE)
                else:
                    self._text(text, x, "soft" if style[0] == "gap" else kind, width)
                x += width
            self._y += LINE

    def _mark(self, style: str, x: float, width: float) -> None:
        """What stands behind a run of a style."""
        if style == "teacher":
            self._rect(x, self._y - 14, width, 18, "ground")
            self._rect(x, self._y + 4, width, 2, "under")
        elif style in ("call", "unserved"):
            self._rect(x + 2, self._y - 14, width - 4, 19, "frame" if style == "call" else "unserved", radius=5)

    def _rect(self, x: float, y: float, width: float, height: float, kind: str, radius: float = 0) -> None:
        values = {"x": x, "y": y, "width": width, "height": height} | ({"rx": radius} if radius else {})
        ET.SubElement(self._body, "rect", {key: f"{value:g}" for key, value in values.items()} | {"class": kind})

    def _text(self, text: str, x: float, kind: str, width: float | None = None, size: float = FONT_SIZE) -> None:
        if not text.strip():
            return
        attributes = {"x": f"{x:g}", "y": f"{self._y:g}"} | ({"class": kind} if kind else {})
        if size != FONT_SIZE:
            attributes["font-size"] = f"{size:g}"
        attributes["textLength"] = f"{ADVANCE * len(text) * size / FONT_SIZE if width is None else width:g}"
        ET.SubElement(self._body, "text", attributes).text = text

    def to_svg(self, title: str) -> str:
        height = self._y - LINE + PADDING + 4
        self._root.set("viewBox", f"0 0 {WIDTH} {height:g}")
        self._root.set("width", f"{WIDTH}")
        self._root.set("height", f"{height:g}")
        self._root.set("font-size", f"{FONT_SIZE:g}")
        self._root.set("font-family", 'ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace')
        name = ET.Element("title")
        name.text = "".join(cell.text for cell in to_cells(title, "student"))
        style = ET.Element("style")
        style.text = _style()
        size = {"x": "0.5", "y": "0.5", "width": f"{WIDTH - 1}", "height": f"{height - 1:g}", "rx": "10"}
        self._root[:] = [name, style, ET.Element("rect", size | {"class": "card"}), self._body]
        return ET.tostring(self._root, encoding="unicode") + "\n"


@cache
def _style() -> str:
    """The rules in the page's colours: those of a light page, and of a dark one where the reader prefers it."""
    rules = ["".join(f"{name} {{ {rule.format_map(colours)} }} " for name, rule in _RULES.items())
             for colours in (palette.LIGHT, palette.DARK)]  # fmt: skip
    return f"text {{ white-space: pre; }} {rules[0]}@media (prefers-color-scheme: dark) {{ {rules[1]}}}"
