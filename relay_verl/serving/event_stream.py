"""A response of server-sent events, which ends its work when the client leaves.

Invariant: an error before the first event is an HTTP status; a later one is an event. Nothing stands between an event
and the socket: no task, no queue.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import suppress

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from relay_verl.serving.api_error import ApiError
from relay_verl.serving.client_watch import ClientGoneError, ClientWatch
from relay_verl.serving.form import DONE, event

HEADERS = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-cache")]


class EventStream(Response):
    """Sends the events of a stream as they come.

    Args:
        events: each one or several whole events.
        make_watch: the watch over the client, from ASGI's receive.
        answer_error: the response for an error before the first event.
        note_error: told of each error after it.
    """

    media_type = "text/event-stream"

    def __init__(
        self,
        events: AsyncIterator[bytes],
        make_watch: Callable[[Receive], ClientWatch],
        answer_error: Callable[[ApiError], Response],
        note_error: Callable[[ApiError], None],
    ):
        super().__init__()
        self._events = events
        self._make_watch = make_watch
        self._answer_error = answer_error
        self._note_error = note_error

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        watch = self._make_watch(receive)
        clock = asyncio.get_running_loop().time
        has_started = False
        rest = b""
        try:
            async with watch.while_client_waits():
                try:
                    async for data in self._events:
                        watch.writing_since = clock()
                        if not has_started:
                            has_started = True
                            await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
                        await send({"type": "http.response.body", "body": data, "more_body": True})
                        watch.writing_since = None
                finally:
                    await self._events.aclose()  # type: ignore[attr-defined]
        except ClientGoneError:
            return
        except ApiError as error:
            if not has_started:
                await self._answer_error(error)(scope, receive, send)
                return
            self._note_error(error)
            rest = event(error.body) + DONE
        # nothing watches the client any more: one that does not read would hold this forever
        with suppress(TimeoutError):
            async with asyncio.timeout(watch.write_timeout_s):
                await send({"type": "http.response.body", "body": rest, "more_body": False})
