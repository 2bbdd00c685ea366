"""Whether the data files are there and have what training reads."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from relay_verl.config import ConfigError, RelaySettings
from relay_verl.data.solvability import COLUMN, solvable_rows
from relay_verl.routing import teachers_for


def check_dataset(config: Any, key: str) -> None:
    """Every parquet file is there and has a prompt and an answer; for training also pass counts, if they are needed."""
    import pyarrow as pa

    for name, schema in check_columns(config, key, (config.data.prompt_key, "reward_model")).items():
        answer = schema.field("reward_model").type
        names = [field.name for field in answer] if pa.types.is_struct(answer) else []
        if "ground_truth" not in names:
            raise ConfigError(
                f"data.{key}: {name} has no answers: column 'reward_model' has no field 'ground_truth'; "
                f"it has {', '.join(names) or 'none'}"
            )
        if key == "train_files" and config.data.get("min_pass_rate"):
            check_pass_counts(name, schema, config.data.min_pass_rate)


def check_pass_counts(name: str, schema: Any, min_pass_rate: float) -> None:
    """The teacher's pass counts are there, and leave queries to train on."""
    import pyarrow.parquet as pq

    if COLUMN not in schema.names:
        raise ConfigError(
            f"data.train_files: {name} has no column {COLUMN!r}, which relay.filter.min_pass_rate={min_pass_rate} "
            "needs: make it with `relay-verl filter`, or set relay.filter.min_pass_rate=0 to train on every query"
        )
    try:
        solvable_rows(pq.read_table(Path(name).expanduser(), columns=[COLUMN])[COLUMN].to_pylist(), min_pass_rate)
    except ValueError as error:
        raise ConfigError(f"data.train_files: {name}: {error}") from None


def check_columns(config: Any, key: str, columns: Sequence[str]) -> dict[str, Any]:
    """Every file of `data.KEY` is there; gives the schema of each parquet file, which has `columns`."""
    import pyarrow.parquet as pq

    files = config.data.get(key)
    schemas = {}
    for name in [files] if isinstance(files, str) else list(files or []):
        if "://" in name:
            continue
        path = Path(name).expanduser()
        if not path.exists():
            raise ConfigError(f"data.{key}: {name} does not exist")
        if path.suffix != ".parquet":
            continue
        try:
            schema = pq.read_schema(path)
        except (OSError, ValueError) as error:
            raise ConfigError(f"data.{key}: {name} is not a readable parquet file: {error}") from None
        for column in columns:
            if column not in schema.names:
                raise ConfigError(f"data.{key}: {name} has no column {column!r}; it has {', '.join(schema.names)}")
        schemas[name] = schema
    return schemas


def check_data_sources(config: Any, settings: RelaySettings) -> None:
    """Every query of the parquet files has a teacher; where one answers all, there is nothing to check."""
    import pyarrow.parquet as pq

    teachers = list(settings.active_teachers.values())
    if not settings.needs_teacher or any(teacher.data_sources is None for teacher in teachers):
        return
    named = ", ".join(dict.fromkeys(name for teacher in teachers for name in teacher.data_sources or ()))
    for key in ("train_files", "val_files"):
        for name in check_columns(config, key, ("data_source",)):
            for source in pq.read_table(Path(name).expanduser(), columns=["data_source"])[0].unique().to_pylist():
                if not teachers_for(teachers, source):
                    raise ConfigError(
                        f"data.{key}: {name} has data_source={source!r}, which no teacher answers; their data_sources: "
                        f"{named}; a teacher without data_sources answers all others"
                    )


def check_warmup_data(config: Any) -> str:
    """The same for `relay_verl.data.warmup_dataset`."""
    check_columns(config, "train_files", ("input_ids", "loss_mask", "is_finished"))
    return str(config.data.train_files)
