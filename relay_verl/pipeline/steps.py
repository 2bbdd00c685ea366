"""A long program as steps, each of which leaves its whole output or none that counts: whenever it is killed, the next
run continues with the step that was under way.

A step that fails does not keep the others from running: what failed is told, and the next run tries it again.

Invariant: a step whose output is there is not run.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from relay_verl.errors import RelayError, first_line
from relay_verl.pipeline.processes import StageError

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Step:
    """One step."""

    name: str
    is_done: Callable[[], bool]
    """Whether its whole output is there; asked when its turn comes, and again after it has run."""
    run: Callable[[], object]
    """Makes it, or continues to."""


def run_steps(steps: Iterable[Step], tell: Callable[[str], None] = print) -> dict[str, str]:
    """Run the steps in order, but for those whose output is there.

    Args:
        steps: in order.
        tell: told of each step that runs, and of each that fails.

    Returns:
        Why steps failed, by their names.
    """
    failures: dict[str, str] = {}
    for step in steps:
        if step.is_done():
            continue
        tell(step.name)
        try:
            step.run()
        except (RelayError, StageError) as error:
            failures[step.name] = first_line(error)
        except Exception as error:  # a bug of ours, or of an engine that does not start on a busy machine
            logger.exception("%s", step.name)
            failures[step.name] = f"{type(error).__name__}: {first_line(error)}"
        else:
            if not step.is_done():
                failures[step.name] = "it ended without its output"
        if step.name in failures:
            tell(f"{step.name} failed: {failures[step.name]}")
    return failures
