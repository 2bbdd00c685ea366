"""What a long job has done so far, on disk, so that a process killed at any moment loses nothing it had finished.

    OUT.work/job.json          what the job is; a run with other settings does not continue it
    OUT.work/00003.journal     finished queries of an open shard, a line each, in the order in which they ended
    OUT.work/00003.parquet     a finished shard (or 00003.jsonl), in the order of its queries
    OUT.work/00003.refused     which of its queries can never be answered, and why; without the file, none
    OUT                        all shards in order, once all are finished; OUT.manifest.json says how it came about

Invariants: a file under its final name is whole; a result counts from the line break that ends it, and so does a
refusal; a query that counts is never run again. What was damaged is named, put aside and made anew.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import logging
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from relay_verl.errors import JobError
from relay_verl.files import LockedError, lock, replace_file, replacing
from relay_verl.jobs.formats import Format, Row

logger = logging.getLogger(__name__)

MAX_NAME_BYTES = 255
"""Longest name of a file on the usual file systems."""


def fingerprint(keys: Sequence[str]) -> str:
    """Names a shard's queries, so that a shard of another dataset is never taken for it."""
    return hashlib.sha256("\n".join(keys).encode()).hexdigest()


class Shard:
    """An open shard: its queries in order, and what is known of them so far."""

    def __init__(self, keys: Sequence[str], journal: Path):
        self.keys = keys
        self.results: dict[str, Any] = {}
        self.refused: dict[str, str] = {}
        """Why a query can never be answered, by its key."""
        self._journal = journal
        self._read()

    @property
    def is_complete(self) -> bool:
        """Whether every query has its result, or its refusal."""
        return self.num_done == len(self.keys)

    @property
    def num_done(self) -> int:
        """Queries with a result or a refusal."""
        return len(self.results) + len(self.refused)

    def add(self, key: str, result: Any) -> None:
        """Keep a result; it counts from here on.

        Raises:
            JobError: it cannot be written.
        """
        self._write({"key": key, "result": result})
        self.results[key] = result

    def refuse(self, key: str, cause: str) -> None:
        """Note that a query can never be answered; this counts from here on.

        Raises:
            JobError: it cannot be written.
        """
        self._write({"key": key, "refused": cause})
        self.refused[key] = cause

    def _write(self, entry: Mapping[str, Any]) -> None:
        line = json.dumps(entry, allow_nan=False).encode() + b"\n"
        try:
            with self._journal.open("ab", buffering=0) as file:
                size = os.fstat(file.fileno()).st_size
                if file.write(line) < len(line):  # the disk is full: a part of a line must not precede the next one
                    os.truncate(self._journal, size)
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            raise JobError(f"{self._journal}: {error.strerror}; what is finished is saved") from error

    def _read(self) -> None:
        """Take what a stopped run left; a line cut short by its end is cut off."""
        if not self._journal.exists():
            return
        wanted = set(self.keys)
        whole = bytearray()
        for number, line in enumerate(self._journal.read_bytes().split(b"\n")[:-1], start=1):
            try:
                entry = json.loads(line)
                key, is_refused = entry["key"], "refused" in entry
                result = str(entry["refused"]) if is_refused else entry["result"]
                if key not in wanted:
                    raise ValueError(f"{key!r} is not a query of this shard")
            except (ValueError, KeyError, TypeError) as error:
                logger.warning("%s, line %d is damaged (%s); its query runs again", self._journal, number, error)
                continue
            (self.refused if is_refused else self.results)[key] = result
            whole += line + b"\n"
        replace_file(self._journal, bytes(whole))


class JobStore:
    """The files of one job. Use as a context manager: one process at a time."""

    def __init__(self, out: Path, spec: Mapping[str, Any], format: Format):
        self.out = Path(out)
        self.work = self.out.with_name(f"{self.out.name}.work")
        self.manifest = self.out.with_name(f"{self.out.name}.manifest.json")
        self._spec = json.loads(json.dumps(spec))
        self._format = format
        self._lock: Any = None

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
        except JobError:
            self._lock.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._lock.close()

    def _check_name(self) -> None:
        """Every file beside the output can be named: the manifest is written last, behind all of the work."""
        longest = f".{self.manifest.name}.{os.getpid()}.tmp"  # see `relay_verl.files.replacing`
        spare = MAX_NAME_BYTES - len(longest.encode())
        if spare < 0:
            raise JobError(f"{self.out}: its name is {-spare} bytes too long for the files that stand beside it")

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

    def open_shard(self, index: int, keys: Sequence[str]) -> Shard | None:
        """The shard of these queries; None if it is finished and good."""
        journal = self._journal(index)
        if self._is_finished(index, keys):
            journal.unlink(missing_ok=True)
            return None
        return Shard(keys, journal)

    def finish_shard(self, index: int, shard: Shard, records: list[Row]) -> None:
        """Write a complete shard's refusals and its records under their final names and forget its journal."""
        with self._writing():
            if shard.refused:
                replace_file(self._refused(index), json.dumps(shard.refused).encode())
            else:
                self._refused(index).unlink(missing_ok=True)
            with replacing(self._path(index)) as path:
                self._format.write(path, records, fingerprint(shard.keys))
        self._journal(index).unlink(missing_ok=True)

    def refused_in(self, num_shards: int) -> dict[str, str]:
        """Why queries of the finished shards can never be answered, by their keys."""
        refused: dict[str, str] = {}
        for index in range(num_shards):
            if self._refused(index).exists():
                refused |= json.loads(self._refused(index).read_bytes())
        return refused

    def forget(self) -> None:
        """Remove the working folder: there is nothing in it to keep. What a network file system does not give up while
        it is open, such as the lock, stays until the next command."""
        shutil.rmtree(self.work, ignore_errors=True)

    def assemble(
        self,
        num_shards: int,
        manifest: Mapping[str, Any],
        summarize: Callable[[Path], Mapping[str, Any]] | None = None,
    ) -> None:
        """Write the output and its manifest from the finished shards, and remove the working folder."""
        with self._writing():
            with replacing(self.out) as path:
                self._format.join((self._path(index) for index in range(num_shards)), path)
            summary = {} if summarize is None else {"summary": dict(summarize(self.out))}
            text = json.dumps({"job": self._spec, **manifest, **summary}, indent=2)
            replace_file(self.manifest, f"{text}\n".encode())
        self.forget()

    def _path(self, index: int) -> Path:
        return self.work / f"{index:05d}{self._format.suffix}"

    def _refused(self, index: int) -> Path:
        return self.work / f"{index:05d}.refused"

    def _journal(self, index: int) -> Path:
        return self.work / f"{index:05d}.journal"

    def _is_finished(self, index: int, keys: Sequence[str]) -> bool:
        path = self._path(index)
        if not path.exists():
            return False
        try:
            if self._format.queries_of(path) == fingerprint(keys):
                return True
            reason = "it holds other queries"
        except (OSError, ValueError) as error:
            reason = str(error).splitlines()[0]
        aside = path.with_suffix(".damaged")
        path.rename(aside)
        logger.warning("%s is damaged (%s); it is kept as %s, and its queries run again", path, reason, aside.name)
        return False

    def _check_spec(self) -> None:
        path = self.work / "job.json"
        if path.exists():
            try:
                theirs = json.loads(path.read_text())
            except ValueError:
                raise JobError(f"{path} is damaged; remove {self.work} to start anew") from None
            self._compare(theirs, self.work, "give another --out, or remove it to start anew")
        else:
            with self._writing():
                replace_file(path, f"{json.dumps(self._spec, indent=2)}\n".encode())

    def _compare(self, theirs: Any, where: Path, advice: str) -> None:
        theirs = theirs or {}
        for key in sorted({*self._spec, *theirs}):
            ours, their = self._spec.get(key), theirs.get(key)
            digest = self._spec.get(f"{key}_sha256")
            is_moved = digest is not None and digest == theirs.get(f"{key}_sha256")  # the same files elsewhere
            if ours != their and not is_moved:
                raise JobError(f"{where} belongs to another job: {key} is {their!r} there and {ours!r} here; {advice}")

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise JobError(
                f"{self.out}: {error.strerror or error}; what is finished is saved in {self.work}"
            ) from error
