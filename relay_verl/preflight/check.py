"""A check, and what comes of it: training stops at the first failure, the doctor goes through all of them.

Invariant: a check raises UserError, which says what is wrong and what fixes it, or it returns what it found.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from relay_verl.errors import UserError
from relay_verl.secrets import hide_in_text


class CheckWarning(str):
    """What a check found that may go wrong and need not; training says it and continues."""


@dataclass(frozen=True)
class Check:
    """One thing that must be so."""

    name: str
    """What it is about."""
    run: Callable[..., Any]
    """Raises UserError, or returns what it found, a short text; anything else says no more than that it passed."""
    after: tuple[str, ...] = ()
    """Names of the checks that must have passed, for this one to mean anything."""


class Status(StrEnum):
    """How a check ended."""

    PASSED = "passed"
    DOUBTFUL = "doubtful"
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass(frozen=True)
class Outcome:
    """A check's end."""

    name: str
    """The check's."""
    status: Status
    """How it ended."""
    text: str
    """What it found; the failure with its fix; the check that failed before."""


def demand(checks: Sequence[Check], *subject: Any) -> None:
    """Run the checks in order and say every warning on standard error.

    Raises:
        UserError: the first check that fails; says what fixes it.
    """
    for check in checks:
        text = check.run(*subject)
        if isinstance(text, CheckWarning):
            print(f"relay_verl: {hide_in_text(text)}", file=sys.stderr)


class Doctor:
    """Runs all checks that can be run, and remembers what failed."""

    def __init__(self) -> None:
        self._blocked: dict[str, str] = {}  # check -> the failure that is at the bottom of its own

    def run(self, checks: Sequence[Check], *subject: Any) -> Iterator[Outcome]:
        """The outcome of each check, as soon as it is there."""
        for check in checks:
            yield self._run(check, subject)

    def skip(self, checks: Sequence[Check], because: str) -> Iterator[Outcome]:
        """The checks as skipped."""
        for check in checks:
            self._blocked[check.name] = because
            yield Outcome(check.name, Status.SKIPPED, because)

    def _run(self, check: Check, subject: tuple[Any, ...]) -> Outcome:
        for name in check.after:
            if name in self._blocked:
                self._blocked[check.name] = self._blocked[name]
                return Outcome(check.name, Status.SKIPPED, f"{self._blocked[name]} failed")
        try:
            outcome = check.run(*subject)
        except UserError as error:
            text = hide_in_text(str(error))
        except Exception as error:  # a check that broke must not hide the others
            text = hide_in_text(f"{type(error).__name__}: {' '.join(str(error).split())}")
        else:
            status = Status.DOUBTFUL if isinstance(outcome, CheckWarning) else Status.PASSED
            return Outcome(check.name, status, outcome if isinstance(outcome, str) else "")
        self._blocked[check.name] = check.name
        return Outcome(check.name, Status.FAILED, text)
