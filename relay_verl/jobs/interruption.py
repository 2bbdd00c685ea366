"""What a work that Ctrl-C interrupts has kept: notes on the exception, told by whoever ends the program.

asyncio turns Ctrl-C into a cancellation of the work and, at its end, into a new KeyboardInterrupt whose context is the
cancellation: notes are looked for along that chain.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator

CODE = 130
"""Exit code of a program that Ctrl-C ended: 128 and the number of the signal."""


def explain_interruption(error: BaseException) -> str:
    """What an interruption is to be told with.

    >>> error = KeyboardInterrupt()
    >>> error.add_note("3 of 9 queries are saved")
    >>> explain_interruption(error), explain_interruption(KeyboardInterrupt())
    ('interrupted: 3 of 9 queries are saved', 'interrupted')
    """
    notes: dict[str, None] = {}
    each: BaseException | None = error
    while each is not None:
        notes |= dict.fromkeys(getattr(each, "__notes__", ()))
        each = each.__cause__ or each.__context__
    return f"interrupted: {'; '.join(notes)}" if notes else "interrupted"


@contextlib.contextmanager
def reported(program: str) -> Iterator[None]:
    """End `program` with a message and CODE when Ctrl-C interrupts what is done in here."""
    try:
        yield
    except KeyboardInterrupt as error:
        print(f"{program}: {explain_interruption(error)}", file=sys.stderr, flush=True)
        sys.exit(CODE)
