"""Streams of an endpoint on plain HTTP: read directly where there is an answer, else left to openai's client."""

import asyncio
import json
import pickle
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Any

import pytest

from relay_verl.engines import EndpointEngine, Generation
from relay_verl.errors import EngineError, PermanentError

LAST = {"model": "m", "choices": [{"token_ids": [7], "finish_reason": "length"}]}


class Server:
    """Answers each request with the next of these statuses, and with one token at 200."""

    def __init__(self, *statuses: int):
        self._statuses = list(statuses)
        self.agents: list[str] = []
        self.bodies: list[Any] = []
        self.keys: list[str] = []

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
                fields = dict(line.split(": ", 1) for line in head.split("\r\n")[1:] if ": " in line)
                self.bodies.append(json.loads(await reader.readexactly(int(fields["content-length"]))))
                self.agents.append(fields["user-agent"])
                self.keys.append(fields.get("authorization", ""))
                status = self._statuses.pop(0) if self._statuses else 200
                data = json.dumps({"error": {"message": "no"}}).encode()
                if status == 200:
                    data = b"data: " + json.dumps(LAST).encode() + b"\n\ndata: [DONE]\n\n"
                head = f"HTTP/1.1 {status} x\r\nretry-after-ms: 1\r\ncontent-length: {len(data)}\r\n\r\n"
                writer.write(head.encode() + data)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    @asynccontextmanager
    async def running(self, **options: Any) -> AsyncIterator[EndpointEngine]:
        async with await asyncio.start_server(self.answer, "127.0.0.1", 0) as server:
            url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
            async with aclosing(EndpointEngine(url, "m", api_key_env="TEST_KEY", **options)) as engine:
                yield engine


async def read(engine: EndpointEngine) -> list[Generation]:
    return [piece async for piece in engine.stream([1, 2], max_tokens=3)]


async def test_an_answer_is_read_directly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_KEY", "sk-1234")
    server = Server()
    async with server.running() as engine:
        async with aclosing(pickle.loads(pickle.dumps(engine))) as sent:
            assert await read(sent) == [Generation([7], None, "length")]
        assert await read(engine) == await read(engine)
    assert ["aiohttp" in agent for agent in server.agents] == [True] * 3
    assert server.keys == ["bearer sk-1234"] * 3
    assert server.bodies[0]["prompt"] == [1, 2]


@pytest.mark.parametrize("status", [429, 500, 503])
async def test_a_moments_trouble_is_left_to_the_client_that_asks_again(status: int) -> None:
    server = Server(status, status)
    async with server.running(num_retries=1) as engine:
        assert await read(engine) == [Generation([7], None, "length")]
    assert ["aiohttp" in agent for agent in server.agents] == [True, False, False]


async def test_a_refusal_is_explained() -> None:
    async with Server(400, 400).running() as engine:
        with pytest.raises(PermanentError, match="HTTP 400: no"):
            await read(engine)


async def test_a_server_that_is_down_is_explained() -> None:
    async with Server().running(num_retries=0) as engine:
        pass
    with pytest.raises(EngineError, match="Connection refused"):
        await read(engine)
    await engine.aclose()


@pytest.mark.parametrize("variable", ["http_proxy", "HTTP_PROXY"])
async def test_a_proxy_is_the_other_clients(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    server = Server()
    async with server.running(num_retries=0) as engine:
        monkeypatch.setenv(variable, engine.base_url.removesuffix("/v1"))
        monkeypatch.setenv("no_proxy", "")
        await read(engine)
    assert "aiohttp" not in server.agents[0]
