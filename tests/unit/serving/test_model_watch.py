"""A server that is started, watched and started again; the real one is in tests/e2e/test_serve.py."""

import asyncio
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from tenacity import wait_none

from relay_verl.engines.endpoint import EndpointEngine
from relay_verl.errors import EngineError
from relay_verl.serving import model_watch
from relay_verl.serving.health_probe import HealthProbe, ServedModel
from relay_verl.serving.model_watch import EndpointWatch, ProcessWatch
from relay_verl.serving.placement import Placement
from relay_verl.serving.settings import ServerState
from relay_verl.serving.supervisor import Supervisor
from relay_verl.serving.vllm_server import VllmServer, reserve_port
from tests.helpers.fake_vllm import FakeVllm
from tests.helpers.serving import make_app, make_service, running

DEADLINE_S = 60.0
PROGRAM = str(Path(__file__).parents[2] / "helpers" / "fake_vllm_process.py")
KEY = "RELAY_STUDENT_API_KEY"


@dataclass(frozen=True)
class FakeServer(VllmServer):
    behaviour: str = "works"

    def command(self) -> list[str]:
        return [sys.executable, PROGRAM, str(self.port), self.behaviour]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_watch, "LOOK_EVERY_S", 0.05)
    monkeypatch.setattr(model_watch, "BACKOFF", wait_none())
    monkeypatch.setenv(KEY, "secret-key")


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not condition():
            await asyncio.sleep(0.02)


def process_at(port: int) -> psutil.Process | None:
    """The fake server on a port, without its guard."""
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        if words[1:3] == [PROGRAM, str(port)]:
            return process
    return None


def watch_of(folder: Path, behaviour: str = "works") -> tuple[ProcessWatch, int]:
    with reserve_port() as holder:
        port = int(holder.getsockname()[1])
    server = FakeServer("student", "/models/x", port, KEY, Placement(), behaviour=behaviour)
    return ProcessWatch(server, folder / "student.log", 0, DEADLINE_S), port


async def test_a_server_that_is_killed_is_started_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    watch, port = watch_of(tmp_path)
    async with Supervisor(watch, None) as supervisor:
        assert supervisor.state() is ServerState.STARTING
        await supervisor.wait_until_settled()
        assert supervisor.state() is ServerState.READY
        assert watch.model is not None and watch.model.max_model_len == 64
        first = process_at(port)
        assert first is not None
        os.kill(first.pid, signal.SIGKILL)
        await until(lambda: supervisor.state() is ServerState.STUDENT_DOWN)
        await until(lambda: supervisor.state() is ServerState.READY)
    assert supervisor.state() is ServerState.STOPPING
    assert process_at(port) is None
    assert "code 137" in caplog.text
    assert "secret-key" not in caplog.text + watch.log.read_text()


async def test_a_server_that_hangs_is_started_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_watch, "HUNG_S", 0.2)
    monkeypatch.setattr("relay_verl.serving.health_probe.LOOK_TIMEOUT_S", 0.2)
    watch, port = watch_of(tmp_path, "hangs")
    async with Supervisor(watch, None) as supervisor:
        await supervisor.wait_until_settled()
        first = process_at(port)
        await EndpointEngine(watch.probe.base_url, "student", api_key_env=KEY).generate([0], max_tokens=2)
        await until(lambda: supervisor.state() is ServerState.STUDENT_DOWN)
        await until(lambda: supervisor.state() is ServerState.READY)
        assert process_at(port) != first


async def test_a_model_that_never_loads_ends_the_command(tmp_path: Path) -> None:
    watch, _ = watch_of(tmp_path, "fails")
    with pytest.raises(EngineError, match=r"student /models/x .*code 1.*No supported config format.*student\.log"):
        async with Supervisor(watch, None) as supervisor:
            await supervisor.wait_until_settled()


async def test_the_end_in_the_middle_of_a_start_leaves_no_process(tmp_path: Path) -> None:
    watch, port = watch_of(tmp_path)
    async with Supervisor(watch, None):
        await until(lambda: process_at(port))
    assert process_at(port) is None


async def test_a_teacher_at_an_address_may_be_down_and_come_up(tmp_path: Path) -> None:
    student, _ = watch_of(tmp_path)
    with reserve_port() as holder:
        port = int(holder.getsockname()[1])
    probe = HealthProbe(f"http://127.0.0.1:{port}/v1", None, "RELAY_TEACHER_API_KEY")
    teacher = EndpointWatch("teacher", probe, 0, is_needed=False)
    async with Supervisor(student, teacher) as supervisor:
        await supervisor.wait_until_settled()
        assert supervisor.state() is ServerState.TEACHER_DOWN
        fake = FakeVllm(port)
        choice = {"index": 0, "text": "x", "token_ids": [7], "finish_reason": "length"}
        # without /health, as servers of others: its list of models is asked for
        fake.routes["/v1/completions"] = {"id": "1", "object": "text_completion", "choices": [choice]}
        await until(lambda: supervisor.state() is ServerState.READY)
        fake.stop()
        await until(lambda: supervisor.state() is ServerState.TEACHER_DOWN)


async def test_a_restart_that_does_not_answer_is_another_restart(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    watch, port = watch_of(tmp_path)
    read_model = watch.probe.read_model
    num_reads = 0

    async def fails_once(token_id: int) -> ServedModel:
        nonlocal num_reads
        num_reads += 1
        if num_reads == 2:
            raise EngineError("HTTP 500: engine dead")
        return await read_model(token_id)

    watch.probe.read_model = fails_once  # type: ignore[method-assign]
    async with Supervisor(watch, None) as supervisor:
        await supervisor.wait_until_settled()
        first = process_at(port)
        assert first is not None
        first.kill()
        await until(lambda: num_reads == 3 and watch.is_up)
    assert "the student does not answer: HTTP 500: engine dead" in caplog.text


async def test_probes_are_closed_with_their_supervisor(tmp_path: Path) -> None:
    async with running(make_app(make_service(teacher=False))) as url:
        probe = HealthProbe(f"{url}/v1", None, "NO_KEY")
        async with Supervisor(EndpointWatch("student", probe, 5, is_needed=True), None) as supervisor:
            await supervisor.wait_until_settled()
            assert await probe.is_alive()
            http = probe._http
            clients = [probe._client.openai, probe._engine._client.openai]
        assert http.is_closed
        assert all(client.is_closed() for client in clients)
