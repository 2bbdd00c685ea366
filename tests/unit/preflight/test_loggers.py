"""Each logger is opened before a training, and leaves nothing behind."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from relay_verl.errors import UserError
from relay_verl.preflight import loggers
from relay_verl.preflight.loggers import check_loggers

VARIABLES = (
    *("TENSORBOARD_DIR", "VERL_FILE_LOGGER_PATH", "VERL_FILE_LOGGER_ROOT", "WANDB_API_KEY", "WANDB_MODE"),
    *("WANDB_BASE_URL", "WANDB_IDENTITY_TOKEN_FILE", "MLFLOW_TRACKING_URI", "SWANLAB_API_KEY", "SWANLAB_MODE"),
    "VOLC_ACCESS_KEY_ID",
)


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty working directory and home, and no variable that a logger reads."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "work").mkdir()
    (tmp_path / "home").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path / "work")


def config(*names: str, **trainer: Any) -> Any:
    node = {"logger": list(names), "project_name": "relay", "experiment_name": "tiny", **trainer}
    return OmegaConf.create({"trainer": node})


def one_line(*names: str, **trainer: Any) -> str:
    with pytest.raises(UserError) as error:
        check_loggers(config(*names, **trainer))
    line = str(error.value)
    assert "\n" not in line
    assert line.startswith("trainer.logger: ")
    return line


def everything(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_loggers_that_open_leave_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = everything(tmp_path)
    check_loggers(config("console", "tensorboard", "file"))
    monkeypatch.setenv("TENSORBOARD_DIR", str(tmp_path / "new" / "deep"))
    monkeypatch.setenv("VERL_FILE_LOGGER_PATH", str(tmp_path / "metrics.jsonl"))
    check_loggers(config("tensorboard", "file"))
    assert everything(tmp_path) == before


def test_a_log_that_is_there_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = tmp_path / "metrics.jsonl"
    log.write_text(json.dumps({"step": 1}))
    monkeypatch.setenv("VERL_FILE_LOGGER_PATH", str(log))
    check_loggers(config("file"))
    assert log.read_text() == json.dumps({"step": 1})


@pytest.mark.parametrize("name", ["/proc/nohome/tb", "{file}/tb"], ids=["no such place", "below a file"])
def test_a_tensorboard_folder_that_cannot_be_made(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a_file").touch()
    folder = name.format(file=tmp_path / "a_file")
    monkeypatch.setenv("TENSORBOARD_DIR", folder)
    line = one_line("console", "tensorboard")
    assert f"TENSORBOARD_DIR={folder}" in line


def test_a_metrics_file_that_cannot_be_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """verl makes no folder for the file that VERL_FILE_LOGGER_PATH names."""
    for path in (tmp_path / "no" / "such" / "metrics.jsonl", tmp_path / "work"):
        monkeypatch.setenv("VERL_FILE_LOGGER_PATH", str(path))
        line = one_line("file")
        assert f"VERL_FILE_LOGGER_PATH={path}" in line
    monkeypatch.delenv("VERL_FILE_LOGGER_PATH")
    monkeypatch.setenv("VERL_FILE_LOGGER_ROOT", "/proc/nohome")
    assert "VERL_FILE_LOGGER_ROOT=/proc/nohome" in one_line("file")


def test_a_tensorboard_that_does_not_import(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    assert "does not import" in one_line("tensorboard")


def test_only_the_first_process_of_a_warm_up_opens_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """The others would remove the folder that it tries."""
    monkeypatch.setenv("TENSORBOARD_DIR", "/proc/nohome/tb")
    one_line("tensorboard")
    monkeypatch.setenv("RANK", "1")
    check_loggers(config("tensorboard"))


WANDB = """
class settings:
    mode, base_url = "online", "{url}"
class _Setup:
    settings = settings
def setup(): return _Setup
def login(prompt=True, verify=True):
    if not verify: return {has_key}
    if not {takes_key}: raise RuntimeError("401")
    return True
"""


def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, text: str) -> None:
    """A package of that name; the real ones are not dependencies."""
    (tmp_path / "packages").mkdir(exist_ok=True)
    (tmp_path / "packages" / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path / "packages")
    monkeypatch.setitem(sys.modules, name, None)  # so that the package is not left there for other tests
    del sys.modules[name]


def test_wandb_needs_a_key_that_its_server_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fake_vllm: Any
) -> None:
    def check(url: str, *, has_key: bool = False, takes_key: bool = True) -> Any:
        install(tmp_path, monkeypatch, "wandb", WANDB.format(url=url, has_key=has_key, takes_key=takes_key))
        return lambda: one_line("wandb")

    url = fake_vllm.url
    line = check(url)()
    assert url in line
    for fix in ("WANDB_API_KEY", "wandb login", "WANDB_MODE=offline"):
        assert fix in line
    check(url, has_key=True)
    check_loggers(config("wandb"))
    assert "refuses the key" in check(url, has_key=True, takes_key=False)()
    assert "does not answer" in check("http://127.0.0.1:9", has_key=True)()
    for mode in loggers.WANDB_OFFLINE:
        monkeypatch.setenv("WANDB_MODE", mode)
        check_loggers(config("wandb"))


def test_mlflow_without_its_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fake_vllm: Any) -> None:
    """verl continues without it after three tries."""
    install(tmp_path, monkeypatch, "mlflow", "")
    for address in ("http://127.0.0.1:9", "sqlite:////proc/nohome/runs.db", "file:/proc/nohome/runs"):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
        assert address in one_line("mlflow")
    for address in (fake_vllm.url, f"sqlite:///{tmp_path}/runs.db", str(tmp_path / "runs")):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
        check_loggers(config("mlflow"))


def test_loggers_that_read_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, monkeypatch, "swanlab", "")
    install(tmp_path, monkeypatch, "volcengine_ml_platform", "")
    assert "SWANLAB_API_KEY" in one_line("swanlab")
    monkeypatch.setenv("SWANLAB_MODE", "local")
    check_loggers(config("swanlab"))
    assert "VOLC_ACCESS_KEY_ID, VOLC_SECRET_ACCESS_KEY, MLP_TRACKING_REGION" in one_line("vemlp_wandb")
