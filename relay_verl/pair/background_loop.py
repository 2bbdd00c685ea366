"""An event loop in a thread of its own, for callers that have none or are inside another one, such as a notebook's.

Invariant: a caller who is interrupted (Ctrl-C) leaves nothing running there.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Coroutine, Generator
from concurrent.futures import Future
from typing import Any, TypeVar

from relay_verl.errors import UserError

Result = TypeVar("Result")

_END = object()
END_S = 5.0
"""Seconds that cancelled work has to end when the loop is closed."""


class BackgroundLoop:
    """Runs coroutines and async generators of callers of any thread."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        # a daemon: a program that forgets to close ends all the same
        self._thread = threading.Thread(target=self._loop.run_forever, name="relay_verl-pair", daemon=True)
        self._thread.start()

    @property
    def is_closed(self) -> bool:
        """Whether it runs nothing more."""
        return self._loop.is_closed()

    def run(self, work: Coroutine[Any, Any, Result]) -> Result:
        """What `work` returns there; the caller's thread waits.

        Raises:
            UserError: the loop is closed.
        """
        future = self._submit(work)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    async def arun(self, work: Coroutine[Any, Any, Result]) -> Result:
        """The same for a caller in another event loop; a caller who is cancelled cancels the work."""
        return await asyncio.wrap_future(self._submit(work))

    def _submit(self, work: Coroutine[Any, Any, Result]) -> Future[Result]:
        if self.is_closed:
            work.close()
            raise UserError("the pair is closed: load it again")
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def iterate(self, items: AsyncGenerator[Result, None]) -> Generator[Result, None, None]:
        """The items of an async generator, which is closed with the iterator."""
        try:
            while (item := self.run(_next(items))) is not _END:
                yield item
        finally:
            self._end(items)

    async def aiterate(self, items: AsyncGenerator[Result, None]) -> AsyncGenerator[Result, None]:
        """The same for a caller in another event loop."""
        try:
            while (item := await self.arun(_next(items))) is not _END:
                yield item
        finally:
            if not self.is_closed:
                await self.arun(_close(items))

    def _end(self, items: AsyncGenerator[Any, None]) -> None:
        if self.is_closed:
            return
        if threading.current_thread() is self._thread:
            # the iterator was left, and the garbage collector ends it here, where waiting would never end
            self._loop.create_task(_close(items))
        else:
            self.run(_close(items))

    def close(self) -> None:
        """End the loop and its thread."""
        if self.is_closed:
            return
        # who waits in another thread for what runs there would wait forever
        asyncio.run_coroutine_threadsafe(_cancel_others(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


async def _cancel_others() -> None:
    """End what still runs, and leave alone what does not hear its cancellation."""
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks, timeout=END_S)


async def _next(items: AsyncGenerator[Result, None]) -> Any:
    return await anext(items, _END)


async def _close(items: AsyncGenerator[Any, None]) -> None:
    await items.aclose()
