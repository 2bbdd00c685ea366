"""What `relay-verl demo` shows on a terminal: responses with the teacher's tokens marked, and what they come to."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from relay_verl.cli.reply_screen import STYLES, visible

if TYPE_CHECKING:
    from relay_verl.deltas import Delta
    from relay_verl.demo.demo_question import DemoQuestion
    from relay_verl.demo.pair_card import PairCard
    from relay_verl.report.summary_table import ConditionSummary
    from relay_verl.traces.records import ResponseRecord

OPEN, CLOSE = "[", "]"
"""Around the teacher's tokens where there are no colours."""
INDENT = "  "
MAX_CHARS = 25
"""Most characters of an answer in a line of several."""


class DemoScreen:
    """Standard output of a demo.

    Args:
        card: the pair's.
        is_shown: whether anything is shown.
    """

    def __init__(self, card: PairCard, *, is_shown: bool):
        from rich.console import Console

        self._card = card
        self._started = time.monotonic()
        # standard output is turned to standard error while the models run
        self._out = Console(file=sys.stdout, highlight=False, quiet=not is_shown)
        self._has_colours = self._out.is_terminal and not self._out.no_color
        self._is_teacher = False

    def begin(self) -> None:
        """Say what follows."""
        sizes = {name: f"{num:,}" for name, num in self._card.num_parameters.items()}
        marked = "amber and underlined" if self._has_colours else f"{OPEN}in brackets{CLOSE}"
        self._say(
            f"{self._card.title}: a student of {sizes['student']} parameters asks a teacher of {sizes['teacher']} for "
            f"tokens. The teacher's are {marked}."
        )

    def show_question(self, question: DemoQuestion) -> None:
        """The question that the next response is to."""
        self._say(f"\n{question.text}", "bold")
        self._write(INDENT)

    def show_delta(self, delta: Delta) -> None:
        """The next piece of the response."""
        kind = "command" if delta.kind == "command" else delta.source
        if not delta.text:
            return
        self._mark(kind == "teacher")
        self._write(delta.text, STYLES[kind])

    def show_answers(self, records: Sequence[ResponseRecord]) -> None:
        """What became of the response, and what the others answer.

        Args:
            records: the response that was shown, then the others.
        """
        self._mark(False)
        shown, *others = records
        verdict = "right" if shown.is_correct else f"wrong: it is {shown.ground_truth}"
        cost = f"{shown.num_teacher_tokens} of {shown.num_tokens} tokens are the teacher's"
        self._say(f"\n{INDENT}{verdict} · {cost}", "green" if shown.is_correct else "red")
        said = [f"{each.condition}: {_brief(each.answer)} {'✓' if each.is_correct else '✗'}" for each in others]
        self._say(INDENT + " · ".join(said), "dim")

    def finish(self, records: Sequence[ResponseRecord], page: Path, *, is_opened: bool) -> None:
        """The table, and where the page is."""
        from relay_verl.report.summary_table import summarize

        self._say("")
        self._table(summarize(records))
        seconds = time.monotonic() - self._started
        where = "opened in a browser" if is_opened else "open it in a browser"
        self._say(f"\nEvery response, made in {seconds:.1f} s: {page} ({where})")

    def _table(self, summaries: Sequence[ConditionSummary]) -> None:
        """Right answers here, and to all questions that were held out, which the card has."""
        from rich.table import Table

        stored = {each.condition: each for each in self._card.results}
        table = Table(box=None, pad_edge=False)
        table.add_column("who answers")
        for name in ("right here", "teacher's tokens", "right of all held out", "teacher's tokens"):
            table.add_column(name, justify="right", max_width=13)
        for each in summaries:
            both = [each, *([stored[each.condition]] if each.condition in stored else [])]
            table.add_row(each.condition, *(cell for summary in both for cell in _cells(summary)))
        self._out.print(table)

    def _mark(self, is_teacher: bool) -> None:
        """Begin or end the teacher's tokens."""
        if not self._has_colours and is_teacher != self._is_teacher:
            self._write(OPEN if is_teacher else CLOSE)
        self._is_teacher = is_teacher

    def _say(self, text: str, style: str = "") -> None:
        from rich.text import Text

        self._out.print(Text(visible(text), style), soft_wrap=True)

    def _write(self, text: str, style: str = "") -> None:
        from rich.text import Text

        self._out.print(Text(visible(text), style), end="", soft_wrap=True)


def _brief(answer: str | None) -> str:
    """An answer, which may be any text, as part of a line."""
    text = " ".join((answer or "no answer").split())
    return text if len(text) <= MAX_CHARS else f"{text[:MAX_CHARS]}..."


def _cells(summary: ConditionSummary) -> tuple[str, str]:
    num_right = round(summary.overall_accuracy * summary.num_responses)
    return f"{num_right} of {summary.num_responses}", f"{summary.pooled_call_ratio:.1%}"
