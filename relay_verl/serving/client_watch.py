"""The client of a request while it waits: it may leave, read too slowly, or wait for too long.

Invariant: a block under `while_client_waits` is cancelled in each of these cases, so that its engines' requests end.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.types import Receive

from relay_verl.serving.api_error import ApiError


class ClientGoneError(Exception):
    """The client has left, or does not read: there is no one to answer."""


class ClientWatch:
    """What the client does.

    Args:
        receive: ASGI's, after the body has been read.
        timeout_s: seconds that the whole request may take.
        write_timeout_s: seconds that the client may take to read one piece.
    """

    def __init__(self, receive: Receive, timeout_s: float, write_timeout_s: float):
        self._receive = receive
        self._timeout_s = timeout_s
        self.write_timeout_s = write_timeout_s
        self.writing_since: float | None = None
        """When the piece began that is written now, by the event loop's clock."""

    @asynccontextmanager
    async def while_client_waits(self) -> AsyncIterator[None]:
        """Run the block until it ends or the client does not wait any more.

        Raises:
            ClientGoneError: it has left, or it does not read.
            ApiError: 504; the time is over.
        """
        task = asyncio.current_task()
        assert task is not None
        has_gone = is_over = False

        def leave() -> None:
            # once: a second cancellation would end the cleanup, or what the task does after the block
            nonlocal has_gone
            if not has_gone and not is_over:
                has_gone = True
                task.cancel()

        watches = [asyncio.create_task(self._until_gone()), asyncio.create_task(self._until_stuck())]
        for watch in watches:
            watch.add_done_callback(lambda ended: None if ended.cancelled() else leave())
        try:
            async with asyncio.timeout(self._timeout_s):
                yield
        except TimeoutError:
            raise ApiError(504, f"not answered within {self._timeout_s:g} s") from None
        except asyncio.CancelledError:
            if not has_gone or task.uncancel() > 0:  # the server itself ends this request
                raise
            raise ClientGoneError from None
        finally:
            is_over = True
            for watch in watches:
                watch.cancel()

    async def _until_gone(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass

    async def _until_stuck(self) -> None:
        clock = asyncio.get_running_loop().time
        while self.writing_since is None or clock() - self.writing_since < self.write_timeout_s:
            await asyncio.sleep(self.write_timeout_s / 4)
