"""Streams of an endpoint on plain HTTP, read as cheaply as they come: a stream has a chunk a token, and openai's client
spends more on each than the endpoint's engine does on a small model's token.

Invariant: only an answer that is there is read here. Whatever else an endpoint says (a refusal, a full queue, nothing)
is left to `EndpointClient`, which asks again and knows what it means.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import msgspec

from relay_verl.engines.address import proxy_of
from relay_verl.engines.deadlines import LONGEST_WAIT

CONNECT_TIMEOUT_S = 5.0
"""Seconds until a connection stands; `EndpointClient` has more patience."""
IDLE_S = 30.0
"""Seconds that a connection waits for its next request: fewer than servers keep it."""
_OK = 200


class DirectResponse:
    """A body that comes in chunks.

    Args:
        content: aiohttp's stream of it.
    """

    def __init__(self, content: Any):
        self._content = content

    def iter_bytes(self) -> AsyncIterator[bytes]:
        """The chunks as they come."""
        chunks: AsyncIterator[bytes] = self._content.iter_any()
        return chunks


class DirectHttp:
    """Asks one endpoint for streams. Can be sent to another process, and used from one event loop after another.

    Args:
        base_url: such as http://127.0.0.1:8000/v1.
        timeout_s: seconds of silence that the caller's pulse bears (`relay_verl.engines.deadlines`).
    """

    def __init__(self, base_url: str, timeout_s: float):
        self._base_url = base_url.rstrip("/")
        self._timeout_s = timeout_s
        self._session_of_loop: tuple[Any, Any] = (None, None)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_session_of_loop": (None, None)}

    @asynccontextmanager
    async def open(
        self, path: str, body: Mapping[str, Any], headers: Mapping[str, str]
    ) -> AsyncGenerator[DirectResponse | None, None]:
        """An answer whose body is read in the block; leaving the block ends the request. None where there is none.

        Args:
            path: behind the address, such as /completions.
            body: the request, as JSON.
            headers: with the key.
        """
        import aiohttp

        data = msgspec.json.encode(body)
        sent = {"Content-Type": "application/json", "Accept-Encoding": "identity", **headers}
        session = self._session()
        if session is None or not all(value.isascii() and value.isprintable() for value in sent.values()):
            yield None
            return
        try:
            response = await session.post(f"{self._base_url}{path}", data=data, headers=sent)
        except (aiohttp.ClientError, OSError, ValueError):  # a TimeoutError is an OSError
            yield None
            return
        async with response:
            yield DirectResponse(response.content) if response.status == _OK else None

    async def aclose(self) -> None:
        """Close the connections of the running event loop; another request opens new ones."""
        loop, session = self._session_of_loop
        if session is not None and loop is asyncio.get_running_loop():
            self._session_of_loop = (None, None)
            await session.close()

    def _session(self) -> Any:
        """aiohttp's session of the running event loop; None where something stands between here and the endpoint: TLS
        and proxies are `EndpointClient`'s."""
        import aiohttp

        loop, session = self._session_of_loop
        if loop is not asyncio.get_running_loop():
            session = None
            if self._base_url.startswith("http://") and proxy_of(self._base_url) is None:
                timeout = aiohttp.ClientTimeout(
                    total=None, sock_connect=CONNECT_TIMEOUT_S, sock_read=LONGEST_WAIT * self._timeout_s
                )
                connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=IDLE_S)  # who asks bounds the requests
                session = aiohttp.ClientSession(connector=connector, timeout=timeout)
            self._session_of_loop = (asyncio.get_running_loop(), session)
        return session
