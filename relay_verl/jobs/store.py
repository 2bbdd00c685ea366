"""What a long job has done so far, on disk, so that a process killed at any moment loses nothing it had finished.

    OUT.work/job.json          what the job is; a run with other settings does not continue it
    OUT.work/results.sqlite    finished queries, see `relay_verl.jobs.results`
    OUT.work/lock              held by the process that writes
    OUT                        the records of all queries in order, once all are finished
    OUT.manifest.json          how OUT came about

Invariants: a file under its final name is whole; a query that counts is never run again.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from relay_verl.errors import JobError
from relay_verl.files import LockedError, lock, replace_file, replacing, sha256_of
from relay_verl.jobs.formats import Format, Row
from relay_verl.jobs.results import Entry, Results

MAX_NAME_BYTES = 255
"""Longest name of a file on the usual file systems."""
MAX_PATH_BYTES = 500
"""Longest path of a database; SQLite's own limit is 512 bytes with the endings that it adds."""
_OLD_FILE = re.compile(r"\d{5}\.(journal|parquet|jsonl|refused)")
"""Files of version 0.1, which kept journals and shards in place of a database."""


class JobStore:
    """The files of one job. Use as a context manager: one process at a time."""

    def __init__(self, out: Path, spec: Mapping[str, Any], format: Format):
        self.out = Path(out)
        self.work = self.out.with_name(f"{self.out.name}.work")
        self.manifest = self.out.with_name(f"{self.out.name}.manifest.json")
        self._spec = json.loads(json.dumps(spec))
        self._format = format
        self._lock: Any = None
        self._results: Results | None = None

    def __enter__(self) -> JobStore:
        self._check_name()
        try:
            self.work.mkdir(parents=True, exist_ok=True)
            self._lock = lock(self.work / "lock")
        except LockedError as holder:
            raise JobError(f"{self.out}: another process is writing it: {holder}") from None
        except OSError as error:
            raise JobError(f"{self.work}: {error.strerror}") from error
        try:
            self._check_spec()
            self._check_version()
            with self._writing():
                self._results = Results(self._database)
        except JobError:
            self._lock.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.results.close()
        self._lock.close()

    @property
    def results(self) -> Results:
        """What is known of the queries so far; in the context alone."""
        assert self._results is not None
        return self._results

    @property
    def _database(self) -> Path:
        return self.work / "results.sqlite"

    def finished_manifest(self) -> dict[str, Any] | None:
        """The manifest if the output is complete; None if there is work to do.

        Raises:
            JobError: the output belongs to a job with other settings.
        """
        if not (self.out.exists() and self.manifest.exists()):
            return None
        manifest: dict[str, Any] = json.loads(self.manifest.read_text())
        self._compare(manifest.get("job"), self.manifest, "give another --out, or remove it with its manifest")
        shutil.rmtree(self.work, ignore_errors=True)  # its end may have been cut off
        return manifest

    def put(self, key: str, entry: Entry) -> None:
        """Keep what is known of a query; it counts from here on.

        Raises:
            JobError: it cannot be written.
        """
        with self._writing():
            self.results.put(key, entry)

    def forget(self) -> None:
        """Remove the working folder: there is nothing in it to keep. What a network file system does not give up while
        it is open, such as the lock, stays until the next command."""
        self.results.close()
        shutil.rmtree(self.work, ignore_errors=True)

    def assemble(
        self,
        groups: Iterable[Sequence[Row]],
        manifest: Mapping[str, Any],
        summarize: Callable[[Path], Mapping[str, Any]] | None = None,
    ) -> None:
        """Write the output and its manifest, and remove the working folder.

        Args:
            groups: the records in order.
            manifest: how they came about.
            summarize: see `relay_verl.jobs.job.Job.summarize`.

        Raises:
            JobError: they cannot be written.
        """
        with self._writing():
            with replacing(self.out) as path:
                self._format.write(path, groups)
            summary = {} if summarize is None else {"summary": dict(summarize(self.out))}
            facts = {"job": self._spec, **manifest, **summary, "output_sha256": sha256_of(self.out)}
            text = json.dumps(facts, indent=2)
            replace_file(self.manifest, f"{text}\n".encode())
        self.forget()

    def _check_name(self) -> None:
        """Every file next to the output can be named: the manifest is written last, after all of the work."""
        longest = f".{self.manifest.name}.{os.getpid()}.tmp"  # see `relay_verl.files.replacing`
        spare = MAX_NAME_BYTES - len(longest.encode())
        if spare < 0:
            raise JobError(f"{self.out}: its name is {-spare} bytes too long for the files that stand next to it")
        spare = MAX_PATH_BYTES - len(os.fsencode(self._database.absolute()))
        if spare < 0:
            raise JobError(f"{self.out}: its path is {-spare} bytes too long for the database that stands next to it")

    def _check_version(self) -> None:
        """The folder is not of version 0.1, whose shards hold records and not results."""
        if any(_OLD_FILE.fullmatch(file.name) for file in self.work.iterdir()):
            raise JobError(
                f"{self.work} was written by relay_verl 0.1, and this version cannot continue it: finish the job with "
                "that version, or remove the folder to start anew"
            )

    def _check_spec(self) -> None:
        path = self.work / "job.json"
        if path.exists():
            try:
                kept = json.loads(path.read_text())
            except ValueError:
                raise JobError(f"{path} is damaged; remove {self.work} to start anew") from None
            self._compare(kept, self.work, "give another --out, or remove it to start anew")
        else:
            with self._writing():
                replace_file(path, f"{json.dumps(self._spec, indent=2)}\n".encode())

    def _compare(self, kept: Any, where: Path, advice: str) -> None:
        kept = kept or {}
        for key in sorted({*self._spec, *kept}):
            ours, other = self._spec.get(key), kept.get(key)
            digest = self._spec.get(f"{key}_sha256")
            is_moved = digest is not None and digest == kept.get(f"{key}_sha256")  # the same files elsewhere
            if ours != other and not is_moved:
                raise JobError(f"{where} belongs to another job: {key} is {other!r} there and {ours!r} here; {advice}")

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise self._unwritten(self.out, error.strerror or str(error)) from error
        except sqlite3.Error as error:
            is_full = getattr(error, "sqlite_errorname", "") == "SQLITE_FULL"
            raise self._unwritten(self._database, "No space left on device" if is_full else str(error)) from error

    def _unwritten(self, path: Path, cause: str) -> JobError:
        return JobError(f"{path}: {cause}; what is finished is saved in {self.work}")
