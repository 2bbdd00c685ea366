"""The error model of relay_verl. Pure.

    UserError       the input is wrong: a key, a file, a folder, an address; names it, its value and what is allowed
    EngineError     a model did not answer; in training a failed call, in a job a failed query: data, not a crash
      PermanentError    it would refuse the same request again; not retried
      DeclinedError     it was not asked, as a budget is spent: the call is turned off, and did not fail
      TeacherError      the teacher did not answer and the run asked to end then
    JobError        a long job cannot continue; says what is saved
    SaveError       a checkpoint could not be saved

A command or a training ends with a one-line message: `describe` recognises these classes by `RelayError`, also behind
Ray's wrappers. Other exceptions are bugs of ours or failures of other projects and are reported as unexpected.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")
E = TypeVar("E", bound=Exception)

CUTOFF = 0.6
"""Lowest similarity of a suggestion: difflib's own default."""


class RelayError(Exception):
    """Base of all errors whose one-line message is for the user."""


class UserError(RelayError, ValueError):
    """The input is wrong: a key of a config, a file, a folder, an address, an argument."""


class EngineError(RelayError, RuntimeError):
    """An engine could not answer: it is down, slow, or its answer makes no sense."""


class PermanentError(EngineError):
    """The engine refuses this request for good, and would refuse it again (a prompt that is longer than the model
    reads, HTTP 400 or 422): the caller does not retry and records the cause. The engine itself is well.

    Args:
        message: the cause, without line breaks.
        concerns_all: whether every other request would be refused, too (a wrong key, model or address: HTTP 401, 403,
            404), so that nothing is wrong with this one.
    """

    def __init__(self, message: str, *, concerns_all: bool = False):
        super().__init__(message)
        self.concerns_all = concerns_all


class DeclinedError(EngineError):
    """The engine was not asked, since whoever asks has spent a budget: the call is turned off, and did not fail."""


class TeacherError(EngineError):
    """The teacher could not answer and `relay.on_teacher_failure` is 'fail', or too many calls failed."""


class JobError(RelayError, RuntimeError):
    """A job cannot continue; the one-line message says what is saved."""


class SaveError(RelayError, RuntimeError):
    """A checkpoint could not be saved; the one-line message says why."""


def first_line(error: BaseException) -> str:
    """The first line of an error's message; its type if it says nothing."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


@contextmanager
def as_user_error(kinds: type[E] | tuple[type[E], ...], message: str | Callable[[E], str]) -> Iterator[None]:
    """Report an error of a library, raised inside the block, as a UserError.

    Args:
        kinds: the classes, as `except` takes them; others pass.
        message: what is wrong, which `: ` and the error's first line follow; or the whole message as a function of the
            error.

    >>> with as_user_error(ValueError, "--limit"):
    ...     int("x")
    Traceback (most recent call last):
    relay_verl.errors.UserError: --limit: invalid literal for int() with base 10: 'x'
    """
    try:
        yield
    except kinds as error:
        raise UserError(message(error) if callable(message) else f"{message}: {first_line(error)}") from None


def suggest(name: str, known: Iterable[str]) -> str:
    """The closest known name, as the end of a message on an unknown one; empty where none is close.

    >>> suggest("math500", ["math-500", "gsm8k"])
    "; did you mean 'math-500'?"
    >>> suggest("poetry", ["math-500", "gsm8k"])
    ''
    """
    spelt = {each.lower(): each for each in known}
    closest = difflib.get_close_matches(name.lower(), spelt, n=1, cutoff=CUTOFF)
    return f"; did you mean {spelt[closest[0]]!r}?" if closest else ""


def find_known(what: str, name: str, known: Mapping[str, T], also: str = "") -> T:
    """The known thing of that name, in capitals or not.

    Args:
        what: what it is, as a message calls it.
        name: as the user typed it.
        known: by name, in lower case.
        also: what else may be given, as the end of the list of allowed names.

    Raises:
        UserError: none is called so; lists those that are known.
    """
    if name.lower() not in known:
        raise UserError(f"unknown {what} {name!r}; allowed: {', '.join(known)}{also}{suggest(name, known)}")
    return known[name.lower()]
