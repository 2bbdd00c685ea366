"""The results of a job so far, in one SQLite database: a row for each query that is answered or refused.

A row counts from the moment `put` returns, whenever the process is killed. SQLite notices damage to its structure; each
row also has a checksum, because SQLite has none for the content. A damaged database is named and put aside, and only
the queries whose rows cannot be read run again.

SQLite's own locks are off: `relay_verl.jobs.store` holds a lock that names its holder and also works where a network
file system has no locks. With one process at a time SQLite needs no shared memory for its write-ahead log either, which
network file systems do not offer.
"""

from __future__ import annotations

import json
import logging
import os
import sqlite3
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from relay_verl.files import replacing

logger = logging.getLogger(__name__)

_COLUMNS = "key, is_refused, json, crc32"
_CREATE = (
    "CREATE TABLE results (key TEXT PRIMARY KEY, is_refused INTEGER NOT NULL, json TEXT NOT NULL, "
    "crc32 INTEGER NOT NULL) WITHOUT ROWID"
)
_SELECT = f"SELECT {_COLUMNS} FROM results"
_INSERT = f"INSERT OR REPLACE INTO results ({_COLUMNS}) VALUES (?, ?, ?, ?)"


_LOG = "-wal"
"""What SQLite adds to the name of its write-ahead log."""


@dataclass(frozen=True)
class Entry:
    """What is known of a query."""

    result: Any = None
    """Its result, as JSON; None if it is refused."""
    refusal: str | None = None
    """Why it can never be answered; None if it is answered."""


class Results:
    """Entries by the keys of their queries, on disk.

    Args:
        path: the database; it is made if it is not there.

    Raises:
        sqlite3.Error: it cannot be opened or made.
        OSError: a damaged one cannot be put aside.
    """

    def __init__(self, path: Path):
        self._path = path
        if not path.exists():
            with replacing(path) as temporary:
                _write(temporary, ())
        self._db = _connect(path)
        try:
            if cause := _find_damage(self._db):
                self._start_over(cause)
        except BaseException:
            self._db.close()
            raise

    def close(self) -> None:
        """Close the database; its one file then has all entries."""
        self._db.close()

    def __contains__(self, key: str) -> bool:
        return self._db.execute("SELECT 1 FROM results WHERE key = ?", (key,)).fetchone() is not None

    def get(self, key: str) -> Entry | None:
        """What is known of a query; None if nothing is."""
        row = self._db.execute("SELECT is_refused, json FROM results WHERE key = ?", (key,)).fetchone()
        if row is None:
            return None
        is_refused, value = row[0], json.loads(row[1])
        return Entry(refusal=value) if is_refused else Entry(value)

    def put(self, key: str, entry: Entry) -> None:
        """Keep an entry; it counts from here on.

        Raises:
            sqlite3.Error: it cannot be written.
        """
        is_refused = int(entry.refusal is not None)
        text = json.dumps(entry.refusal if is_refused else entry.result, allow_nan=False)
        self._db.execute(_INSERT, (key, is_refused, text, _crc32(key, is_refused, text)))

    def _start_over(self, cause: str) -> None:
        """Put the damaged database aside, and take from it what can still be read."""
        self._db.close()
        aside = self._path.with_suffix(".damaged")
        with replacing(self._path) as temporary:
            num_kept = _write(temporary, _read_good(self._path))
            for ending in (_LOG, ""):  # the log first: SQLite would apply it to the new database
                file = Path(f"{self._path}{ending}")
                if file.exists():
                    os.replace(file, f"{aside}{ending}")
        self._db = _connect(self._path)
        _open_log(self._db)
        logger.warning(
            "%s is damaged (%s); it is kept as %s, %d results could be read from it, and the other queries run again",
            self._path,
            cause,
            aside.name,
            num_kept,
        )


def _connect(path: Path) -> sqlite3.Connection:
    # without an isolation level each statement is a transaction
    db = sqlite3.connect(f"{path.absolute().as_uri()}?vfs=unix-none", uri=True, isolation_level=None)
    db.text_factory = lambda data: data.decode("utf-8", "replace")  # so that a damaged row can be read and is found
    db.execute("PRAGMA locking_mode = EXCLUSIVE")
    return db


def _open_log(db: sqlite3.Connection) -> None:
    """Write through a log from here on; this also recovers what a killed process left in it."""
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("PRAGMA synchronous = NORMAL")  # a power cut may cost the last results, a kill costs none


def _write(path: Path, rows: Iterable[tuple[Any, ...]]) -> int:
    """Write a new database; gives the number of its rows."""
    db = _connect(path)
    try:
        db.execute("BEGIN")
        db.execute(_CREATE)
        db.executemany(_INSERT, rows)
        db.execute("COMMIT")
        return int(db.execute("SELECT COUNT(*) FROM results").fetchone()[0])
    finally:
        db.close()


def _find_damage(db: sqlite3.Connection) -> str | None:
    """Why the database cannot be used; None if it can."""
    try:
        _open_log(db)
        verdict = str(db.execute("PRAGMA integrity_check(1)").fetchone()[0])
        if verdict != "ok":
            return " ".join(verdict.split())
        if not all(map(_is_good, db.execute(_SELECT))):
            return "its content is not what was written"
    except sqlite3.DatabaseError as error:
        # SQLITE_ERROR is a table that is not there, as in an empty file
        if error.sqlite_errorname.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB", "SQLITE_ERROR")):
            return str(error)
        raise
    return None


def _read_good(path: Path) -> Iterator[tuple[Any, ...]]:
    """The rows of a damaged database that are whole, up to the first page that cannot be read."""
    try:
        db = _connect(path)
        try:
            yield from (row for row in db.execute(_SELECT) if _is_good(row))
        finally:
            db.close()
    except sqlite3.DatabaseError as error:
        logger.debug("%s: %s", path, error)


def _is_good(row: tuple[Any, ...]) -> bool:
    return bool(row[3] == _crc32(*row[:3]))


def _crc32(key: Any, is_refused: Any, text: Any) -> int:
    return zlib.crc32(f"{key}\0{is_refused}\0{text}".encode("utf-8", "replace"))
