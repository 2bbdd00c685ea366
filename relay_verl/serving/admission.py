"""How many responses are written at a time, and how many wait. Pure.

Invariant: at most `max_concurrency` responses run and at most `max_queue` wait, in the order in which they came; a
request of several responses starts when all of them have a place, or is refused at once.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from relay_verl.serving.api_error import ApiError


class Admission:
    """Places for responses.

    Args:
        max_concurrency: places.
        max_queue: responses that may wait for one.
        retry_after_s: what a request is told that finds no place to wait.
    """

    def __init__(self, max_concurrency: int, max_queue: int, retry_after_s: int):
        self._max_concurrency = max_concurrency
        self._max_queue = max_queue
        self._retry_after_s = retry_after_s
        self._waiting: deque[tuple[asyncio.Future[None], int]] = deque()
        self.num_running = 0
        """Responses that are written now."""

    @property
    def num_waiting(self) -> int:
        """Responses that wait for a place."""
        return sum(num_places for _, num_places in self._waiting)

    @asynccontextmanager
    async def place(self, num_places: int) -> AsyncIterator[None]:
        """Hold places for the responses of one request.

        Args:
            num_places: its responses, at most `max_concurrency`.

        Raises:
            ApiError: 429; the queue is full.
            ValueError: more than there are places, which `RequestReader` refuses.
        """
        if num_places > self._max_concurrency:
            raise ValueError(f"{num_places} responses never have a place each: there are {self._max_concurrency}")
        await self._take(num_places)
        try:
            yield
        finally:
            self.num_running -= num_places
            self._admit()

    async def _take(self, num_places: int) -> None:
        if not self._waiting and self.num_running + num_places <= self._max_concurrency:
            self.num_running += num_places
            return
        if self.num_waiting + num_places > self._max_queue:
            message = f"{self.num_running} responses are written and {self.num_waiting} wait; try again in a moment"
            raise ApiError(429, message, retry_after_s=self._retry_after_s)
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        entry = (turn, num_places)
        self._waiting.append(entry)
        try:
            await turn
        except asyncio.CancelledError:
            # who is admitted and cancelled in the same moment has places that no one else would give back
            if not turn.cancelled():
                self.num_running -= num_places
            elif entry in self._waiting:
                self._waiting.remove(entry)
            self._admit()
            raise

    def _admit(self) -> None:
        while self._waiting and self.num_running + self._waiting[0][1] <= self._max_concurrency:
            turn, num_places = self._waiting.popleft()
            if turn.cancelled():  # its request has been told to end and has not run since
                continue
            self.num_running += num_places
            turn.set_result(None)
