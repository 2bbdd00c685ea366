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

from relay_verl.serving.vllm_server import reserve_port
from tests.helpers.serving import RuleEngine, asks_once, make_app, make_service, running, tokenizer

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
        body = {"model": "mine", "prompt": "so", "stream": True, "temperature": 0, **fields}
        async with (
            httpx.AsyncClient(timeout=DEADLINE_S) as client,
            client.stream("POST", f"{self.url}/v1/completions", json=body) as answer,
        ):
            async for line in answer.aiter_lines():
                if line.startswith("data: {"):
                    for choice in json.loads(line.removeprefix("data: ")).get("choices", []):
                        yield choice["text"]


@asynccontextmanager
async def serving(
    folder: Path, student: RuleEngine | str, teacher: RuleEngine | None, *more: str
) -> AsyncIterator[Command]:
    """The command over servers of two engines, which answer as vLLM's do; the student's may be an address."""
    async with contextlib.AsyncExitStack() as stack:
        words = ["serve", "--name", "mine", "--tokenizer", str(folder), *more]
        for role, engine in (("student", student), ("teacher", teacher)):
            if isinstance(engine, RuleEngine):
                app = make_app(make_service(student=engine, teacher=False))
                words += [f"--{role}-url", f"{await stack.enter_async_context(running(app))}/v1"]
            elif engine is not None:
                words += [f"--{role}-url", engine]
        with reserve_port() as holder:
            port = int(holder.getsockname()[1])
        tokenizer().save_pretrained(folder)
        errors = stack.enter_context((folder / "stderr").open("wb"))
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "relay_verl", *words, "--port", str(port)),
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


async def test_it_serves_and_ends_when_told(tmp_path: Path) -> None:
    student, teacher = RuleEngine(asks_once, piece=1), RuleEngine(lambda _: "abcdef")
    async with serving(tmp_path, student, teacher) as command:
        line = await command.wait_until_ready()
        assert f"mine is served at {command.url}/v1" in line, (tmp_path / "stderr").read_text()
        assert await command.health() == (200, "ready")
        assert "".join([text async for text in command.texts(max_tokens=60)]) == " soabc end."
        command.process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(command.process.wait(), DEADLINE_S) == 0


@pytest.mark.parametrize(("timeout_s", "is_whole"), [("100", True), ("1", False)])
async def test_a_running_request_may_end_until_the_deadline(tmp_path: Path, timeout_s: str, is_whole: bool) -> None:
    student = RuleEngine(lambda _: LONG, piece=1, delay_s=0.02)
    async with serving(tmp_path, student, None, "--shutdown-timeout", timeout_s) as command:
        await command.wait_until_ready()
        written = ""
        try:
            async for text in command.texts(max_tokens=500):
                if not written:
                    command.process.send_signal(signal.SIGINT)
                written += text
        except httpx.HTTPError:  # the connection broke off
            assert not is_whole
        assert (written == LONG) == is_whole
        assert await asyncio.wait_for(command.process.wait(), DEADLINE_S) == 0


async def test_a_second_signal_ends_it_at_once(tmp_path: Path) -> None:
    student = RuleEngine(lambda _: LONG, piece=1, delay_s=1.0)
    async with serving(tmp_path, student, None, "--shutdown-timeout", "600") as command:
        await command.wait_until_ready()
        pieces = command.texts(max_tokens=500)
        await anext(pieces)
        async with asyncio.timeout(DEADLINE_S):
            while command.process.returncode is None:
                command.process.send_signal(signal.SIGTERM)
                await asyncio.sleep(0.2)
        assert command.process.returncode == 130
        with pytest.raises(httpx.HTTPError):
            [text async for text in pieces]


async def test_it_says_that_it_starts_while_its_student_is_not_there(tmp_path: Path) -> None:
    with reserve_port() as holder:
        port = holder.getsockname()[1]
    async with serving(tmp_path, f"http://127.0.0.1:{port}/v1", None) as command:
        await command.until_it_listens()
        assert await command.health() == (503, "starting")
        async with httpx.AsyncClient(timeout=DEADLINE_S) as client:
            refused = await client.get(f"{command.url}/v1/models")
        assert refused.status_code == 503
        assert refused.json()["error"]["code"] == "starting"
        assert "Retry-After" in refused.headers
        command.process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(command.process.wait(), DEADLINE_S) == 0
