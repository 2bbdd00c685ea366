"""Tasks that may be abandoned, and a wait for one that costs little. Pure."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

Result = TypeVar("Result")


def start(work: Coroutine[Any, Any, Result]) -> asyncio.Task[Result]:
    """Begin work whose error may be taken by none."""
    task = asyncio.create_task(work)
    task.add_done_callback(hear)
    return task


def hear(ended: asyncio.Task[Any]) -> None:
    """Take the error of an abandoned task, which asyncio else logs."""
    _ = ended.cancelled() or ended.exception()


async def is_done(task: asyncio.Task[Any], timeout_s: float) -> bool:
    """Whether a task has ended, after it has or after `timeout_s` seconds: `asyncio.wait` of one task, at less cost."""
    ended = task.get_loop().create_future()

    def wake(_: object = None) -> None:
        if not ended.done():
            ended.set_result(None)

    task.add_done_callback(wake)
    timer = task.get_loop().call_later(timeout_s, wake)
    try:
        await ended
    finally:
        timer.cancel()
        task.remove_done_callback(wake)
    return task.done()
