"""The graded pair that the kept results were measured with, next to them.

Pre-training gives the same weights again on one kind of processor, and others on one that rounds otherwise. So a run on
another machine starts from these.

    KEEP/pair/student, teacher, other, student_warm    the models
    KEEP/pair/questions.parquet, train.parquet, test.parquet

Invariant: KEEP/pair is whole or not there.
"""

import shutil
from pathlib import Path

from relay_verl.errors import UserError
from relay_verl.models.address import model_sha256

MODELS = ("student", "teacher", "other", "student_warm")
TABLES = ("questions.parquet", "train.parquet", "test.parquet")


def keep_pair(pair: Path, kept: Path) -> None:
    """Copy a pair whose stage one has ended to `kept`, unless it is there."""
    if kept.is_dir():
        return
    partial = kept.with_name(f"{kept.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    _copy(pair, partial)
    partial.rename(kept)


def take_pair(kept: Path, pair: Path) -> bool:
    """Copy what is kept to `pair`, unless it is there; whether anything is kept.

    Raises:
        UserError: there are other models in `pair`.
    """
    if not kept.is_dir():
        return False
    _copy(kept, pair)
    for name in MODELS:
        actual, expected = (model_sha256(str(folder / name)) for folder in (pair, kept))
        if actual != expected:
            raise UserError(
                f"--out: {pair / name} has the SHA-256 {actual}, the model of the results at --keep {expected}: "
                "expected another --out, or another --keep"
            )
    return True


def _copy(source: Path, target: Path) -> None:
    """Each part appears whole or not at all; those that are there are left."""
    target.mkdir(parents=True, exist_ok=True)
    for name in (*MODELS, *TABLES):
        if (target / name).exists():
            continue
        partial = target / f"{name}.partial"
        if name in MODELS:
            shutil.rmtree(partial, ignore_errors=True)
            shutil.copytree(source / name, partial)
        else:
            shutil.copyfile(source / name, partial)
        partial.rename(target / name)
