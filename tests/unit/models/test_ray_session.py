"""How Ray's start fails: a one-line error with its remedy; and what of it is not a failure."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from relay_verl.errors import UserError
from relay_verl.models.ray_session import LONGEST_SOCKET_PATH, RAYS_PART, explain_ray_error, start_ray
from relay_verl.recipes.compose import compose
from relay_verl.run_config import RunConfig

LONG = "/tmp/" + "x" * 132


class _StartedError(Exception):
    """Stands for a Ray that has started."""


@pytest.fixture
def init(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What `ray.init` was called with; the environment at that moment is `environment`."""
    import ray

    calls: list[dict[str, Any]] = []

    def record(**options: Any) -> None:
        calls.append({**options, "environment": dict(os.environ)})
        raise _StartedError

    monkeypatch.setattr(ray, "init", record)
    for name in ("RAY_ADDRESS", "RAY_TMPDIR", "TMPDIR", "VLLM_RPC_BASE_PATH"):
        monkeypatch.delenv(name, raising=False)
    return calls


def one_line(config: Any) -> str:
    with pytest.raises(UserError) as error:
        start_ray(RunConfig(config))
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(
    ("variables", "says"),
    [
        ({"TMPDIR": LONG}, f"TMPDIR={LONG}: 137 bytes; Ray's sockets leave {LONGEST_SOCKET_PATH - RAYS_PART} for its"),
        ({"RAY_TMPDIR": LONG}, f"RAY_TMPDIR={LONG}: 137 bytes; "),
        ({"TMPDIR": "/tmp/" + "ü" * 30}, "TMPDIR=/tmp/üü"),
        ({"RAY_TMPDIR": "/tmp", "TMPDIR": LONG}, f"TMPDIR={LONG}: 137 bytes; vLLM's sockets leave 70 for its folder"),
    ],
    ids=["TMPDIR", "RAY_TMPDIR", "bytes", "vLLM"],
)
def test_sockets_need_a_short_folder(
    variables: dict[str, str], says: str, monkeypatch: pytest.MonkeyPatch, init: list[Any]
) -> None:
    import tempfile

    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(tempfile, "tempdir", variables.get("TMPDIR"))
    line = one_line(compose("relay_tiny"))
    assert line.startswith(says)
    assert line.endswith("TMPDIR to a shorter one, such as /tmp")
    assert not init


def test_the_longest_folder_is_one_that_ray_takes(tmp_path: Path) -> None:
    """Ray's own check of the path, at our bound and one above it."""
    from ray._private.utils import validate_socket_filepath

    rest = "/ray/session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store"
    room = LONGEST_SOCKET_PATH - RAYS_PART
    validate_socket_filepath("/" + "x" * (room - 1) + rest)
    with pytest.raises(OSError, match="AF_UNIX") as error:
        validate_socket_filepath("/" + "x" * room + rest)
    assert explain_ray_error(error.value, None).endswith("set RAY_TMPDIR to a shorter folder, such as /tmp")


def test_a_home_that_cannot_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/proc/nohome")
    with pytest.raises(OSError, match="nohome") as error:
        os.makedirs("/proc/nohome/.ray")
    line = explain_ray_error(error.value, None)
    assert line.startswith("Ray does not start: ")
    assert line.endswith("HOME=/proc/nohome must be a folder that can be written: set HOME to one")
    assert explain_ray_error(OSError(13, "no", "/x"), None).endswith("set RAY_TMPDIR to a folder that can be written")


@pytest.mark.parametrize("error", [OSError("x"), ValueError("x"), RuntimeError("x")])
def test_every_class_of_error_is_a_line(error: Exception, monkeypatch: pytest.MonkeyPatch, init: list[Any]) -> None:
    import ray

    def fails(**_: Any) -> None:
        raise error

    monkeypatch.setattr(ray, "init", fails)
    assert one_line(compose("relay_tiny")).startswith("Ray does not start: x")


def test_a_locale_without_letters() -> None:
    error = UnicodeEncodeError("utf-8", "\udcc3", 0, 1, "surrogates not allowed")
    assert explain_ray_error(error, None).endswith("set PYTHONUTF8=1 and LC_ALL=C.UTF-8")


@pytest.mark.parametrize("devices", ["", "-1", "0", "NoDevFiles"])
def test_no_visible_gpu_is_no_reason_on_cpu(
    devices: str, monkeypatch: pytest.MonkeyPatch, init: list[dict[str, Any]]
) -> None:
    """Ray's own check of the declared GPUs, with the environment that `ray.init` had."""
    from ray._private.resource_and_label_spec import ResourceAndLabelSpec

    def resolve() -> None:
        ResourceAndLabelSpec(num_gpus=2).resolve(is_head=True, node_ip_address="127.0.0.1")

    monkeypatch.setenv("VERL_PLATFORM", "cpu")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", devices)
    with pytest.raises(ValueError, match="CUDA_VISIBLE_DEVICES contains") as error:
        resolve()
    assert "lower ray_kwargs.ray_init.num_gpus" in explain_ray_error(error.value, None)
    with pytest.raises(_StartedError):
        start_ray(RunConfig(compose("relay_tiny")))
    assert os.environ["CUDA_VISIBLE_DEVICES"] == devices, "the driver keeps it"
    (call,) = init
    monkeypatch.setattr(os, "environ", call["environment"])
    resolve()


def test_gpus_stay_visible_where_they_are_used(monkeypatch: pytest.MonkeyPatch, init: list[dict[str, Any]]) -> None:
    monkeypatch.delenv("VERL_PLATFORM", raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    with pytest.raises(_StartedError):
        start_ray(RunConfig(compose("relay_1.7b")))
    assert init[0]["environment"]["CUDA_VISIBLE_DEVICES"] == "0"


@pytest.mark.parametrize("place", ["RAY_ADDRESS", "ray_kwargs.ray_init.address"])
def test_the_client_of_a_cluster_is_refused(
    place: str, monkeypatch: pytest.MonkeyPatch, init: list[dict[str, Any]]
) -> None:
    """Its workers would lack this process's environment: keys, HF_TOKEN, VERL_PLATFORM."""
    words = []
    if place == "RAY_ADDRESS":
        monkeypatch.setenv(place, "ray://127.0.0.1:10001")
    else:
        words = [f"+{place}='ray://127.0.0.1:10001'"]
    with pytest.raises(UserError, match=r"RAY_ADDRESS: ray://127\.0\.0\.1:10001: .*ray job submit") as error:
        start_ray(RunConfig(compose("relay_tiny", words)))
    assert "\n" not in str(error.value)
    assert init == []


def test_a_command_prints_letters_that_the_locale_lacks() -> None:
    """`doctor` marks its lines with signs beyond ASCII, and a path may have such letters."""
    environment = os.environ | {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii"}
    code = "from relay_verl.cli import main as cli; cli.app = lambda: print('\\u2713 \\xfc'); cli.main()"
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "\\u2713 \\xfc\n"), done.stderr
