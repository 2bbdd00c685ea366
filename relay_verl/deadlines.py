"""How long the parts of a rollout may take, and a deadline that holds. Pure.

Invariant: whoever waits has more time than what it waits for. A sample's turn ends within its group's time
(`relay.rollout_timeout_s`); a group that does not end in time counts as failed, and its worker says so within
`STATUS_TIMEOUT_S`; the replay buffer waits `GRACE_S` longer than a group may take, so that a hung group is one failed
group and only a worker that says nothing at all ends the run.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

Result = TypeVar("Result")

STATUS_TIMEOUT_S = 60.0
"""Seconds the transfer queue may take for one group's rows, and for its status."""
GRACE_S = 5 * STATUS_TIMEOUT_S
"""Seconds the replay buffer waits past a group's time: for its rows, its status, and a worker that has much to do."""

GRADING_S = 600.0
"""Seconds that grading and judging may take after a response is written, the start of their workers included."""


class DeadlineError(TimeoutError):
    """Work took longer than `run_within` gives it."""


async def run_within(timeout_s: float, work: Coroutine[Any, Any, Result]) -> Result:
    """What `work` returns; past the deadline it is cancelled and left alone, as it may not hear its cancellation.

    Raises:
        DeadlineError: it took longer.
    """
    task = asyncio.create_task(work)
    task.add_done_callback(lambda ended: ended.cancelled() or ended.exception())  # an abandoned error is not logged
    try:
        done, _ = await asyncio.wait({task}, timeout=timeout_s)
    finally:
        task.cancel()
    if not done:
        raise DeadlineError(f"not done within {timeout_s:g} s")
    return task.result()
