"""A TokenEngine over the stream door of a vLLM server on this node, or over its HTTP API where the door is not open.

Invariant: pieces that have come for one response while it was not looked at are given as one, so that a server with
much to do spends less on each token.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from typing import Any
from uuid import uuid4

from relay_verl.engines.base import NEUTRAL_SAMPLING, Generation
from relay_verl.engines.endpoint import EndpointEngine
from relay_verl.errors import EngineError, PermanentError
from relay_verl.models.wire import Answer, Cancel, Request, Sender, read_frame


class DoorEngine:
    """One model of a server that was started here.

    Args:
        path: of the door's socket.
        endpoint: the same server's HTTP API, which also answers what is not streamed.
    """

    def __init__(self, path: str, endpoint: EndpointEngine):
        self.pulse = endpoint.pulse
        self.generate = endpoint.generate
        self._path = path
        self._endpoint = endpoint
        self._connection: DoorConnection | None = None

    async def stream(
        self,
        prompt_ids: list[int],
        *,
        max_tokens: int,
        stop: Sequence[str] = (),
        sampling: Mapping[str, Any] = {},
        request_id: str | None = None,
    ) -> AsyncGenerator[Generation, None]:
        """See `StreamingEngine.stream`."""
        connection = await self._connect()
        if connection is None:
            pieces = self._endpoint.stream(
                prompt_ids, max_tokens=max_tokens, stop=stop, sampling=sampling, request_id=request_id
            )
        else:
            pieces = connection.ask(prompt_ids, _parameters(max_tokens, stop, sampling))
        async with aclosing(pieces):
            async for piece in pieces:
                yield piece

    async def aclose(self) -> None:
        """Close the connections of the running event loop; another request opens new ones."""
        if self._connection is not None:
            self._connection.close()
        await self._endpoint.aclose()

    async def _connect(self) -> DoorConnection | None:
        """The connection, a new one if the server was started again; None where there is no door."""
        if self._connection is None or not self._connection.is_open:
            try:
                reader, writer = await asyncio.open_unix_connection(self._path)
            except OSError:
                return None
            if self._connection is None or not self._connection.is_open:
                self._connection = DoorConnection(reader, writer)
            else:  # another request was faster
                writer.close()
        return self._connection


class _Inbox:
    """What has come for one request."""

    def __init__(self) -> None:
        self.answers: deque[Answer] = deque()
        self._waiter: asyncio.Future[None] | None = None

    def put(self, answer: Answer) -> None:
        self.answers.append(answer)
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def wait(self) -> None:
        if not self.answers:
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter


class DoorConnection:
    """The client's end of the socket."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter):
        self.is_open = True
        self._sender = Sender(writer)
        self._inboxes: dict[int, _Inbox] = {}
        self._num_asked = 0
        self._reading = asyncio.create_task(self._read(reader, writer))

    def close(self) -> None:
        """Close the socket; requests that run fail."""
        self._reading.cancel()

    async def ask(self, prompt_ids: list[int], parameters: dict[str, Any]) -> AsyncGenerator[Generation, None]:
        """The pieces of one answer; a reader who leaves ends the request.

        Raises:
            EngineError: the server failed, or it is gone.
        """
        self._num_asked += 1
        number = self._num_asked
        inbox = self._inboxes[number] = _Inbox()
        has_ended = False
        self._sender.send(Request(number, uuid4().hex, prompt_ids, parameters))
        try:
            while not has_ended:
                await inbox.wait()
                piece, has_ended = _join(inbox.answers)
                yield piece
        finally:
            del self._inboxes[number]
            if not has_ended and self.is_open:
                self._sender.send(Cancel(number))

    async def _read(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                for message in await read_frame(reader):
                    if isinstance(message, Answer) and message.number in self._inboxes:
                        self._inboxes[message.number].put(message)
        except EOFError:
            pass
        finally:
            self.is_open = False
            for number, inbox in self._inboxes.items():
                inbox.put(Answer(number, error="the server is gone"))
            writer.close()


def _join(answers: deque[Answer]) -> tuple[Generation, bool]:
    """All that has come, as one piece, and whether it is the last one.

    Raises:
        EngineError: the server failed.
    """
    ids: list[int] = []
    logprobs: list[float] | None = None
    while answers:
        answer = answers.popleft()
        if answer.error is not None:
            raise PermanentError(answer.error) if answer.is_refusal else EngineError(answer.error)
        ids += answer.token_ids
        if answer.log_probs is not None:
            logprobs = (logprobs or []) + answer.log_probs
        if answer.stop_reason is not None:
            reason: Any = answer.stop_reason
            return Generation(ids, logprobs, reason, answer.extra_fields.get("num_cached_tokens")), True
    return Generation(ids, logprobs, None), False


def _parameters(max_tokens: int, stop: Sequence[str], sampling: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of vLLM's SamplingParams."""
    return {**NEUTRAL_SAMPLING, **sampling} | {
        "max_tokens": max_tokens,
        "stop": list(stop),
        "include_stop_str_in_output": bool(stop),
        "logprobs": 0 if sampling.get("logprobs") else None,
        "detokenize": bool(stop),  # texts are made here; only stop strings need them there
    }
