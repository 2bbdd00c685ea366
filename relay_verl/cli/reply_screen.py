"""A reply on a terminal, word by word: the teacher's in amber and underlined, commands in blue."""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

    from relay_verl.pair.talk import Piece, Reply

STYLES = {"student": "", "teacher": "yellow underline", "command": "blue italic"}
"""By the kind of a piece; underlined and italic where a terminal has no colours."""
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def visible(text: str) -> str:
    r"""`text` without what a terminal would obey: a model can write the bytes that move the cursor or set a title.

    >>> visible("7*8\t= \x1b[31m56\n")
    '7*8\t= �[31m56\n'
    """
    return _CONTROL.sub("\ufffd", text)


class ReplyScreen:
    """Shows replies: texts on standard output, all else on standard error.

    Args:
        shows_commands: whether commands are part of the text; None shows them on a terminal alone, so that a file has
            the answer as it would be graded.
    """

    def __init__(self, *, shows_commands: bool | None = None):
        self.out = _console(sys.stdout)
        self.err = _console(sys.stderr)
        self._is_terminal = self.out.is_terminal
        self._shows_commands = self._is_terminal if shows_commands is None else shows_commands

    def show(self, piece: Piece) -> None:
        """The next piece of a reply."""
        from rich.text import Text

        if piece.kind == "command" and not self._shows_commands:
            return
        if not self._is_terminal:
            print(piece.text, end="", flush=True)
            return
        self.out.print(Text(visible(piece.text), STYLES[piece.kind]), end="", soft_wrap=True)

    def end_line(self) -> None:
        """The reply ends here: start a new line."""
        print(flush=True)

    def finish(self, reply: Reply, note: str = "") -> None:
        """Say what a reply cost."""
        facts = " · ".join(filter(None, [facts_of(reply), note]))
        if facts:
            self.say(facts)

    def say(self, text: str, style: str = "dim") -> None:
        """A line of ours, on standard error."""
        from rich.text import Text

        self.err.print(Text(visible(text), style), soft_wrap=True)


def _console(file: object) -> Console:
    from rich.console import Console

    return Console(file=file, highlight=False)  # type: ignore[arg-type]


def facts_of(reply: Reply) -> str:
    """What a reply cost, in words."""
    relay = reply.relay
    facts = []
    if relay:
        num_student, num_teacher = relay["student_tokens"], relay["teacher_tokens"]
        facts.append(f"{num_student + num_teacher:,} tokens")
        facts.append(f"student {num_student:,}")
        facts.append(f"teacher {num_teacher:,} ({100 * relay['call_ratio']:.1f}%)")
        facts.append(f"calls {relay['num_calls']}")
        if relay["num_failed_calls"]:
            facts.append(f"failed calls {relay['num_failed_calls']}")
        if relay.get("is_budget_spent"):
            facts.append("the teacher's budget is spent")
    elif reply.usage:
        facts.append(f"{reply.usage['completion_tokens']:,} tokens")
    if reply.finish_reason == "length":
        facts.append("cut: no tokens left")
    return " · ".join(facts)
