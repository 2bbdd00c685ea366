"""A server that runs already: its name of the model, its answers with the time of each piece, its counters, and the CPU
time of its processes.

Invariants: every request has a deadline; the key is in the session's headers alone.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import httpx
import msgspec
import psutil
from prometheus_client.parser import text_string_to_metric_families

from relay_verl.config.reading import check_endpoint
from relay_verl.engines.address import root_of
from relay_verl.engines.client import EndpointClient
from relay_verl.errors import EngineError, first_line

CONNECT_S = 30.0
"""Seconds until a connection stands, and until the list of models is there."""
REQUEST_S = 900.0
"""Seconds that a request may take."""
_DATA, _OK = b"data: ", 200


class RunningServer:
    """Asks one server; made by `reach`.

    Args:
        url: its address, without /v1.
        model: its name of the model, the first that it lists.
        client: has the key, and words for failures without it.
        session: aiohttp's, with the key.
    """

    def __init__(self, url: str, model: str, client: EndpointClient, session: aiohttp.ClientSession):
        self.url = url
        self.model = model
        self._client = client
        self._session = session

    @property
    def key(self) -> str:
        """The key; empty where the environment has none."""
        return self._client.key

    async def post(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """The answer to a request.

        Raises:
            EngineError: there is none; names the address.
        """
        async with self._asking("POST", path, body) as response:
            answer: dict[str, Any] = msgspec.json.decode(await response.read())
        return answer

    async def stream(self, path: str, body: Mapping[str, Any]) -> AsyncIterator[tuple[float, dict[str, Any]]]:
        """The chunks of a stream, each with the `time.perf_counter` of its arrival.

        Raises:
            EngineError: there is none, it breaks off, or the server reports an error in it.
        """
        async with self._asking("POST", path, body) as response:
            async for line in response.content:
                arrived_at = time.perf_counter()
                data = line.removeprefix(_DATA).strip()
                if not line.startswith(_DATA) or data == b"[DONE]":
                    continue
                chunk = msgspec.json.decode(data)
                if "error" in chunk:
                    raise EngineError(self._client.line(str(chunk["error"])))
                yield arrived_at, chunk

    async def counters(self) -> dict[str, list[tuple[dict[str, str], float]]]:
        """The samples of `/metrics` by their name, each with its labels.

        Raises:
            EngineError: there are none.
        """
        async with self._asking("GET", "/metrics", None) as response:
            text = (await response.read()).decode()
        samples: dict[str, list[tuple[dict[str, str], float]]] = {}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                samples.setdefault(sample.name, []).append((sample.labels, sample.value))
        return samples

    def cpu_seconds(self) -> float | None:
        """CPU seconds so far of the process that listens there and of its children; None if it is elsewhere."""
        port = httpx.URL(self.url).port or 80
        try:
            owners = {
                connection.pid
                for connection in psutil.net_connections(kind="tcp")
                if connection.status == psutil.CONN_LISTEN and connection.laddr.port == port
            }
            if len(owners) != 1 or None in owners:
                return None
            process = psutil.Process(owners.pop())
            return sum(sum(each.cpu_times()[:2]) for each in (process, *process.children(recursive=True)))
        except psutil.Error:
            return None

    @asynccontextmanager
    async def _asking(
        self, method: str, path: str, body: Mapping[str, Any] | None
    ) -> AsyncGenerator[aiohttp.ClientResponse, None]:
        data = None if body is None else msgspec.json.encode(body)
        try:
            async with self._session.request(method, f"{self.url}{path}", data=data) as response:
                if response.status != _OK:
                    raise EngineError(self._client.line(f"{path}: HTTP {response.status}: {await response.text()}"))
                yield response
        except (aiohttp.ClientError, OSError, ValueError) as error:  # a TimeoutError is an OSError
            raise EngineError(self._client.line(f"{path}: {type(error).__name__}: {first_line(error)}")) from None


@asynccontextmanager
async def reach(option: str, url: str, api_key_env: str) -> AsyncGenerator[RunningServer, None]:
    """A server, whose connections are closed with the block.

    Args:
        option: names the address in errors.
        url: its address, with /v1 or without.
        api_key_env: environment variable with its key.

    Raises:
        UserError: `url` is not an address, or holds a key.
        EngineError: the server is down, or lists no model.
    """
    root = root_of(url)
    check_endpoint(option, f"{root}/v1", api_key_env)
    client = EndpointClient(f"{root}/v1", api_key_env=api_key_env, timeout_s=CONNECT_S, num_retries=0)
    try:
        names = await client.model_names()
    finally:
        await client.aclose()
    if not names:
        raise EngineError(client.line(f"{option}: the server lists no model"))
    headers = {"Content-Type": "application/json", **client.headers}
    timeout = aiohttp.ClientTimeout(total=REQUEST_S, sock_connect=CONNECT_S)
    connector = aiohttp.TCPConnector(limit=0)  # who asks bounds the requests
    async with aiohttp.ClientSession(headers=headers, timeout=timeout, connector=connector) as session:
        yield RunningServer(root, names[0], client, session)
