"""What every request passes first: its name, its key, the size of its body.

Invariant: a key is compared by its hash and in constant time, and is in no log and no answer; a body that is too long
is not read.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from hashlib import sha256
from hmac import compare_digest
from uuid import uuid4

from fastapi import HTTPException
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from relay_verl.serving.api_error import ApiError

REQUEST_ID = "x-request-id"
MAX_ID_CHARS = 128
"""Longest request id that is taken over."""
GUARDED = ("/v1/", "/tokenize", "/detokenize", "/tokenizer_info")
"""Beginnings of paths that need a key where there is one; health, metrics and the page do not."""


def read_keys(variable: str) -> list[bytes]:
    """Hashes of the keys that an environment variable holds, separated by commas."""
    keys = (key.strip() for key in os.environ.get(variable, "").split(","))
    return [sha256(key.encode()).digest() for key in keys if key]


class Gate:
    """ASGI middleware around the whole application.

    Args:
        app: what is behind it.
        key_hashes: of the keys that are taken; none for no key.
        max_body_bytes: longest body.
        body_timeout_s: seconds until the body is there.
        answer_error: the response for an error.
    """

    def __init__(
        self,
        app: ASGIApp,
        key_hashes: list[bytes],
        max_body_bytes: int,
        body_timeout_s: float,
        answer_error: Callable[[ApiError], Response],
    ):
        self._app = app
        self._key_hashes = key_hashes
        self._max_body_bytes = max_body_bytes
        self._body_timeout_s = body_timeout_s
        self._answer_error = answer_error

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        request_id = _id_of(headers.get(REQUEST_ID))
        scope.setdefault("state", {})["request_id"] = request_id

        async def send_named(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)[REQUEST_ID] = request_id
            await send(message)

        try:
            self._check_key(scope, headers)
            app, read = self._app, self._limited(headers, receive)
        except ApiError as error:
            app, read = self._answer_error(error), receive
        await app(scope, read, send_named)

    def _check_key(self, scope: Scope, headers: Headers) -> None:
        is_guarded = scope["path"].startswith(GUARDED) and scope["method"] != "OPTIONS"
        if not self._key_hashes or not is_guarded:
            return
        scheme, _, key = headers.get("authorization", "").partition(" ")
        digest = sha256(key.strip().encode()).digest()
        # all of them are compared, so that the time does not tell which one it is
        is_known = sum(compare_digest(digest, known) for known in self._key_hashes) > 0
        if scheme.lower() != "bearer" or not is_known:
            raise ApiError(401, "the key is missing or wrong: send it as Authorization: Bearer KEY")

    def _limited(self, headers: Headers, receive: Receive) -> Receive:
        """`receive` for a body of at most `max_body_bytes` that comes within `body_timeout_s`."""
        too_long = f"the body is longer than {self._max_body_bytes} bytes"
        length = headers.get("content-length", "")
        if length.isdigit() and int(length[:20]) > self._max_body_bytes:
            raise ApiError(413, too_long)
        num_bytes = 0
        ends_at: float | None = asyncio.get_running_loop().time() + self._body_timeout_s

        async def receive_limited() -> Message:
            nonlocal num_bytes, ends_at
            try:
                async with asyncio.timeout_at(ends_at):
                    message = await receive()
            except TimeoutError:
                raise HTTPException(408, f"the body did not come within {self._body_timeout_s:g} s") from None
            if not message.get("more_body", False):
                ends_at = None  # what follows is the client's leaving, which is waited for as long as it takes
            num_bytes += len(message.get("body", b""))
            if num_bytes > self._max_body_bytes:
                raise HTTPException(413, too_long)  # FastAPI, which reads the body, passes this class on
            return message

        return receive_limited


def _id_of(given_id: str | None) -> str:
    """The client's name for the request, if it is one."""
    if given_id and len(given_id) <= MAX_ID_CHARS and given_id.isascii() and given_id.isprintable():
        return given_id
    return uuid4().hex
