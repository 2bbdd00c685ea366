"""The server's end of a Unix socket on which clients ask an engine (`relay_verl.models.wire`).

Invariant: a request whose client has gone, or no longer wants it, is cancelled.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod

from relay_verl.models.wire import Cancel, Request, Sender, read_frame


class FrameServer(ABC):
    """Answers clients; what an answer is, a subclass says."""

    @abstractmethod
    async def answer(self, request: Request, sender: Sender) -> None:
        """Answer one request, in one message or in several."""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one client until it goes."""
        sender = Sender(writer)
        tasks: dict[int, asyncio.Task[None]] = {}
        try:
            while True:
                for message in await read_frame(reader):
                    if isinstance(message, Request):
                        tasks[message.number] = asyncio.create_task(self._answer(message, sender, tasks))
                    elif isinstance(message, Cancel) and message.number in tasks:
                        tasks[message.number].cancel()
        except (EOFError, asyncio.CancelledError):  # the client has gone, or this process ends
            pass
        finally:
            for task in tasks.values():
                task.cancel()
            writer.close()

    async def _answer(self, request: Request, sender: Sender, tasks: dict[int, asyncio.Task[None]]) -> None:
        try:
            await self.answer(request, sender)
        finally:
            del tasks[request.number]
