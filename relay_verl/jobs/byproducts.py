"""By-products: pages, pictures, logs, cards, summaries, progress: made for people, and needed by no later step.

Invariant: a by-product that fails costs itself and a warning with its cause; the work that it accompanies continues.
Of each kind of by-product a process warns once. An interrupt is not a failure: it ends the work as ever.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

logger = logging.getLogger(__name__)

_warned: set[str] = set()


@contextmanager
def by_product(what: str) -> Iterator[None]:
    """Run a block, or as a decorator a function, whose failure is a warning.

    Args:
        what: names the by-product in the warning, such as 'the page of samples'. Its later failures are silent.

    >>> with by_product("the picture of an example"):
    ...     raise OSError("disk full")
    """
    try:
        yield
    except Exception as error:
        if what in _warned:
            return
        _warned.add(what)
        # outside of any handler of ours logging prints this to standard error, in workers and on the command line
        logger.warning("relay_verl: %s failed, the run continues: %s", what, cause_of(error))


def cause_of(error: BaseException) -> str:
    """The error as a single line.

    >>> cause_of(ValueError("first\\nsecond")), cause_of(KeyError("x")), cause_of(TimeoutError())
    ('first second', "KeyError: 'x'", 'TimeoutError')
    """
    text = " ".join(str(error).split())
    # our own errors, ValueError and OSError say what is wrong in words; others only with their kind
    has_words = isinstance(error, OSError | ValueError) and text
    return text if has_words else f"{type(error).__name__}: {text}" if text else type(error).__name__
