"""The client's end of the socket of a replica on this node."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from relay_verl.models.wire import Answer, Cancel, Request, Sender, read_frame


class Connection:
    """The socket of one replica on this node."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter):
        self._sender = Sender(writer)
        self._waiting: dict[int, asyncio.Future[Answer]] = {}
        self._num_asked = 0
        self._is_open = True
        self._reading = asyncio.create_task(self._read(reader, writer))

    @classmethod
    async def open(cls, path: str) -> Connection:
        """Connect to the socket at `path`."""
        return cls(*await asyncio.open_unix_connection(path))

    async def ask(self, request_id: str, prompt_ids: list[int], sampling: Mapping[str, Any]) -> Answer:
        """What the server answers; a caller that gives up tells it so.

        Raises:
            EOFError: the server is gone.
        """
        if not self._is_open:
            raise EOFError
        self._num_asked += 1
        number = self._num_asked
        answer = self._waiting[number] = asyncio.get_running_loop().create_future()
        self._sender.send(Request(number, request_id, prompt_ids, dict(sampling)))
        try:
            return await answer
        except asyncio.CancelledError:
            self._sender.send(Cancel(number))
            raise
        finally:
            del self._waiting[number]

    def close(self) -> None:
        """End it: who waits for an answer gets `EOFError`."""
        self._reading.cancel()

    async def _read(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                for message in await read_frame(reader):
                    if isinstance(message, Answer):
                        answer = self._waiting.get(message.number)
                        if answer is not None and not answer.done():
                            answer.set_result(message)
        except EOFError:
            pass
        finally:
            self._is_open = False
            for answer in self._waiting.values():
                if not answer.done():
                    answer.set_exception(EOFError())
            writer.close()
