"""Runs an async iterator in a task of its own, so that a reader need not wait for it longer than it likes. Pure.

A task for each item would be the same and cost more than the item: a stream has one item a token.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Generic, TypeVar

Item = TypeVar("Item")


class Pump(Generic[Item]):
    """The items of an async generator, for one reader. They are kept until they are taken: what bounds their number is
    the generator.

    Args:
        items: is closed at the end, whatever ends it.
    """

    def __init__(self, items: AsyncGenerator[Item, None]):
        self._items: deque[Item] = deque()
        self._waiter: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._task = asyncio.create_task(self._run(items))
        self._task.add_done_callback(self._end)

    @property
    def has_item(self) -> bool:
        """Whether `take` gives one."""
        return bool(self._items)

    @property
    def is_ready(self) -> bool:
        """Whether the next item can be taken without waiting, or the items have ended."""
        return bool(self._items) or self._task.done()

    def take(self) -> Item:
        """The next item; there has to be one."""
        return self._items.popleft()

    def check(self) -> None:
        """Raise what ended the iterator, if it was not its end; only once it has ended."""
        self._task.result()

    def stop(self, reason: str | None = None) -> None:
        """End the iterator without waiting for it, as it may not hear its cancellation, which says `reason`."""
        self._task.cancel(reason)
        if self._timer is not None:
            self._timer.cancel()

    async def wait(self, timeout_s: float) -> None:
        """Return when `is_ready`, or after `timeout_s` seconds at the latest: a timer that was set for an earlier wait
        and is due before is kept, since to set one for each item costs as much as the item."""
        if self.is_ready:
            return
        loop = asyncio.get_running_loop()
        ends_at = loop.time() + timeout_s
        if self._timer is None or self._timer.when() > ends_at:
            if self._timer is not None:
                self._timer.cancel()
            self._timer = loop.call_at(ends_at, self._ring)
        self._waiter = loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    async def _run(self, items: AsyncGenerator[Item, None]) -> None:
        async with aclosing(items):
            async for item in items:
                self._items.append(item)
                self._wake()

    def _ring(self) -> None:
        self._timer = None
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _end(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled():
            task.exception()  # an abandoned error is not logged
        self._wake()
