"""Rows of local files of any dataset: parquet, JSON Lines, JSON and CSV, or a folder of them. Pure.

Invariant: a file that is not what its name says is a one-line error that names it; no row is left out in silence.

A `.json` file has one of these shapes (`relay_verl.data.json_shapes`):

    [{...}, {...}]                              a list of rows
    {...} {...}, a line each                     JSON Lines under another name
    {"examples": [{...}], "canary": "..."}      rows under one key (the official files of BBEH)
    {"problem": {"0": ..., "1": ...}, ...}      columns, as pandas writes them
    {"problem": [..., ...], ...}                columns as lists

`datasets.load_dataset` reads the hub (`relay_verl.data.sources`) but not these files, because it guesses types and
shapes: from CSV the answer 007 becomes 7, 1.50 becomes 1.5 and NA is lost, a long integer becomes a float, a date a
timestamp, the last three shapes above become a single row, and its errors name neither file nor line.
"""

from __future__ import annotations

import csv
import io
import json
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from relay_verl.data.json_shapes import rows_of_json
from relay_verl.data.schema import is_hidden, iter_parquet
from relay_verl.errors import UserError, as_user_error
from relay_verl.files import sha256_of

_LOST_QUOTE = re.compile(r'(\n),(?=")')


def find_files(path: Path) -> list[Path]:
    """The file itself, or the files of a folder in order of their names.

    Of the kinds in READERS, only the first that the folder has is read: a copy of a hub dataset holds JSON files that
    describe it. Names with a dot in front are passed over.

    Raises:
        UserError: nothing there, or nothing of a kind that can be read.
    """
    if not path.exists():
        raise UserError(f"{path} does not exist")
    if path.is_file():
        if path.suffix.lower() not in READERS:
            raise UserError(f"{path} ends in {path.suffix or 'nothing'!r}; allowed: {', '.join(READERS)}")
        return [path]
    files = sorted(file for file in path.rglob("*") if file.is_file() and not is_hidden(file, path))
    for suffix in READERS:
        if of_format := [file for file in files if file.suffix.lower() == suffix]:
            return of_format
    raise UserError(f"{path} has no file that ends in {', '.join(READERS)}")


def iter_file(file: Path) -> Iterator[dict[str, Any]]:
    """The rows of one file.

    Raises:
        UserError: the file is not what its name says; names the file, and the line where it has lines.
    """
    with as_user_error((OSError, UnicodeError), f"{file} cannot be read"):
        yield from READERS[file.suffix.lower()](file)


def fingerprint_of_file(file: Path) -> dict[str, str]:
    """A file's path and its SHA-256, for a manifest."""
    return {"path": str(file), "sha256": sha256_of(file)}


def _iter_json_lines(file: Path) -> Iterator[dict[str, Any]]:
    with open(file, encoding="utf-8-sig") as lines:
        for number, line in enumerate(lines, start=1):
            if line.strip():
                yield _check_object(_parse(line, f"{file}, line {number}"), f"{file}, line {number}")


def _iter_json(file: Path) -> Iterator[dict[str, Any]]:
    """The rows of one JSON value, or of JSON Lines, which many a `.json` file is."""
    if _has_json_lines(file):
        yield from _iter_json_lines(file)
        return
    value = _parse(file.read_text(encoding="utf-8-sig"), str(file))
    for number, row in enumerate(rows_of_json(value, str(file)), start=1):
        yield _check_object(row, f"{file}, row {number}")


def _has_json_lines(file: Path) -> bool:
    """Whether the first line with text is a whole object and another line with text follows; or there is no text."""
    with open(file, encoding="utf-8-sig") as text:
        lines = (line for line in text if line.strip())
        first = next(lines, None)
        if first is None:
            return True
        if not first.lstrip().startswith("{") or next(lines, None) is None:
            return False
    try:
        json.loads(first)
    except (ValueError, RecursionError):
        return False
    return True


def _iter_csv(file: Path) -> Iterator[dict[str, Any]]:
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
    with open(file, encoding="utf-8-sig", newline="") as lines:
        text = lines.read()
    try:
        return iter(_rows_of_csv(text, str(file)))
    except UserError as error:
        # A field of several lines that lost its closing quote: `..."` + comma became a comma alone. Closing it counts
        # only if every row of the whole file is then as long as the header.
        repaired = _LOST_QUOTE.sub(r'\1",', text)
        if repaired == text:
            raise
        try:
            return iter(_rows_of_csv(repaired, str(file), should_be_full=True))
        except UserError:
            raise error from None


def _rows_of_csv(text: str, place: str, *, should_be_full: bool = False) -> list[dict[str, Any]]:
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    rows = []
    try:
        for row in reader:
            if None in row:
                raise UserError(f"{place}, line {reader.line_num} has more fields than the header")
            if should_be_full and None in row.values():
                raise UserError(f"{place}, line {reader.line_num} has fewer fields than the header")
            rows.append(row)
    except csv.Error as error:
        raise UserError(f"{place}, line {reader.line_num} is not CSV: {error}") from None
    return rows


def _parse(text: str, place: str) -> Any:
    with as_user_error((ValueError, RecursionError), f"{place} is not JSON"):
        return json.loads(text)


def _check_object(row: object, place: str) -> dict[str, Any]:
    if not isinstance(row, Mapping):
        raise UserError(f"{place} is not an object with columns, but {str(row)[:60]!r}")
    return dict(row)


READERS: dict[str, Callable[[Path], Iterator[dict[str, Any]]]] = {
    ".parquet": iter_parquet,
    ".jsonl": _iter_json_lines,
    ".json": _iter_json,
    ".csv": _iter_csv,
}
"""How each kind of file is read, in the order in which a folder is searched for them."""
