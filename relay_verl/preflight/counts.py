"""Whether there are rows enough: for a batch, for the steps that are asked for, for the validation.

verl finds out when its engines are up: a division by zero where an epoch has no step, a file without rows that its
reader cannot open; and a run whose epochs end before its last step stops without its last checkpoint.
"""

from __future__ import annotations

from pathlib import Path

from omegaconf import OmegaConf

from relay_verl.data.files import iter_file
from relay_verl.data.parquet import iter_parquet
from relay_verl.errors import UserError
from relay_verl.preflight.data_checks import kept_rows, local_files
from relay_verl.run_config import DataSettings, RunConfig, VerlConfig


def check_num_rows(run: RunConfig) -> str:
    """The training files have rows for a batch, after the pass rate's threshold, and epochs for all steps.

    Of files that are not on this machine nothing is known.

    Raises:
        UserError: they do not; names the keys and the numbers.
    """
    data = run.data
    names = data.files["train_files"]
    if not names:
        raise UserError("data.train_files: no file is given; name a parquet or JSON Lines file with rows to train on")
    if len(local_files(data, "train_files")) < len(names):
        return f"not counted: {', '.join(names)} is not on this machine"
    threshold = data.min_pass_rate
    num_read = num_rows = sum(count_rows("train_files", name) for name in names)
    what = "rows"
    if threshold:
        num_rows = sum(len(kept_rows(name, threshold)) for name in names)
        what = f"of {num_read} rows with a pass rate of at least relay.filter.min_pass_rate={threshold:g}"
    most = run.verl.data.get("train_max_samples") or -1
    if 0 < most < num_rows:
        num_rows, what = most, "rows by data.train_max_samples"
    batch = data.batch_size or 1
    generated = run.verl.data.get("gen_batch_size") or batch
    for key, size in (("data.train_batch_size", batch), ("data.gen_batch_size", generated)):
        if num_rows < size:
            raise UserError(
                f"{key}={size}: data.train_files has {num_rows} {what} ({', '.join(names)}), fewer than a batch: lower "
                f"{key} to at most {num_rows}, or give more rows"
            )
    return f"{num_rows} {what}, {_check_steps(run.verl, num_rows // batch)}"


def _check_steps(config: VerlConfig, steps_per_epoch: int) -> str:
    """The epochs are enough for the steps; gives the number of steps."""
    epochs = OmegaConf.select(config, "trainer.total_epochs")
    steps = OmegaConf.select(config, "trainer.total_training_steps")
    for key, value in (("trainer.total_epochs", epochs), ("trainer.total_training_steps", steps)):
        if value is not None and value < 1:
            raise UserError(f"{key}={value}: nothing would be trained; set at least 1")
    if epochs is None:
        return f"{steps_per_epoch} steps an epoch"
    if steps is not None and steps > epochs * steps_per_epoch:
        raise UserError(
            f"trainer.total_training_steps={steps}: trainer.total_epochs={epochs} of {steps_per_epoch} steps end after "
            f"{epochs * steps_per_epoch}, without a last checkpoint: set trainer.total_epochs to at least "
            f"{-(-steps // steps_per_epoch)}, or trainer.total_training_steps to at most {epochs * steps_per_epoch}"
        )
    return f"{epochs * steps_per_epoch if steps is None else steps} steps"


def check_validation_rows(data: DataSettings) -> str:
    """The validation files have rows: verl opens them even where nothing is validated.

    Raises:
        UserError: there is no file, or one without rows.
    """
    names = data.files["val_files"]
    if not names:
        raise UserError(
            "data.val_files: no file is given, and verl opens one even where it validates nothing: name a file, such "
            "as that of data.train_files"
        )
    if len(local_files(data, "val_files")) < len(names):
        return f"not counted: {', '.join(names)} is not on this machine"
    return f"{sum(count_rows('val_files', name) for name in names)} rows"


def check_warmup_rows(data: DataSettings) -> str:
    """The warm-up's data has finished responses for a batch; those that were cut off are left out of it.

    Raises:
        UserError: it has fewer.
    """
    names, batch = data.files["train_files"], data.batch_size
    if batch is None or len(local_files(data, "train_files")) < len(names):
        return "not counted"
    num_rows = sum(
        bool(row["is_finished"]) for name in names for row in iter_parquet(_path(name), only=("is_finished",))
    )
    if num_rows < batch:
        raise UserError(
            f"data.train_batch_size={batch}: data.train_files has {num_rows} finished responses ({', '.join(names)}), "
            f"fewer than a batch: lower data.train_batch_size to at most {num_rows}, or make more with `relay-verl "
            "warmup-data`"
        )
    return f"{num_rows} finished responses"


def count_rows(key: str, name: str) -> int:
    """Rows of a local file.

    Raises:
        UserError: it has none.
    """
    import pyarrow.parquet as pq

    path = _path(name)
    num_rows = pq.read_metadata(path).num_rows if path.suffix == ".parquet" else sum(1 for _ in iter_file(path))
    if not num_rows:
        raise UserError(f"data.{key}: {name} has no rows")
    return int(num_rows)


def _path(name: str) -> Path:
    return Path(name).expanduser()
