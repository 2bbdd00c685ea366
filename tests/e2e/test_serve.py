"""`relay-verl serve` over two real vLLM servers, whose models' tokens are known (`tests/helpers/chain_models.py`)."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import psutil
import pytest

from relay_verl.serving.vllm_server import reserve_port
from tests.helpers.chain_models import MAX_MODEL_LEN, save_pair

pytestmark = pytest.mark.e2e

WAIT_S = 240.0
TEACHER_SCRIPT = Path(__file__).parents[2] / "examples" / "serving" / "teacher.sh"
KEY = "sk-client-key"
LONG = 400
"""Tokens of a response that is still written when a signal comes."""


class Served:
    """A running `relay-verl serve`."""

    def __init__(self, folder: Path, *words: str):
        self.folder = folder
        folder.mkdir(exist_ok=True)
        self.errors = folder / "stderr"
        command = [sys.executable, "-m", "relay_verl", "serve", *words, "--port", "0", "--logs", str(folder)]
        environment = os.environ | {"RELAY_SERVE_API_KEY": KEY, "HF_HUB_OFFLINE": "1"}
        with self.errors.open("wb") as errors:
            self.process = subprocess.Popen(
                [*command, "--kv-cache-gb", "0.25"],
                stdout=subprocess.PIPE,
                stderr=errors,
                env=environment,
                cwd=folder,
                start_new_session=True,
                text=True,
            )

    def wait_until_ready(self) -> None:
        assert self.process.stdout
        line = self.process.stdout.readline()  # nothing else is printed
        match = re.search(r"(\S+) is served at (http://\S+)/v1", line)
        assert match, f"{line!r}\n{self.errors.read_text()}"
        self.name, self.url = match.groups()

    @property
    def client(self) -> openai.OpenAI:
        return openai.OpenAI(base_url=f"{self.url}/v1", api_key=KEY, max_retries=0, timeout=WAIT_S)

    def health(self) -> tuple[int, str]:
        try:
            answer = httpx.get(f"{self.url}/health", timeout=WAIT_S)
        except httpx.HTTPError as error:
            return 0, type(error).__name__
        return answer.status_code, answer.headers["X-Relay-State"]

    def complete(self, prompt: str, **options: Any) -> Any:
        return self.client.completions.create(model=self.name, prompt=prompt, temperature=0.0, **options)

    def processes(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)

    def engine_of(self, role: str) -> psutil.Process:
        """The process with the engine of a model's server: a child of the one that was told its role."""
        for process in self.processes():
            if role in process.cmdline() and "api_server" in " ".join(process.cmdline()[:4]):
                return max(process.children(recursive=True), key=lambda child: child.memory_info().rss)
        raise AssertionError(role)


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def on_cpu() -> dict[str, str]:
    """The environment of vLLM's own command on CPU, where `python` is this one."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return os.environ | {"PATH": path, "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind"}


def end_tree(process: subprocess.Popen[bytes]) -> None:
    """Kill a process and what it started."""
    if process.poll() is not None:
        return
    for each in [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]:
        each.kill()
    process.wait()


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return save_pair(tmp_path_factory.mktemp("chain"))


@pytest.fixture(scope="module")
def served(models: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    student, teacher = models
    server = Served(
        tmp_path_factory.mktemp("serve"), str(student), "--teacher", str(teacher), "--shutdown-timeout", "100"
    )
    try:
        server.wait_until_ready()
        yield server
    finally:
        server.process.kill()
        server.process.wait()


def test_a_chat_streams_with_both_authors(served: Served) -> None:
    assert served.health() == (200, "ready")
    stream = served.client.chat.completions.create(
        model=served.name,
        messages=[{"role": "user", "content": "x"}],
        max_completion_tokens=20,
        temperature=0.0,
        stream=True,
        stream_options={"include_usage": True},
    )
    text = {"student": "", "teacher": ""}
    usage: Any = None
    for chunk in stream:
        for choice in chunk.choices:
            source = (getattr(choice.delta, "relay", None) or {}).get("source", "student")
            text[source] += choice.delta.content or ""
        usage = chunk.usage or usage
    assert text == {"student": "az", "teacher": "ttt"}  # the student wrote a<call>3</call>, then z behind the teacher's
    relay = usage.relay
    assert (relay["num_calls"], relay["requested_tokens"], relay["delivered_tokens"]) == (1, 3, 3)
    assert (relay["teacher_tokens"], relay["num_failed_calls"]) == (3, 0)
    model = next(iter(served.client.models.list()))
    assert model.model_dump()["max_model_len"] == MAX_MODEL_LEN


def test_no_key_is_in_a_log_or_a_command_line(served: Served) -> None:
    secrets = {KEY}
    for process in served.processes():
        secrets |= {value for name, value in process.environ().items() if name in ("VLLM_API_KEY",)}
    assert len(secrets) == 3
    shown = [path.read_text(errors="replace") for path in served.folder.iterdir() if path.is_file()]
    shown += [" ".join(process.cmdline()) for process in served.processes()]
    assert not [secret for secret in secrets if secret in "\n".join(shown)]
    with pytest.raises(openai.AuthenticationError):
        served.client.with_options(api_key="wrong").models.list()


def test_models_whose_engines_die_are_started_again(served: Served) -> None:
    first = {role: served.engine_of(role).pid for role in ("student", "teacher")}
    for pid in first.values():
        os.kill(pid, signal.SIGKILL)
    until(lambda: served.health() == (503, "student_down"))
    with pytest.raises(openai.APIStatusError) as refused:
        served.complete("x", max_tokens=20)
    assert refused.value.status_code == 503
    assert "Retry-After" in refused.value.response.headers
    until(lambda: served.health() == (200, "ready"))
    assert all(served.engine_of(role).pid != pid for role, pid in first.items())
    assert served.complete("x", max_tokens=20).choices[0].text == "atttz"


def test_a_running_request_ends_before_the_server_does(served: Served) -> None:
    """Last of this server: a stop in the middle of a stream, which comes to its end; then everything has ended."""
    processes = served.processes()
    texts = []
    for chunk in served.complete("l", max_tokens=LONG, stream=True):
        texts.append(chunk.choices[0].text)
        if len(texts) == 2:
            os.kill(served.process.pid, signal.SIGTERM)
    assert "".join(texts) == "l" * LONG
    assert chunk.choices[0].finish_reason == "length"
    assert served.process.wait(WAIT_S) == 0
    _, alive = psutil.wait_procs(processes, WAIT_S)
    assert not alive


def test_two_students_share_a_teacher_of_another_machine(
    models: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All start at the same time. Then a command is killed, and nothing that it started is left; then the teacher."""
    student, teacher = map(str, models)
    monkeypatch.setenv("RELAY_TEACHER_API_KEY", "sk-shared-teacher")
    with reserve_port() as holder, (tmp_path / "teacher.log").open("wb") as log:
        port = str(holder.getsockname()[1])
        alone = subprocess.Popen(
            ["bash", str(TEACHER_SCRIPT), teacher, "--port", port, "--enforce-eager"],
            env=on_cpu(),
            stdout=log,
            stderr=log,
        )
        first, second = (
            Served(tmp_path / name, student, "--teacher-url", f"http://127.0.0.1:{port}/v1", "--name", name)
            for name in ("first", "second")
        )
        try:
            for served in (first, second):
                served.wait_until_ready()
                until(lambda served=served: served.health() == (200, "ready"))
                assert served.complete("x", max_tokens=20).choices[0].text == "atttz"
            processes = second.processes()
            os.kill(second.process.pid, signal.SIGKILL)
            _, alive = psutil.wait_procs(processes, WAIT_S)
            assert not alive
            end_tree(alone)
            until(lambda: first.health() == (200, "teacher_down"))
            assert first.complete("x", max_tokens=20).usage.relay["num_failed_calls"] >= 1
        finally:
            end_tree(alone)
            first.process.kill()
            second.process.kill()


def test_a_model_that_vllm_cannot_load_is_one_line(models: tuple[Path, Path], tmp_path: Path) -> None:
    student = tmp_path / "student"
    student.mkdir()
    for file in models[0].iterdir():
        (student / file.name).write_bytes(file.read_bytes())
    config = json.loads((student / "config.json").read_text())
    (student / "config.json").write_text(json.dumps(config | {"architectures": ["NoSuchModel"], "model_type": "qwen3"}))
    broken = Served(tmp_path / "broken", str(student))
    assert broken.process.wait(WAIT_S) == 1
    last = broken.errors.read_text().strip().splitlines()[-1]
    assert last.startswith("relay-verl: the student ")
    assert "NoSuchModel" in last
    assert "student.log" in last
