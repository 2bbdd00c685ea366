"""Whether the data files are there and have what training reads."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from relay_verl.config import ConfigError, RelaySettings
from relay_verl.data.files import iter_file
from relay_verl.data.golds import warn_of_unreadable
from relay_verl.data.parquet import iter_parquet
from relay_verl.data.schema import boxless_question, is_messages, truth_fields
from relay_verl.data.solvability import COLUMN, solvable_rows
from relay_verl.data.truths import UnusableTruthError, truth_of
from relay_verl.grading import Grader
from relay_verl.preflight.check import Doubt
from relay_verl.routing import teachers_for


def check_dataset(config: Any, key: str) -> Doubt | None:
    """Every file is there and has a prompt and an answer in each row; for training also pass counts, if needed.

    Of the files on this machine, all answers are read as training reads them (`relay_verl.data.truths`). Gives a doubt
    where answers do not parse, or where prompts ask for the answer outside a box.
    """
    import pyarrow as pa

    columns = (config.data.prompt_key, "reward_model")
    schemas = check_columns(config, key, columns)
    for name, schema in schemas.items():
        answer = schema.field("reward_model").type
        names = [field.name for field in answer] if pa.types.is_struct(answer) else []
        if "ground_truth" not in names:
            raise ConfigError(
                f"data.{key}: {name} has no answers: column 'reward_model' has no field 'ground_truth'; "
                f"it has {', '.join(names) or 'none'}"
            )
        if key == "train_files" and config.data.get("min_pass_rate"):
            check_pass_counts(name, schema, config.data.min_pass_rate)
    doubts: list[str] = []
    with Grader() as grader:
        for name in local_files(config, key):
            place = f"data.{key}: {name}"
            rows = _checked_rows(Path(name).expanduser(), place, columns)
            unreadable = warn_of_unreadable(place, rows, grader.is_readable)
            doubts += filter(None, [unreadable, _boxless(name, place, columns[0])])
    return Doubt("; ".join(doubts)) if doubts else None


def _checked_rows(path: Path, place: str, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
    """What grading reads of each row, whose answers are usable; of a parquet file no other column is read."""
    is_parquet = path.suffix == ".parquet"
    rows = iter_parquet(path, columns, only=("reward_model", "ability")) if is_parquet else iter_file(path)
    for number, row in enumerate(rows, start=1):
        if not is_parquet and (missing := [column for column in columns if row.get(column) is None]):
            raise ConfigError(
                f"{place}: row {number} has no {' and no '.join(missing)}; it has {', '.join(row) or 'no column'}"
            )
        try:
            truth = truth_of(row["reward_model"])
        except UnusableTruthError as error:
            raise ConfigError(f"{place}: row {number} has no answer in reward_model.ground_truth: {error}") from None
        yield {"reward_model": truth_fields(truth), "ability": row.get("ability")}


def _boxless(name: str, place: str, prompt_key: str) -> str | None:
    """A doubt about a file whose first prompt asks for the answer outside a box."""
    first = next(iter_file(Path(name).expanduser()), None)
    if first is None or not is_messages(first[prompt_key]) or boxless_question(first[prompt_key]) is None:
        return None
    return (
        f"{place}: the first prompt asks for the answer outside a box, where the grader does not look; "
        "`relay-verl data` writes the paper's instruction in place of it"
    )


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

    schemas = {}
    for name in local_files(config, key):
        path = Path(name).expanduser()
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


def local_files(config: Any, key: str) -> list[str]:
    """The names of `data.KEY` that are not addresses; each is there.

    Raises:
        ConfigError: one is not.
    """
    files = config.data.get(key)
    names = [name for name in ([files] if isinstance(files, str) else list(files or [])) if "://" not in name]
    for name in names:
        if not Path(name).expanduser().exists():
            raise ConfigError(f"data.{key}: {name} does not exist")
    return names


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
