"""The two kinds of files a job writes: parquet, and JSON Lines.

Invariant: an output depends on the records and their groups alone, not on how often the job was stopped.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

Row = dict[str, Any]


class Format(Protocol):
    """How records become a file."""

    def write(self, path: Path, groups: Iterable[Sequence[Row]]) -> None:
        """Write the records of all groups, in order. No more than a group is in memory at a time."""
        ...


class Parquet:
    """Records with the columns of `schema`; a group is a row group."""

    def __init__(self, schema: pa.Schema):
        self._schema = schema

    def write(self, path: Path, groups: Iterable[Sequence[Row]]) -> None:
        """See `Format`."""
        with pq.ParquetWriter(path, self._schema) as writer:
            for records in groups:
                table = pa.Table.from_pylist(list(records), schema=self._schema)
                writer.write_table(table.replace_schema_metadata(None))


class JsonLines:
    """A record a line."""

    def write(self, path: Path, groups: Iterable[Sequence[Row]]) -> None:
        """See `Format`."""
        with path.open("w", encoding="utf-8", newline="\n") as file:
            for records in groups:
                file.writelines(f"{json.dumps(record, allow_nan=False)}\n" for record in records)
