"""The command line and the environment of a model's server; that vLLM takes them is tests/e2e/test_serve.py's."""

import socket
from pathlib import Path

import pytest

from relay_verl.errors import UserError
from relay_verl.serving.pair_options import read_model
from relay_verl.serving.placement import Placement
from relay_verl.serving.vllm_server import HOST, KEY_VARIABLE, VllmServer, parse_more, reserve_port

VARIABLES = {"RELAY_TEACHER_API_KEY": "the-key", "HOME": "/home/x"}


def server(place: Placement, **options: object) -> VllmServer:
    return VllmServer("teacher", "Qwen/Qwen3-8B", 8101, "RELAY_TEACHER_API_KEY", place, **options)  # type: ignore[arg-type]


def option(command: list[str], name: str) -> str:
    return command[command.index(name) + 1]


@pytest.mark.parametrize("place", [Placement(num_threads=2), Placement(("0", "2"), 0.5)])
def test_a_server_listens_on_loopback_and_says_what_its_cache_held(place: Placement) -> None:
    command = server(place).command()
    assert option(command, "--host") == HOST
    assert option(command, "--served-model-name") == "teacher"
    assert option(command, "--generation-config") == "vllm"
    assert {"--enable-prefix-caching", "--enable-prompt-tokens-details"} <= set(command)
    assert "--trust-remote-code" not in command


def test_the_key_is_in_the_environment_alone() -> None:
    each = server(Placement())
    assert "the-key" not in " ".join(each.command())
    assert each.environment(VARIABLES)[KEY_VARIABLE] == "the-key"


def test_a_model_is_split_over_its_gpus() -> None:
    each = server(Placement(("0", "2"), 0.5), max_model_len=4096, dtype="bfloat16")
    command = each.command()
    assert option(command, "--tensor-parallel-size") == "2"
    assert float(option(command, "--gpu-memory-utilization")) == 0.5
    assert option(command, "--max-model-len") == "4096"
    assert each.environment(VARIABLES)["CUDA_VISIBLE_DEVICES"] == "0,2"


def test_what_the_user_sets_of_vllms_variables_stays() -> None:
    place = Placement(num_threads=2, cache_bytes=1 << 30)
    assert option(server(place).command(), "--kv-cache-memory-bytes") == str(1 << 30)
    assert server(place).environment(VARIABLES)["OMP_NUM_THREADS"] == "2"
    environment = server(place).environment(
        VARIABLES | {"RELAY_ENGINE_THREADS": "5", "VLLM_CPU_OMP_THREADS_BIND": "auto", "CUDA_VISIBLE_DEVICES": ""}
    )
    assert environment["OMP_NUM_THREADS"] == "5"
    assert environment["VLLM_CPU_OMP_THREADS_BIND"] == "auto"


@pytest.mark.parametrize("text", ["--port 1", "--api-key=x", "--api_key x", "--quantization fp8 --host 0.0.0.0", "'"])
def test_arguments_that_are_ours_are_refused(text: str) -> None:
    with pytest.raises(UserError, match="--teacher-args"):
        parse_more("--teacher-args", text)


def test_other_arguments_come_last() -> None:
    more = parse_more("--teacher-args", "--quantization fp8 --hf-overrides '{\"a\": 1}'")
    assert server(Placement(), more=more).command()[-4:] == ["--quantization", "fp8", "--hf-overrides", '{"a": 1}']


def listening(port: int) -> socket.socket:
    """A socket as vLLM's server opens it."""
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((HOST, port))
    listener.listen()
    return listener


def test_a_reserved_port_is_for_its_server_again_and_again(tmp_path: Path) -> None:
    with reserve_port() as holder:
        port = holder.getsockname()[1]
        for _ in range(2):
            with listening(port) as listener, socket.create_connection((HOST, port)):
                listener.accept()[0].close()


def test_a_port_in_use_is_named() -> None:
    with listening(0) as other, pytest.raises(UserError, match=str(other.getsockname()[1])):
        reserve_port(other.getsockname()[1])


def test_a_key_is_what_clients_send_of_it() -> None:
    assert server(Placement()).environment({"RELAY_TEACHER_API_KEY": " the-key\n"})[KEY_VARIABLE] == "the-key"


@pytest.mark.parametrize(
    ("role", "options", "named"),
    [
        ("student", {"max_model_len": 9}, "--max-model-len"),
        ("teacher", {"max_model_len": 9}, "--teacher-max-model-len"),
        ("teacher", {"port": 9}, "--teacher-port"),
    ],
)
def test_what_a_server_that_runs_already_cannot_be_told_is_refused(role: str, options: dict, named: str) -> None:
    with pytest.raises(UserError, match=f"^{named}: "):
        read_model(role, None, "http://127.0.0.1:9/v1", None, **options)
