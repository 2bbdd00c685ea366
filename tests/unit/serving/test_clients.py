"""Clients over a real HTTP server: they leave, they read slowly, they storm."""

import asyncio
import gc
import json
import socket
from random import Random
from typing import Any

import httpx
import psutil
import pytest

from relay_verl.serving.app import answer_error
from relay_verl.serving.client_watch import ClientWatch
from relay_verl.serving.event_stream import EventStream
from relay_verl.serving.service import RelayService
from relay_verl.serving.settings import ServeSettings
from relay_verl.serving.unread_watch import UnreadWatch
from tests.helpers.serving import RuleEngine, asks_once, events_of, make_app, make_service, running, text_of

TEXT = {"prompt": "hi", "max_tokens": 2000}
JSON = {"Content-Type": "application/json"}


def engines(service: RelayService) -> tuple[RuleEngine, RuleEngine]:
    """The two engines of a service of this module."""
    student, teacher = service._decoder.student, service._decoder.teacher
    assert isinstance(student, RuleEngine) and isinstance(teacher, RuleEngine)
    return student, teacher


async def until(condition: Any) -> None:
    """Wait for what has to come."""
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.005)


@pytest.mark.parametrize("is_stream", [True, False])
@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize("writer", ["student", "teacher"])
async def test_a_client_that_leaves_ends_the_engines_requests(is_stream: bool, n: int, writer: str) -> None:
    slow = RuleEngine(lambda _: "x" * 1000, piece=1, delay_s=0.01)
    service = make_service(slow) if writer == "student" else make_service(teacher=slow)
    body = {**TEXT, "stream": is_stream, "n": n, "model": "pair:fixed-900" if writer == "teacher" else "pair"}
    async with running(make_app(service)) as url, httpx.AsyncClient(base_url=url) as client:
        asking = asyncio.create_task(client.post("/v1/completions", json=body))
        await until(lambda: slow.num_running == n)
        asking.cancel()
        await until(lambda: slow.num_running == 0)
        await until(lambda: service._admission.num_running == 0)
    assert slow.num_written < 1000
    page = service.metrics.page().decode()
    assert f'relay:request_success_total{{finished_reason="abort"}} {n}.0' in page


async def test_a_request_that_takes_too_long_ends() -> None:
    slow = RuleEngine(lambda _: "x" * 1000, piece=1, delay_s=0.01)
    app = make_app(make_service(slow), request_timeout_s=0.2)
    async with running(app) as url, httpx.AsyncClient(base_url=url) as client:
        whole = await client.post("/v1/completions", json=TEXT)
        assert (whole.status_code, whole.json()["error"]["code"]) == (504, "timeout")
        streamed = await client.post("/v1/completions", json={**TEXT, "stream": True})
        *_, error, done = events_of(streamed.text)
        assert (streamed.status_code, done) == (200, "[DONE]")
        assert json.loads(error)["error"]["code"] == "timeout"
    assert slow.num_running == 0


@pytest.mark.parametrize("is_stream", [True, False])
async def test_a_client_that_does_not_read_keeps_nothing(is_stream: bool) -> None:
    """Neither its engines' requests nor its socket, whether it leaves a stream or a whole answer unread."""
    endless = RuleEngine(lambda _: "x" * 100_000, piece=500)
    service = make_service(endless, max_model_len=10**6)
    body = {"prompt": "hi", "max_tokens": 10**5, "stream": is_stream, "n": 8, "return_token_ids": True}
    data = json.dumps(body).encode()
    head = f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(data)}"
    settings = ServeSettings(write_timeout_s=0.3, shutdown_timeout_s=600)
    async with running(make_app(service, write_timeout_s=0.3), settings=settings) as url:
        with socket.socket() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)  # so that what is sent waits at the server
            client.connect(("127.0.0.1", int(url.rpartition(":")[2])))
            client.sendall(f"{head}\r\n\r\n".encode() + data)
            await until(lambda: service._admission.num_running == 8)
            await until(lambda: service._admission.num_running == 0)
            port = client.getsockname()[1]
            await until(lambda: port not in far_ports())
    assert endless.num_running == 0
    reason = "abort" if is_stream else "length"
    assert f'relay:request_success_total{{finished_reason="{reason}"}}' in service.metrics.page().decode()


def far_ports() -> set[int]:
    """Ports of the clients of this process's sockets."""
    return {each.raddr.port for each in psutil.Process().net_connections("tcp4") if each.raddr and each.fd >= 0}


@pytest.mark.parametrize(("num_requests", "leaving"), [(1000, 30), (300, 0)])
async def test_a_storm(num_requests: int, leaving: int) -> None:
    """Requests at concurrency 64: clients leave at random, some send rubbish, the teacher dies twice.

    Nothing hangs, nothing is a 500, and what usage, metrics and engines count adds up. Tokens on their way to a client
    who leaves are the engine's and in no count.
    """
    rng = Random(0)
    student = RuleEngine(lambda ids: asks_once(ids) if len(ids) % 3 else "<call>2</call>" + "é" * 20, delay_s=0.001)
    teacher = RuleEngine(lambda ids: text_of(ids)[-3:] + "abcdefgh", piece=1, delay_s=0.001)
    service = make_service(student, teacher, max_concurrency=48, max_queue=1024)
    num_done, places = 0, asyncio.Semaphore(64)
    seen: list[dict[str, Any]] = []

    async def ask(client: httpx.AsyncClient) -> str:
        nonlocal num_done
        kind = rng.choices(["stays", "leaves", "rubbish"], [95 - leaving, leaving, 5])[0]
        is_chat, is_stream = rng.random() < 0.5, rng.random() < 0.7
        prompt = "x" * rng.randint(1, 40)
        body: dict[str, Any] = {"max_tokens": rng.randint(1, 60), "stream": is_stream, "n": rng.choice([1, 1, 2])}
        body |= {"messages": [{"role": "user", "content": prompt}]} if is_chat else {"prompt": prompt}
        body |= {"stream_options": {"include_usage": True}} if is_stream else {}
        if kind == "rubbish":
            body |= rng.choice([{"n": -1}, {"tools": [1]}, {"model": "pear"}, {"relay": {"max_calls": -1}}])
        path = "/v1/chat/completions" if is_chat else "/v1/completions"
        patience_s = rng.random() * 0.03 if kind == "leaves" else 60
        async with places:
            try:
                async with asyncio.timeout(patience_s):
                    response = await client.post(path, json=body)
            except TimeoutError:
                assert kind == "leaves"
                return "left"
            finally:
                num_done += 1
        if response.status_code == 200:
            last = events_of(response.text)[-2] if is_stream else response.text
            seen.append(json.loads(last)["usage"])
        else:
            assert kind == "rubbish", response.text
            assert response.status_code in (400, 404)
        return kind

    async def kill_the_teacher() -> None:
        for count in (num_requests // 5, num_requests * 3 // 5):
            await until(lambda count=count: num_done >= count)
            teacher.is_dead = True
            await until(lambda count=count: num_done >= count + num_requests // 10)
            teacher.is_dead = False

    limits = httpx.Limits(max_connections=64)
    app = make_app(service)
    async with running(app) as url, httpx.AsyncClient(base_url=url, limits=limits, timeout=60) as client:
        killing = asyncio.create_task(kill_the_teacher())
        outcomes = await asyncio.gather(*(ask(client) for _ in range(num_requests)))
        await killing
        await until(lambda: student.num_running == teacher.num_running == 0)
        await until(lambda: service._admission.num_running == service._admission.num_waiting == 0)
        page = (await client.get("/metrics")).text
    assert (outcomes.count("left") > 0) is (leaving > 0)
    assert outcomes.count("rubbish") > 0
    metrics = dict(line.rsplit(" ", 1) for line in page.splitlines() if not line.startswith("#"))
    assert float(metrics["relay:teacher_failures_total"]) > 0
    assert not any('code="internal_error"' in name for name in metrics)
    for engine, source in ((student, "student"), (teacher, "teacher")):
        in_usage = sum(usage["relay"][f"{source}_tokens"] for usage in seen)
        in_metrics = float(metrics[f'relay:tokens_total{{source="{source}"}}'])
        assert in_usage <= in_metrics <= engine.num_written
        if not leaving:
            assert in_usage == in_metrics == engine.num_written
    for usage in seen:
        relay = usage["relay"]
        assert usage["completion_tokens"] == relay["student_tokens"] + relay["teacher_tokens"]
    gc.collect()
    tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    assert tasks == [], "a task of a request is left"


async def test_a_client_that_leaves_at_the_end_cancels_nothing_behind_it() -> None:
    gone = asyncio.Event()

    async def receive() -> Any:
        await gone.wait()
        return {"type": "http.disconnect"}

    async with ClientWatch(receive, 60, 60).while_client_waits():
        await asyncio.sleep(0)
        gone.set()
        await asyncio.sleep(0)  # the watch has seen it now, and has not said so yet
    await asyncio.sleep(0.01)


async def test_a_client_that_does_not_read_the_end_is_left() -> None:
    async def events() -> Any:
        yield b"data: 1\n\n"

    async def receive() -> Any:
        await asyncio.Event().wait()

    async def send(message: Any) -> None:
        if not message.get("more_body", True):
            await asyncio.Event().wait()

    stream = EventStream(events(), lambda receive: ClientWatch(receive, 60, 0.05), answer_error, lambda _: None)
    async with asyncio.timeout(60):
        await stream({"type": "http"}, receive, send)


class Unsent:
    """A connection with bytes that wait."""

    def __init__(self) -> None:
        self.size = 0
        self.is_aborted = False

    def get_write_buffer_size(self) -> int:
        return self.size

    def abort(self) -> None:
        self.is_aborted = True


def test_only_a_client_that_reads_nothing_is_cut_off() -> None:
    watch = UnreadWatch(10.0)
    idle, slow, stuck = transports = [Unsent(), Unsent(), Unsent()]
    for second in range(30):
        slow.size, stuck.size = 1000 - second, 1000
        watch.look(transports, float(second))  # type: ignore[arg-type]
        assert stuck.is_aborted is (second >= 10)
        transports = [each for each in transports if not each.is_aborted]
    assert not idle.is_aborted
    assert not slow.is_aborted
