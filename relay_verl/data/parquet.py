"""Rows of parquet files, whatever their columns are. Pure: no torch, Ray, verl.

Invariant: a file that `write_parquet` writes is either the old one or the whole new one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from relay_verl.errors import UserError, as_user_error
from relay_verl.files import replacing

BATCH_ROWS = 1024
"""Rows of a parquet file that are in memory at a time."""


def write_parquet(path: Path | str, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write rows so that a reader sees either the old file or the whole new one; makes the folder.

    Raises:
        UserError: no rows, rows whose values do not fit into columns, or a place that cannot be written.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    path, rows = Path(path), list(rows)
    if not rows:
        raise UserError(f"{path}: there are no rows to write")
    names = list(dict.fromkeys(name for row in rows for name in row))
    with _naming(f"{path} cannot be written"), replacing(path) as temporary:
        pq.write_table(pa.table({name: [row.get(name) for row in rows] for name in names}), temporary)


def iter_parquet(
    file: Path, columns: Iterable[str] = (), *, only: Iterable[str] | None = None
) -> Iterator[dict[str, Any]]:
    """The rows of one parquet file as they are.

    Args:
        file: the file.
        columns: what it must have.
        only: what to read of it, as far as it is there; None for every column.

    Raises:
        UserError: the file cannot be read, or one of `columns` is missing.
    """
    import pyarrow.parquet as pq

    with _naming(f"{file} is not a readable parquet file"), pq.ParquetFile(file) as parquet:
        names = parquet.schema_arrow.names
        if missing := [name for name in columns if name not in names]:
            raise UserError(f"{file} has no column {', '.join(missing)}; it has {', '.join(names) or 'none'}")
        read = None if only is None else [name for name in only if name in names]
        for batch in parquet.iter_batches(BATCH_ROWS, columns=read):
            yield from batch.to_pylist()


def _naming(what: str) -> AbstractContextManager[None]:
    """As `as_user_error`, for what pyarrow raises of a file, its text or its values."""
    import pyarrow as pa

    return as_user_error((pa.ArrowException, UnicodeError, OSError), what)


def parquet_files(path: Path) -> list[Path]:
    if not path.exists():
        raise UserError(f"{path} does not exist")
    if not path.is_dir():
        return [path]
    files = sorted(file for file in path.rglob("*.parquet") if not is_hidden(file, path))
    if not files:
        raise UserError(f"{path} has no parquet file in it")
    return files


def is_hidden(file: Path, folder: Path) -> bool:
    """Whether the file or a folder between has a name with a dot in front."""
    return any(part.startswith(".") for part in file.relative_to(folder).parts)
