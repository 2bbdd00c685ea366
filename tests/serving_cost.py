"""Measure what a token costs the process of `relay-verl serve` in CPU time, without a model. Not part of the tests.

    python tests/serving_cost.py engine
    python tests/serving_cost.py url --profile /tmp/serve.prof

`engine` streams from an engine in the server's process: what our own HTTP server costs. `url` streams from an imitation
of vLLM's HTTP server in another process: what asking it costs, too. At each step every running request gets one token,
as from an engine that batches them. Clients read in a process of their own.
"""

import argparse
import asyncio
import cProfile
import gc
import json
import multiprocessing
import re
import socket
import statistics
import sys
import time
from collections.abc import AsyncGenerator
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any

import psutil
from helpers.serving import make_service, tokenizer

from relay_verl.engines import Generation
from relay_verl.engines.deadlines import Pulse
from relay_verl.engines.endpoint import EndpointEngine
from relay_verl.serving.app import create_app
from relay_verl.serving.settings import ServerState, ServeSettings
from relay_verl.serving.web_server import WebServer

TOKENS = [tokenizer().encode(text, add_special_tokens=False)[0] for text in "abcdefgh"]


class Steps:
    """Wakes all who wait at once, every `step_s` seconds."""

    def __init__(self, step_s: float):
        self._step_s = step_s
        self._next: asyncio.Future[None] | None = None

    async def wait(self) -> None:
        if self._next is None or self._next.done():
            loop = asyncio.get_running_loop()
            self._next = loop.create_future()
            loop.call_later(self._step_s, self._next.set_result, None)
        await asyncio.shield(self._next)


class StepEngine:
    """Writes one token of each request at each step."""

    def __init__(self, step_s: float):
        self.pulse = Pulse()
        self._steps = Steps(step_s)

    async def generate(self, prompt_ids: list[int], **_: Any) -> Generation:
        raise NotImplementedError("only streams are measured")

    async def stream(self, prompt_ids: list[int], *, max_tokens: int, **_: Any) -> AsyncGenerator[Generation, None]:
        for count in range(max_tokens):
            await self._steps.wait()
            reason: Any = "length" if count == max_tokens - 1 else None
            yield Generation([TOKENS[count % len(TOKENS)]], None, reason, 0)


async def serve_as_vllm(listener: socket.socket, step_s: float) -> None:
    """The two paths of vLLM's server that a student at an address needs."""
    steps = Steps(step_s)
    model = {"object": "list", "data": [{"id": "m", "object": "model", "max_model_len": 4096}]}

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = next((line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length")), b"")
                body = await reader.readexactly(int(length.partition(b":")[2] or 0))
                if head.startswith(b"GET"):
                    data = json.dumps(model).encode()
                    writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n")
                    writer.write(b"content-length: %d\r\n\r\n%b" % (len(data), data))
                    continue
                writer.write(
                    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
                )
                num_tokens = json.loads(body)["max_tokens"]
                for count in range(num_tokens):
                    await steps.wait()
                    send(writer, event(TOKENS[count % len(TOKENS)], "length" if count == num_tokens - 1 else None))
                usage = {"prompt_tokens": 2, "total_tokens": 2 + num_tokens, "completion_tokens": num_tokens}
                send(writer, {"id": "cmpl-1", "model": "m", "choices": [], "usage": usage})
                send(writer, None)
                writer.write(b"0\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(answer, sock=listener) as server:
        await server.serve_forever()


def event(token_id: int, reason: str | None) -> dict[str, Any]:
    """What vLLM says of one token."""
    head = {"id": "cmpl-f0a1b2c3d4e5f60718293a4b5c6d7e8f", "object": "text_completion", "created": 1790000000}
    choice = {"index": 0, "text": "a", "logprobs": None, "finish_reason": reason, "stop_reason": None}
    ids = {"prompt_token_ids": None, "token_ids": [token_id]}
    return {**head, "model": "m", "choices": [{**choice, **ids}], "usage": None}


def send(writer: asyncio.StreamWriter, value: Any) -> None:
    """One event as one chunk."""
    data = b"data: " + (b"[DONE]" if value is None else json.dumps(value).encode()) + b"\n\n"
    writer.write(b"%x\r\n%b\r\n" % (len(data), data))


def run_model(listener: socket.socket, step_s: float) -> None:
    asyncio.run(serve_as_vllm(listener, step_s))


def run_server(pipe: Connection, listener: socket.socket, url: str | None, step_s: float, profile: str | None) -> None:
    """The measured process: says its CPU time as often as it is asked."""
    settings = ServeSettings()

    async def serve() -> None:
        engine = StepEngine(step_s) if url is None else EndpointEngine(url, "m")
        web = WebServer(
            create_app(make_service(engine, teacher=None), settings, state=lambda: ServerState.READY), settings
        )
        task = asyncio.create_task(web.serve(sockets=[listener]))
        gc.collect()
        gc.freeze()  # as `PairServer` does
        loop = asyncio.get_running_loop()

        def answer() -> None:
            if pipe.recv() == "end":
                web.should_exit = True
            else:
                pipe.send(time.process_time())

        loop.add_reader(pipe.fileno(), answer)
        await task

    web_loop = WebServer(None, settings).config.get_loop_factory()  # type: ignore[arg-type]
    profiler = cProfile.Profile()
    if profile is not None:
        profiler.enable()
    with asyncio.Runner(loop_factory=web_loop) as runner:
        runner.run(serve())
    if profile is not None:
        profiler.disable()
        profiler.dump_stats(profile)


async def read_stream(port: int, num_tokens: int, path: str) -> tuple[float, list[float]]:
    """Seconds to the first event, and between the others."""
    body: dict[str, Any] = {"max_tokens": num_tokens, "stream": True, "stream_options": {"include_usage": True}}
    body |= {"messages": [{"role": "user", "content": "hi"}]} if "chat" in path else {"prompt": "hi"}
    data = json.dumps(body).encode()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    started = last = time.perf_counter()
    writer.write(
        b"POST %b HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\n" % path.encode()
    )
    writer.write(b"Content-Length: %d\r\n\r\n%b" % (len(data), data))
    gaps: list[float] = []
    received = b""
    while chunk := await reader.read(1 << 16):
        now = time.perf_counter()
        received += chunk
        gaps += [(now - last) / max(1, chunk.count(b"data: "))] * chunk.count(b"data: ")
        last = now
    writer.close()
    written = re.search(rb'"completion_tokens": ?(\d+)', received)
    assert written is not None and int(written[1]) == num_tokens, received[-500:]
    return gaps[0] if gaps else last - started, gaps[2:-2]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("engines", choices=["engine", "url"])
    parser.add_argument("--path", default="/v1/completions")
    parser.add_argument("--concurrency", type=int, default=32)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--step", type=float, default=0.02, help="seconds between two tokens of a request")
    parser.add_argument("--profile", help="file that cProfile's numbers of the server are written to")
    options = parser.parse_args()
    spawn = multiprocessing.get_context("spawn")
    listeners = [socket.create_server(("127.0.0.1", 0), backlog=512) for _ in range(2)]
    ports = [each.getsockname()[1] for each in listeners]
    processes = []
    if options.engines == "url":
        processes.append(spawn.Process(target=run_model, args=(listeners[0], options.step), daemon=True))
    url = f"http://127.0.0.1:{ports[0]}/v1" if processes else None
    pipe, far_end = spawn.Pipe()
    arguments = (far_end, listeners[1], url, options.step, options.profile)
    processes.append(spawn.Process(target=run_server, args=arguments, daemon=True))
    for process in processes:
        process.start()

    def cpu_s() -> float:
        pipe.send("cpu")
        return float(pipe.recv())

    async def all_at_once(num_tokens: int) -> list[tuple[float, list[float]]]:
        streams = (read_stream(ports[1], num_tokens, options.path) for _ in range(options.concurrency))
        return await asyncio.gather(*streams)

    asyncio.run(all_at_once(8))  # what the first requests import and compile
    for round_number in range(options.rounds):
        before, started = cpu_s(), time.perf_counter()
        results = asyncio.run(all_at_once(options.tokens))
        used_s, took_s = cpu_s() - before, time.perf_counter() - started
        num_tokens = options.concurrency * options.tokens
        gaps = sorted(gap for _, own in results for gap in own)
        print(
            f"round {round_number + 1}: {1e6 * used_s / num_tokens:.0f} us of CPU a token, "
            f"{num_tokens / took_s:.0f} tokens/s, gap p50 {1e3 * statistics.median(gaps):.1f} ms, "
            f"p99 {1e3 * gaps[int(len(gaps) * 0.99)]:.1f} ms, "
            f"first token {1e3 * statistics.median(first for first, _ in results):.1f} ms"
        )
    before = cpu_s()
    asyncio.run(all_at_once(1))
    print(f"a request of one token: {1e6 * (cpu_s() - before) / options.concurrency:.0f} us of CPU")
    print(f"{psutil.Process(processes[-1].pid).memory_info().rss >> 20} MiB", file=sys.stderr)
    pipe.send("end")
    processes[-1].join(10)


if __name__ == "__main__":
    main()
