"""Whether each logger of `trainer.logger` opens, as `verl.utils.tracking.Tracking` opens it once the engines are up.

Invariant: nothing stays behind. A folder that a logger would make is made, written to, and removed; a log that is there
is neither emptied nor changed; no run appears on a server. A server is asked once whether it answers.
"""

from __future__ import annotations

import importlib
import os
import tempfile
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from relay_verl.errors import UserError, as_user_error, first_line
from relay_verl.run_config import VerlConfig
from relay_verl.versions import is_installed

MODULES = {"vemlp_wandb": "volcengine_ml_platform", "tracking": "wandb", "console": "", "file": ""}
"""What a logger of verl's imports, where that is not called like the logger."""
SERVER_DEADLINE_S = 8.0
"""Seconds that a logger's server has to answer."""
WANDB_OFFLINE = ("offline", "dryrun", "disabled")
"""Values of WANDB_MODE with which W&B needs neither a key nor its server."""
NEEDED_VARIABLES: Mapping[str, tuple[str, ...]] = {
    "vemlp_wandb": ("VOLC_ACCESS_KEY_ID", "VOLC_SECRET_ACCESS_KEY", "MLP_TRACKING_REGION"),
}
"""Environment variables that verl reads without a default."""


def check_loggers(config: VerlConfig) -> str:
    """What `trainer.logger` names exists in verl, is installed, and opens.

    Raises:
        UserError: one does not; names it, and what to set.
    """
    from verl.utils.tracking import Tracking

    # of the processes that torchrun starts for verl's SFT trainer the first one logs
    if os.environ.get("RANK", "0") != "0":
        return "opened by the first process"
    named = OmegaConf.select(config, "trainer.logger", default=[])
    if named is None:
        raise UserError("trainer.logger=null: verl reads a list: write trainer.logger=[console], or [] for none")
    loggers = [named] if isinstance(named, str) else list(named)
    for name in loggers:
        if name not in (*Tracking.supported_backend, "tracking"):
            raise UserError(f"trainer.logger: {name!r}: allowed: {', '.join(Tracking.supported_backend)}")
        module = MODULES.get(name, name)
        if module and not is_installed(module):
            raise UserError(
                f"trainer.logger: {name!r} needs the package {module}: pip install {module.replace('_', '-')}, or "
                "leave it out of trainer.logger"
            )
        if missing := [variable for variable in NEEDED_VARIABLES.get(name, ()) if not os.environ.get(variable)]:
            raise UserError(f"trainer.logger: {name!r} reads {', '.join(missing)} from the environment: set it")
        if name in OPENED:
            OPENED[name](config)
    return ", ".join(loggers) or "none"


def _open_tensorboard(config: VerlConfig) -> None:
    """The writer imports, and the folder of the event files can be made and written to."""
    with as_user_error(
        Exception,  # such as protobuf's, of another version than TensorBoard was built with
        lambda error: (
            f"trainer.logger: 'tensorboard' does not import: {type(error).__name__}: {first_line(error)}; "
            "pip install a tensorboard that does, or leave it out of trainer.logger"
        ),
    ):
        importlib.import_module("torch.utils.tensorboard")
    given = os.environ.get("TENSORBOARD_DIR")
    folder = given or f"tensorboard_log/{config.trainer.project_name}/{config.trainer.experiment_name}"
    fix = "set TENSORBOARD_DIR to a folder that can, or leave tensorboard out of trainer.logger"
    with _writing("tensorboard", f"TENSORBOARD_DIR={folder}", fix):
        try_folder(Path(folder))


def _open_file(config: VerlConfig) -> None:
    """verl's metrics file can be opened; verl makes its folder only where VERL_FILE_LOGGER_PATH does not name it."""
    given = os.environ.get("VERL_FILE_LOGGER_PATH")
    if given is not None:
        key, path = f"VERL_FILE_LOGGER_PATH={given}", Path(given)
    else:
        root = os.environ.get("VERL_FILE_LOGGER_ROOT", ".")
        key = f"VERL_FILE_LOGGER_ROOT={root}"
        path = Path(root).expanduser() / config.trainer.project_name / f"{config.trainer.experiment_name}.jsonl"
    fix = "name a file in a folder that is there, or leave file out of trainer.logger"
    with _writing("file", f"{key}: {path}", fix):
        if given is None:
            try_folder(path.parent)
        if given is not None or path.exists():
            _try_file(path)


def _open_wandb(config: VerlConfig) -> None:
    """W&B has a key that its server takes; where no server is to be asked, neither is needed."""
    import wandb

    settings = wandb.setup().settings
    if os.environ.get("WANDB_MODE", settings.mode) in WANDB_OFFLINE:
        return
    fix = "set WANDB_MODE=offline to keep the log on this machine"
    if not _wandb_has_key():
        raise UserError(
            f"trainer.logger: 'wandb' has no key for {settings.base_url}: set WANDB_API_KEY, run `wandb login`, "
            f"or {fix}"
        )
    # verl's own key for a proxy; with one, W&B alone knows how to reach its server
    if OmegaConf.select(config, "trainer.wandb_proxy"):
        return
    _ask_server("wandb", str(settings.base_url), fix)
    with as_user_error(
        Exception,  # wandb.errors has changed its classes from version to version
        lambda error: (
            f"trainer.logger: 'wandb': {settings.base_url} refuses the key ({type(error).__name__}): set "
            f"another WANDB_API_KEY, or {fix}"
        ),
    ):
        wandb.login()


def _wandb_has_key() -> bool:
    """Whether W&B finds a key, without asking for one on the terminal."""
    import wandb

    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    try:
        return bool(wandb.login(prompt=False, verify=False))
    except TypeError:  # W&B before `prompt`; remove this when the extra asks for 0.31
        return bool(wandb.api.api_key)


def _open_mlflow(_: Any) -> None:
    """MLflow's store can be reached: verl tries three times, and then trains without it."""
    address = os.environ.get("MLFLOW_TRACKING_URI", "sqlite:////tmp/mlruns.db")
    fix = "set MLFLOW_TRACKING_URI to a store that does, or leave mlflow out of trainer.logger"
    if address.startswith(("http://", "https://")):
        _ask_server("mlflow", address, fix)
        return
    if address.startswith("sqlite:///"):
        folder = Path(address.removeprefix("sqlite:///")).parent
    elif address.startswith("file:") or "://" not in address:
        folder = Path(address.removeprefix("file://").removeprefix("file:"))
    else:
        return
    with _writing("mlflow", f"MLFLOW_TRACKING_URI={address}", fix):
        try_folder(folder)


def _open_swanlab(_: Any) -> None:
    """SwanLab has a key where it is to write to its cloud."""
    home = Path(os.environ.get("SWANLAB_SAVE_DIR", "~/.swanlab")).expanduser()
    is_local = os.environ.get("SWANLAB_MODE", "cloud") in ("local", "offline", "disabled")
    if not is_local and not os.environ.get("SWANLAB_API_KEY") and not (home / ".netrc").is_file():
        raise UserError(
            "trainer.logger: 'swanlab' has no key for its cloud: set SWANLAB_API_KEY, run `swanlab login`, or set "
            "SWANLAB_MODE=local"
        )


OPENED: Mapping[str, Callable[[Any], None]] = {
    "tensorboard": _open_tensorboard,
    "file": _open_file,
    "wandb": _open_wandb,
    "tracking": _open_wandb,
    "mlflow": _open_mlflow,
    "swanlab": _open_swanlab,
}
"""How each logger that can fail is tried."""


def _ask_server(name: str, address: str, fix: str) -> None:
    """Any HTTP answer will do: what this finds is a machine without a way to the server."""
    import httpx

    with as_user_error(
        (httpx.HTTPError, httpx.InvalidURL, ValueError),
        lambda error: (
            f"trainer.logger: {name!r}: {address} does not answer ({type(error).__name__}: {error}): "
            f"connect this machine, {fix}"
        ),
    ):
        httpx.get(address, timeout=SERVER_DEADLINE_S)


def _writing(name: str, place: str, fix: str) -> AbstractContextManager[None]:
    """A block that writes where a logger will: an OSError in it becomes a UserError that says how to fix it."""
    return as_user_error(
        OSError,
        lambda error: f"trainer.logger: {name!r}: {place} cannot be written: {error.strerror or error}: {fix}",
    )


def try_folder(folder: Path) -> None:
    """Make a folder, write a file in it, and remove what was made.

    Raises:
        OSError: one of these fails.
    """
    folder = folder.absolute()
    new = [each for each in (folder, *folder.parents) if not each.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"x")
    finally:
        for each in new:  # the innermost first
            with suppress(OSError):  # another process may have put something there
                each.rmdir()


def _try_file(path: Path) -> None:
    """Open a file to write at its end; one that was not there is removed.

    Raises:
        OSError: it cannot be opened.
    """
    is_new = not path.exists()
    with open(path, "ab"):
        pass
    if is_new:
        path.unlink()
