"""`relay-verl serve` from its start to its end, over two models' servers that are imitated; real ones are in
tests/e2e/test_serve.py."""

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from relay_verl.serving.vllm_server import reserve_port
from tests.helpers.serving import RuleEngine, asks_once, make_app, make_service, running, text_of, tokenizer

DEADLINE_S = 120.0
LONG = "x" * 200


class Command:
    """A running command."""

    def __init__(self, process: asyncio.subprocess.Process, port: int):
        self.process = process
        self.url = f"http://127.0.0.1:{port}"

    async def wait_until_ready(self) -> str:
        assert self.process.stdout is not None
        return (await self.process.stdout.readline()).decode()

    async def health(self) -> tuple[int, str]:
        async with httpx.AsyncClient(timeout=DEADLINE_S) as client:
            answer = await client.get(f"{self.url}/health")
        return answer.status_code, answer.headers["X-Relay-State"]

    async def until_it_listens(self) -> None:
        async with asyncio.timeout(DEADLINE_S):
            while True:
                try:
                    await self.health()
                    return
                except httpx.HTTPError:
                    await asyncio.sleep(0.05)

    async def texts(self, **fields: Any) -> AsyncIterator[str]:
        """The pieces of a streamed completion."""
        body = {"model": "mine", "prompt": "so", "stream": True, "temperature": 0, "max_tokens": 500, **fields}
        async with (
            httpx.AsyncClient(timeout=DEADLINE_S) as client,
            client.stream("POST", f"{self.url}/v1/completions", json=body) as answer,
        ):
            async for line in answer.aiter_lines():
                if line.startswith("data: {"):
                    for choice in json.loads(line.removeprefix("data: ")).get("choices", []):
                        yield choice["text"]


@asynccontextmanager
async def serving(folder: Path, *words: str) -> AsyncIterator[Command]:
    """The command with these words."""
    with reserve_port() as holder:
        port = int(holder.getsockname()[1])
    tokenizer().save_pretrained(folder)
    words = ("serve", "--name", "mine", "--tokenizer", str(folder), "--port", str(port), *words)
    with (folder / "stderr").open("wb") as errors:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "relay_verl", *words),
            stdout=asyncio.subprocess.PIPE,
            stderr=errors,
            env=os.environ | {"HF_HUB_OFFLINE": "1"},
        )
        try:
            yield Command(process, port)
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()


def model_app(engine: RuleEngine) -> FastAPI:
    """A server of one engine, which takes and returns token ids as vLLM's does."""
    return make_app(make_service(student=engine, teacher=False))


async def test_from_the_start_to_the_end(tmp_path: Path) -> None:
    """The student comes up after the command; the end comes in the middle of a response."""
    with reserve_port() as holder:
        port = int(holder.getsockname()[1])
    student = RuleEngine(lambda ids: LONG if text_of(ids).endswith("long") else asks_once(ids), piece=1, delay_s=0.01)
    async with running(model_app(RuleEngine(lambda _: "abcdef"))) as teacher:
        addresses = ["--student-url", f"http://127.0.0.1:{port}/v1", "--teacher-url", f"{teacher}/v1"]
        async with serving(tmp_path, *addresses, "--shutdown-timeout", "100") as command:
            await command.until_it_listens()
            assert await command.health() == (503, "starting")
            async with httpx.AsyncClient(timeout=DEADLINE_S) as client:
                refused = await client.get(f"{command.url}/v1/models")
            assert (refused.status_code, refused.json()["error"]["code"]) == (503, "starting")
            assert "Retry-After" in refused.headers

            async with running(model_app(student), port):
                line = await command.wait_until_ready()
                assert f"mine is served at {command.url}/v1" in line, (tmp_path / "stderr").read_text()
                assert await command.health() == (200, "ready")
                assert "".join([text async for text in command.texts()]) == " soabc end."
                written = ""
                async for text in command.texts(prompt="long"):
                    if not written:
                        command.process.send_signal(signal.SIGINT)
                    written += text
                assert written == LONG
                assert await asyncio.wait_for(command.process.wait(), DEADLINE_S) == 0


@pytest.mark.parametrize(("timeout_s", "num_signals", "code"), [(1, 1, 0), (600, 2, 130)])
async def test_a_request_that_takes_too_long_does_not_keep_it(
    tmp_path: Path, timeout_s: int, num_signals: int, code: int
) -> None:
    """It ends at the deadline, or at the second signal."""
    student = RuleEngine(lambda _: LONG, piece=1, delay_s=1.0)
    async with running(model_app(student)) as address:
        more = ["--student-url", f"{address}/v1", "--shutdown-timeout", str(timeout_s)]
        async with serving(tmp_path, *more) as command:
            await command.wait_until_ready()
            pieces = command.texts(prompt="long")
            await anext(pieces)
            for _ in range(num_signals):
                command.process.send_signal(signal.SIGTERM)
                await asyncio.sleep(0.5)  # two that come together count as one
            assert await asyncio.wait_for(command.process.wait(), DEADLINE_S) == code
            rest = []
            with contextlib.suppress(httpx.HTTPError):  # the connection broke off
                rest = [text async for text in pieces]
            assert len(rest) < len(LONG) / 2
