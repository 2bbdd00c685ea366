"""The dataset that a generator reads, checked before a model loads."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from relay_verl.data.parquet import iter_parquet
from relay_verl.data.schema import dataset_schema, iter_rows, parquet_files, row_id
from relay_verl.errors import as_user_error
from relay_verl.files import sha256_of
from relay_verl.jobs.queries import Queries


@dataclass(frozen=True)
class Source:
    """A dataset that a generator reads."""

    path: Path
    """A parquet file, or a folder of them."""
    num_rows: int
    """Queries in it."""
    schema: pa.Schema
    """Its columns."""
    sha256: list[str]
    """Hash of each file."""

    @classmethod
    def scan(cls, path: Path) -> Source:
        """Check every row before a model loads.

        Raises:
            UserError: see `relay_verl.data.schema.iter_rows`; or a row does not fit the columns that the output will
                have.
        """
        num_rows = sum(1 for _ in iter_rows(path))
        num_read = sum(pq.read_metadata(file).num_rows for file in parquet_files(path))
        if num_read > num_rows:
            print(
                f"{path}: {num_read} rows are {num_rows} queries; copies with the same id and prompt count once",
                file=sys.stderr,
            )
        schema = dataset_schema(path)
        _check_columns(path, schema)
        return cls(path, num_rows, schema, [sha256_of(file) for file in parquet_files(path)])

    def queries(self) -> Queries:
        """Id and row of each query, in order."""
        return Queries(lambda: ((row["extra_info"]["id"], row) for row in iter_rows(self.path)))

    def locate(self, ids: Sequence[str]) -> dict[str, str]:
        """File and row, which count from 1, of the first row of each of these queries."""
        places: dict[str, str] = {}
        sought = set(ids)
        for file in parquet_files(self.path):
            for number, row in enumerate(iter_parquet(file), start=1):
                if (id := row_id(row)) in sought:
                    places.setdefault(id, f"{file}: row {number}")
        return places


def _check_columns(path: Path, schema: pa.Schema) -> None:
    """Every row fits the schema of the output, which is read apart from the rows: otherwise a row that does not fit
    would be noticed when the output is written, after all sampling."""
    for number, row in enumerate(iter_rows(path), start=1):
        place = f"{path}: query {number} (id {row['extra_info']['id']!r})"
        with as_user_error(
            (pa.ArrowException, TypeError, ValueError, OverflowError), f"{place} does not fit its columns"
        ):
            pa.Table.from_pylist([row], schema=schema)
