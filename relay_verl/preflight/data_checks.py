"""Whether the data files are there and have what training reads."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from relay_verl.config import RelaySettings
from relay_verl.data.files import iter_file
from relay_verl.data.golds import warn_of_unreadable
from relay_verl.data.parquet import iter_parquet
from relay_verl.data.pass_counts import COLUMN, solvable_rows
from relay_verl.data.schema import boxless_question
from relay_verl.errors import UserError, as_user_error
from relay_verl.grading import Grader
from relay_verl.models.routing import teachers_for
from relay_verl.preflight.check import CheckWarning
from relay_verl.preflight.rows import SUFFIXES, checked_rows, grade_against_itself
from relay_verl.run_config import DataSettings


def check_dataset(data: DataSettings, key: str) -> CheckWarning | None:
    """Every file is there and has a prompt and an answer in each row; for training also pass counts, if needed.

    Of the files on this machine, all rows are read as training reads them (`relay_verl.data.schema.check_row`). Gives a
    warning where answers do not parse or count as wrong when graded against themselves, or where prompts ask for the
    answer outside a box.
    """
    import pyarrow as pa

    schemas = check_columns(data, key, (data.prompt_key, "reward_model"))
    for name, schema in schemas.items():
        answer = schema.field("reward_model").type
        names = [field.name for field in answer] if pa.types.is_struct(answer) else []
        if "ground_truth" not in names:
            raise UserError(
                f"data.{key}: {name} has no answers: column 'reward_model' has no field 'ground_truth'; "
                f"it has {', '.join(names) or 'none'}"
            )
    warnings: list[str] = []
    with Grader() as grader:
        for name in local_files(data, key):
            place = f"data.{key}: {name}"
            rows, first = [], None
            for row in checked_rows(name, place, data.prompt_key):
                first = first or row
                rows.append({"reward_model": row["reward_model"], "ability": row.get("ability")})
            warnings += filter(
                None,
                [
                    warn_of_unreadable(place, rows, grader.is_readable),
                    grade_against_itself(place, rows, grader),
                    _boxless(place, first["prompt"] if first else []),
                ],
            )
            if key == "train_files" and data.min_pass_rate:
                kept_rows(name, data.min_pass_rate)
    return CheckWarning("; ".join(warnings)) if warnings else None


def _boxless(place: str, prompt: Sequence[Any]) -> str | None:
    """A warning about a file whose first prompt asks for the answer outside a box."""
    if not prompt or boxless_question(prompt) is None:
        return None
    return (
        f"{place}: the first prompt asks for the answer outside a box, where the grader does not look; "
        "`relay-verl data` writes the paper's instruction in place of it"
    )


def kept_rows(name: str, min_pass_rate: float) -> list[int]:
    """The rows of a local training file, of whatever kind, that the teacher's pass counts leave at this threshold.

    Raises:
        UserError: it has no pass counts, or they leave no row.
    """
    import pyarrow.parquet as pq

    path = Path(name).expanduser()
    if path.suffix == ".parquet":
        has_counts = COLUMN in pq.read_schema(path).names
        counts = pq.read_table(path, columns=[COLUMN])[COLUMN].to_pylist() if has_counts else []
    else:
        counts = [row.get(COLUMN) for row in iter_file(path)]
        has_counts = any(count is not None for count in counts)
    if not has_counts:
        raise UserError(
            f"data.train_files: {name} has no column {COLUMN!r}, which relay.filter.min_pass_rate={min_pass_rate} "
            "needs: make it with `relay-verl filter`, or set relay.filter.min_pass_rate=0 to train on every query"
        )
    try:
        return solvable_rows(counts, min_pass_rate)
    except ValueError as error:
        raise UserError(f"data.train_files: {name}: {error}") from None
    except (KeyError, TypeError):
        raise UserError(
            f"data.train_files: {name}: column {COLUMN!r} holds no pass counts as `relay-verl filter` writes them: "
            "expected objects with num_samples, num_done and num_correct"
        ) from None


def check_columns(data: DataSettings, key: str, columns: Sequence[str]) -> dict[str, Any]:
    """Every file of `data.KEY` is there; gives the schema of each parquet file, which has `columns`."""
    import pyarrow.parquet as pq

    schemas = {}
    for name in local_files(data, key):
        path = Path(name).expanduser()
        if path.suffix != ".parquet":
            continue
        with as_user_error((OSError, ValueError), f"data.{key}: {name} is not a readable parquet file"):
            schema = pq.read_schema(path)
        for column in columns:
            if column not in schema.names:
                raise UserError(f"data.{key}: {name} has no column {column!r}; it has {', '.join(schema.names)}")
        schemas[name] = schema
    return schemas


def local_files(data: DataSettings, key: str) -> list[str]:
    """The names of `data.KEY` that are not addresses; each is there and of a kind that verl reads.

    Raises:
        UserError: one is not.
    """
    names = [name for name in data.files[key] if "://" not in name]
    for name in names:
        if not Path(name).expanduser().exists():
            raise UserError(f"data.{key}: {name} does not exist")
        # a dataset class of the user's own may read other files
        if data.dataset_class in (None, "TeacherSolvableDataset", "WarmupDataset") and not name.endswith(SUFFIXES):
            raise UserError(f"data.{key}: {name}: verl reads files that end in {', '.join(SUFFIXES)}")
    return names


def check_data_sources(data: DataSettings, settings: RelaySettings) -> None:
    """Every query of the local files has a teacher; where one answers all, there is nothing to check."""
    teachers = list(settings.active_teachers.values())
    if not settings.needs_teacher or any(teacher.data_sources is None for teacher in teachers):
        return
    named = ", ".join(dict.fromkeys(name for teacher in teachers for name in teacher.data_sources or ()))
    for key in ("train_files", "val_files"):
        check_columns(data, key, ("data_source",))
        for name in local_files(data, key):
            for source in _column_values(name, "data_source"):
                if not teachers_for(teachers, source):
                    raise UserError(
                        f"data.{key}: {name} has data_source={source!r}, which no teacher answers; their data_sources: "
                        f"{named}; a teacher without data_sources answers all others"
                    )


def _column_values(name: str, column: str) -> list[Any]:
    """The different values of a column in a local file, in order; None where a row has none."""
    path = Path(name).expanduser()
    rows = iter_parquet(path, only=(column,)) if path.suffix == ".parquet" else iter_file(path)
    return list(dict.fromkeys(row.get(column) for row in rows))


def check_warmup_data(data: DataSettings) -> str:
    """The files are there and are what `relay_verl.trainer.warmup_dataset` reads; the validation's too."""
    names = data.files["train_files"]
    if not names:
        raise UserError("data.train_files: no file is given; make one with `relay-verl warmup-data`")
    for key in ("train_files", "val_files"):
        for name in data.files[key]:
            if "://" not in name and not name.endswith(".parquet"):
                raise UserError(f"data.{key}: {name}: expected a parquet file, as `relay-verl warmup-data` writes it")
        check_columns(data, key, ("input_ids", "loss_mask", "is_finished"))
    return ", ".join(names)
