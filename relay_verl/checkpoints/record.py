"""What a run is, and what a checkpoint of it is, as JSON next to verl's files.

Two files: `relay_run.json` in the run's folder (`trainer.default_local_dir`), written before the first checkpoint, and
`relay_checkpoint.json` in each `global_step_N` folder, written once that is whole, so that a checkpoint that was moved
still says what it is. Neither holds a secret: values whose key names one are left out.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf, open_dict
from pydantic import TypeAdapter

from relay_verl.errors import as_user_error
from relay_verl.files import reading, replace_file, sha256_of
from relay_verl.models.address import model_identity
from relay_verl.recipes.grammar import words_of_the_job
from relay_verl.recipes.recipe import flat
from relay_verl.run_config import VerlConfig
from relay_verl.secrets import hide, hide_override, secrets_in
from relay_verl.versions import versions

RUN_FILE = "relay_run.json"
CHECKPOINT_FILE = "relay_checkpoint.json"
_MODEL = re.compile(r"actor_rollout_ref\.model\.(path|lora_adapter_path)|relay\.(.+\.)?path")


@dataclass(frozen=True)
class RunRecord:
    """What decides on a run's weights."""

    recipe: str | None
    """Name of the recipe; None where Hydra composed the config without one."""
    overrides: list[str]
    """The command line's overrides."""
    config: dict[str, Any]
    """The composed config, resolved; leaf values by their key, such as `data.seed`."""
    models: dict[str, str | None]
    """By the config's key of a model: what tells its files from another's; None for a hub id or an endpoint."""
    train_files: list[str | None]
    """SHA-256 of each training file, in order; None for one that is not on this machine."""
    versions: dict[str, str] = field(default_factory=dict)
    """Versions of what a result depends on."""


@dataclass(frozen=True)
class CheckpointRecord:
    """What one `global_step_N` folder is."""

    run: RunRecord
    """The run that wrote it."""
    step: int
    """N."""
    files: dict[str, int]
    """Bytes of each file in it, by its path there."""
    metrics: dict[str, float] = field(default_factory=dict)
    """The step's `relay/` metrics."""


def name_the_launch(config: VerlConfig) -> None:
    """Keep in `trainer.launched_as` what the driver knows of the run: the record is written where the trainer runs.

    These are the recipe's name and the overrides, which Hydra has in the driver alone, and the hashes of the training
    files, which are then read once.

    Raises:
        UserError: a training file cannot be read.
    """
    from hydra.core.hydra_config import HydraConfig

    if not HydraConfig.initialized():
        return
    hydra = HydraConfig.get()
    # verl prints the config and gives it to its loggers
    secrets = secrets_in(config)
    overrides = [hide_override(word, secrets) for word in words_of_the_job()]
    launched_as = {
        "recipe": hydra.runtime.choices.get("recipe"),
        "overrides": overrides,
        "train_files": _hashes(OmegaConf.select(config, "data.train_files")),
    }
    with open_dict(config.trainer):
        config.trainer.launched_as = launched_as


def record_of(config: VerlConfig) -> RunRecord:
    """The record of the run that this composed config starts.

    Raises:
        UserError: a model's or a data file cannot be read.
    """
    # `launched_as` is how the run was started, not what it is, so it does not stand among the compared keys.
    plain: Any = OmegaConf.to_container(config, resolve=True)
    launched_as = plain["trainer"].pop("launched_as", None) or {}
    leaves = {key: value for key, value in flat(plain).items() if not isinstance(value, Mapping)}
    values = json.loads(json.dumps(leaves, default=str))  # as they are read again
    hashes = launched_as.get("train_files")
    return RunRecord(
        recipe=launched_as.get("recipe"),
        overrides=[hide_override(word) for word in launched_as.get("overrides") or []],
        config={key: hide(key, value) for key, value in values.items()},
        models={key: model_identity(value) for key, value in values.items() if _MODEL.fullmatch(key) and value},
        train_files=_hashes(values.get("data.train_files")) if hashes is None else hashes,
        versions=versions(),
    )


def _hashes(names: str | Sequence[str] | None) -> list[str | None]:
    """SHA-256 of each file of `data.train_files`; None for one that is not on this machine."""
    paths = [Path(name).expanduser() for name in ([names] if isinstance(names, str) else names or ())]
    return [sha256_of(path) if path.is_file() else None for path in paths]


def write_run(folder: Path, record: RunRecord) -> None:
    """Write a run's record into its folder. Raises OSError."""
    replace_file(Path(folder) / RUN_FILE, _to_json(record))


def write_checkpoint(folder: Path, run: RunRecord, step: int, metrics: Mapping[str, float]) -> None:
    """Write the record of the whole checkpoint in `folder`. Raises OSError."""
    folder = Path(folder)
    files = {str(file.relative_to(folder)): file.stat().st_size for file in files_in(folder)}
    record = CheckpointRecord(run, step, files, {name: float(value) for name, value in metrics.items()})
    replace_file(folder / CHECKPOINT_FILE, _to_json(record))


def files_in(folder: Path) -> list[Path]:
    """Every file of a checkpoint but its record, in order of their paths."""
    # A record that is being replaced has a temporary name that contains its own.
    files = (file for file in Path(folder).rglob("*") if file.is_file())
    return sorted(file for file in files if CHECKPOINT_FILE not in file.name)


def read_run(folder: Path) -> RunRecord | None:
    """The record in a run's folder; None if there is none. Raises UserError if it cannot be read."""
    return _read(RunRecord, Path(folder) / RUN_FILE)


def read_checkpoint(folder: Path) -> CheckpointRecord | None:
    """The record in a `global_step_N` folder; None if there is none. Raises UserError if it cannot be read."""
    return _read(CheckpointRecord, Path(folder) / CHECKPOINT_FILE)


def _to_json(record: Any) -> bytes:
    return json.dumps(asdict(record), indent=1).encode()


def _read(kind: Any, file: Path) -> Any:
    if not file.exists():
        return None
    with reading(file), as_user_error(ValueError, lambda _: f"{file} is not a record of ours"):
        return TypeAdapter(kind).validate_python(json.loads(file.read_bytes()))
