"""Storm a running `relay-verl serve`: clients that leave, rubbish, a teacher that is killed. Not part of the tests.

    python tests/serving_storm.py
    python tests/serving_storm.py --leaving 0 --kills 0
    python tests/serving_storm.py --real outputs/test-pair/student outputs/test-pair/teacher

Both models are scripted engines behind servers of their own, each a process; `--real` has `relay-verl serve` start
vLLM for both instead. The teacher's process is killed with SIGKILL, and started again a while later. It prints what
became of the requests, the tokens that usage, metrics and engines count, and the memory of the server's process.

Tokens on their way to a client who leaves, or out of a process that is killed, are the engine's and in no other count;
usage is of the requests that were answered. So with `--leaving 0 --kills 0` all three are equal, and else they rise.
"""

import argparse
import asyncio
import json
import multiprocessing
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from random import Random
from typing import Any

import httpx
import psutil
from fastapi import FastAPI, Request
from helpers.serving import RuleEngine, asks_once, text_of, tokenizer
from starlette.responses import JSONResponse, Response, StreamingResponse

from relay_verl.serving.settings import ServeSettings
from relay_verl.serving.vllm_server import reserve_port
from relay_verl.serving.web_server import WebServer, listen

HANG_S = 120.0
"""Seconds after which a request counts as hung."""
RUBBISH: list[dict[str, Any]] = [
    {"n": -1},
    {"tools": [1]},
    {"model": "pear"},
    {"relay": {"max_calls": -1}},
    {"stop": 3},
]
SPAWN = multiprocessing.get_context("spawn")


def student_rule(context: list[int]) -> str:
    return asks_once(context) if len(context) % 3 else "<call>2</call>" + "é" * 20


def teacher_rule(context: list[int]) -> str:
    return text_of(context)[-3:] + "abcdefgh"


def model_app(engine: RuleEngine, written: Any) -> FastAPI:
    """What `EndpointEngine` needs of vLLM's server; `written` counts the tokens and outlives the process."""
    app = FastAPI()

    @app.get("/health")
    async def health() -> Response:
        return Response()

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        return {"object": "list", "data": [{"id": "m", "object": "model", "max_model_len": 4096}]}

    @app.post("/v1/completions")
    async def completions(request: Request) -> Response:
        body = await request.json()
        stream = engine.stream(body["prompt"], max_tokens=body["max_tokens"], stop=body.get("stop") or ())

        async def chunks() -> Any:
            async for piece in stream:
                written.value += len(piece.token_ids)  # one process at a time writes it
                is_stop = piece.finish_reason == "stop"
                choice = {"index": 0, "text": "", "token_ids": piece.token_ids, "stop_reason": "x" if is_stop else None}
                choice["finish_reason"] = "stop" if piece.finish_reason == "eos" else piece.finish_reason
                yield {"object": "text_completion", "model": "m", "choices": [choice]}

        if not body.get("stream"):
            parts = [chunk["choices"][0] async for chunk in chunks()]
            ids = [token_id for part in parts for token_id in part["token_ids"]]
            return JSONResponse({"model": "m", "choices": [parts[-1] | {"token_ids": ids}]})

        async def events() -> Any:
            async for chunk in chunks():
                yield f"data: {json.dumps(chunk)}\n\n"
            yield "data: [DONE]\n\n"

        return StreamingResponse(events(), media_type="text/event-stream")

    return app


def run_model(role: str, port: int, written: Any, may_start: Any) -> None:
    """A model's server, until it is killed."""
    may_start.wait()
    engine = RuleEngine(student_rule if role == "student" else teacher_rule, piece=1, delay_s=0.002)
    WebServer(model_app(engine, written), ServeSettings()).run(sockets=[listen("127.0.0.1", port)])


class ScriptedModels:
    """Both models as processes without weights."""

    def __init__(self, folder: str):
        tokenizer().save_pretrained(folder)
        self._ports = {}
        for role in ("student", "teacher"):
            with reserve_port() as holder:
                self._ports[role] = int(holder.getsockname()[1])
        self._written = {role: SPAWN.Value("q", 0, lock=False) for role in self._ports}
        self._processes = {role: self._prepare(role) for role in self._ports}
        self._next = self._prepare("teacher")
        for _, may_start in self._processes.values():
            may_start.set()
        urls = [f"--{role}-url=http://127.0.0.1:{port}/v1" for role, port in self._ports.items()]
        self.words = ["--tokenizer", folder, *urls]

    def _prepare(self, role: str) -> tuple[Any, Any]:
        """A process that has all but to listen, and what lets it."""
        may_start = SPAWN.Event()
        args = (role, self._ports[role], self._written[role], may_start)
        process = SPAWN.Process(target=run_model, args=args, daemon=True)
        process.start()
        return process, may_start

    def kill_teacher(self, server: psutil.Process) -> None:
        process, _ = self._processes["teacher"]
        process.kill()
        process.join()

    def restart_teacher(self) -> None:
        self._processes["teacher"] = self._next
        self._next[1].set()
        self._next = self._prepare("teacher")

    async def num_written(self) -> int | None:
        return sum(int(counter.value) for counter in self._written.values())

    def close(self) -> None:
        for process, _ in (*self._processes.values(), self._next):
            process.kill()


class RealModels:
    """Two vLLM servers that `relay-verl serve` starts, and starts again; what they wrote is not counted over a kill."""

    def __init__(self, student: str, teacher: str):
        self.words = [student, "--teacher", teacher]

    def kill_teacher(self, server: psutil.Process) -> None:
        for child in server.children(recursive=True):
            with suppress(psutil.Error):
                if "teacher" in child.cmdline() and "vllm" in " ".join(child.cmdline()):
                    child.kill()

    def restart_teacher(self) -> None:
        """The server does."""

    async def num_written(self) -> int | None:
        return None

    def close(self) -> None:
        """The server ends them."""


class Storm:
    """The requests, and what became of them."""

    def __init__(self, options: argparse.Namespace, client: httpx.AsyncClient):
        self._options = options
        self._client = client
        self._random = Random(options.seed)
        self._places = asyncio.Semaphore(options.concurrency)
        self.outcomes: Counter[str] = Counter()
        self.in_usage = 0

    @property
    def num_done(self) -> int:
        return self.outcomes.total()

    async def ask(self) -> None:
        async with self._places:
            self.outcomes[await self._ask()] += 1

    async def _ask(self) -> str:
        draw, leaving = self._random, self._options.leaving
        kind = draw.choices(["stays", "leaves", "rubbish"], [95 - leaving, leaving, 5])[0]
        is_chat, is_stream, prompt = draw.random() < 0.5, draw.random() < 0.7, "x" * draw.randint(1, 40)
        body: dict[str, Any] = {"max_tokens": draw.randint(1, 60), "stream": is_stream, "n": draw.choice([1, 1, 2])}
        body |= {"messages": [{"role": "user", "content": prompt}]} if is_chat else {"prompt": prompt}
        body |= {"stream_options": {"include_usage": True}} if is_stream else {}
        body |= draw.choice(RUBBISH) if kind == "rubbish" else {}
        patience_s = draw.random() * self._options.patience if kind == "leaves" else HANG_S
        try:
            async with asyncio.timeout(patience_s):
                answer = await self._client.post("/v1/chat/completions" if is_chat else "/v1/completions", json=body)
        except TimeoutError:
            return "left" if kind == "leaves" else "hung"
        except httpx.HTTPError as error:
            return f"broke off: {type(error).__name__}"
        if answer.status_code != 200:
            return f"HTTP {answer.status_code}"
        if kind == "rubbish":
            return "rubbish that was answered"
        last = answer.text.split("\n\n")[-3].removeprefix("data: ") if is_stream else answer.text
        if "usage" not in (value := json.loads(last)):
            return f"error in a stream: {value['error']['code']}"
        relay = value["usage"]["relay"]
        if value["usage"]["completion_tokens"] != relay["student_tokens"] + relay["teacher_tokens"]:
            return "usage that does not add up"
        self.in_usage += value["usage"]["completion_tokens"]
        return "answered"


async def storm(options: argparse.Namespace, models: Any, server: psutil.Process, url: str) -> None:
    limits = httpx.Limits(max_connections=options.concurrency)
    async with httpx.AsyncClient(base_url=url, limits=limits, timeout=HANG_S) as client:
        while True:
            with suppress(httpx.HTTPError):
                health = await client.get("/health")
                if health.status_code == 200 and health.headers["X-Relay-State"] == "ready":
                    break
            await asyncio.sleep(0.2)
        requests = Storm(options, client)
        at_start = await models.num_written()  # by the checks of the start

        async def until(num_done: float) -> None:
            while requests.num_done < num_done:
                await asyncio.sleep(0.02)

        async def kill() -> None:
            for number in range(options.kills):
                await until(options.requests * (number + 0.5) / options.kills)
                models.kill_teacher(server)
                await until(options.requests * (number + 0.7) / options.kills)
                models.restart_teacher()
                print(f"the teacher was killed, and starts again after {requests.num_done} requests")

        async def watch_memory() -> None:
            for quarter in range(1, 5):
                await until(options.requests * quarter / 4)
                print(f"{25 * quarter:3} %: {server.memory_info().rss / (1 << 20):.0f} MiB")

        started = time.monotonic()
        watching = [asyncio.create_task(kill()), asyncio.create_task(watch_memory())]
        await asyncio.gather(*(requests.ask() for _ in range(options.requests)))
        took_s = time.monotonic() - started
        await asyncio.gather(*watching)
        page = ""
        while not re.search(r"^relay:requests_running 0\.0$", page, re.MULTILINE):  # those of clients who left end
            await asyncio.sleep(0.1)
            page = (await client.get("/metrics")).text
    in_metrics = sum(float(count) for count in re.findall(r"^relay:tokens_total\{.*\} (.*)$", page, re.MULTILINE))
    failures = re.search(r"^relay:teacher_failures_total (.*)$", page, re.MULTILINE)
    print(f"{options.requests} requests in {took_s:.0f} s:", dict(requests.outcomes.most_common()))
    print(f"calls that failed: {float(failures[1]) if failures else 0:.0f}")
    at_end = await models.num_written()
    in_engines = "not counted" if at_start is None or at_end is None else f"{at_end - at_start}"
    print(f"tokens: {requests.in_usage} in usage, {in_metrics:.0f} in metrics, {in_engines} in engines")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--real", nargs=2, metavar=("STUDENT", "TEACHER"))
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--concurrency", type=int, default=64)
    parser.add_argument("--leaving", type=int, default=30, help="per cent of clients that leave")
    parser.add_argument("--patience", type=float, default=0.5, help="most seconds before such a client leaves")
    parser.add_argument("--kills", type=int, default=2, help="how often the teacher is killed")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, reserve_port() as holder:
        models = RealModels(*options.real) if options.real else ScriptedModels(folder)
        port = str(holder.getsockname()[1])
        words = [sys.executable, "-m", "relay_verl", "serve", "--name", "pair", "--port", port, *models.words]
        process = subprocess.Popen(words)
        try:
            asyncio.run(storm(options, models, psutil.Process(process.pid), f"http://127.0.0.1:{port}"))
        finally:
            process.terminate()
            process.wait()
            models.close()


if __name__ == "__main__":
    main()
