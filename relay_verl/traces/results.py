"""Results folders: what `relay-verl eval` leaves, and how the report and the reader find it.

    FOLDER/responses.jsonl                  a `ResponseRecord` a line: benchmark by benchmark, question by question
    FOLDER/responses.jsonl.manifest.json    {"job": all that decides the responses, ...}; without it the run is not over
    FOLDER/summary.json                     accuracy, calls, tokens and seconds (`relay_verl.report.summary`)
    FOLDER/verdicts.parquet                 with its manifest, if `relay-verl judge` judged them afterwards

`relay-verl condense` makes a small data file of a folder (`relay_verl.traces.condensed`), which is a result, too.

Invariant: what `read_result` gives is whole: as many records as the manifest says, and as they were written.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from relay_verl.errors import UserError, as_user_error
from relay_verl.files import sha256_of
from relay_verl.prices.price import PriceList
from relay_verl.traces.condensed import read_data_file
from relay_verl.traces.question_table import QUESTIONS
from relay_verl.traces.records import ResponseRecord, read_records

RESPONSES = "responses.jsonl"
MANIFEST = f"{RESPONSES}.manifest.json"
VERDICTS = "verdicts.parquet"
SUMMARY = "summary.json"


@dataclass(frozen=True)
class Result:
    """One evaluation: a student, a teacher and a policy on some benchmarks."""

    folder: Path
    """Where it lies; the file itself, if it is condensed."""
    manifest: Mapping[str, Any]
    """How it came about."""
    records: Sequence[ResponseRecord]
    """Every response, in the order of the questions."""

    @property
    def job(self) -> Mapping[str, Any]:
        """All that decides the responses: models, policy, benchmarks, limits, sampling, seed."""
        job: Mapping[str, Any] = self.manifest["job"]
        return job

    @property
    def row(self) -> str | None:
        """The trained row it measures, such as '1.7b/relay' (see `relay_verl.recipes.paper`); None if not said."""
        return self.job.get("row")

    @property
    def is_condensed(self) -> bool:
        """Whether it is a data file, without texts and without what it took."""
        return "responses_sha256" in self.manifest

    @property
    def responses_sha256(self) -> str:
        """SHA-256 of the responses with their texts, in hexadecimal."""
        return str(self.manifest.get("responses_sha256") or sha256_of(self.folder / RESPONSES))

    @property
    def training_seed(self) -> int | None:
        """Seed of the training of its student or of its head; None if not said."""
        return self.job.get("training_seed")

    @property
    def judge(self) -> Mapping[str, Any] | None:
        """What decides the LLM judge's verdicts on these responses (`Judge.spec`); None if it is not known.

        Raises:
            UserError: the manifest of the verdicts is damaged.
        """
        manifest = self.folder / f"{VERDICTS}.manifest.json"
        if not manifest.exists():
            return self.job.get("judge")
        with as_user_error(
            (OSError, ValueError, KeyError, TypeError),
            lambda error: f"{manifest} is damaged: {type(error).__name__}: {error}",
        ):
            spec: Mapping[str, Any] | None = json.loads(manifest.read_bytes())["job"]["judge"]
        return spec

    @property
    def policy(self) -> str:
        """How commands were treated; see `relay_verl.policies`."""
        return str(self.job["policy"])

    @property
    def student(self) -> str:
        """Path or address of the student."""
        return str(self.job["student"])

    @property
    def teacher(self) -> str | None:
        """Path or address of the teacher that answered calls; None if there was none."""
        return self.job.get("teacher")

    @property
    def is_thinking(self) -> bool:
        """Whether the chat template was rendered in its thinking mode."""
        return bool((self.job.get("template") or {}).get("enable_thinking"))

    @property
    def prices(self) -> PriceList | None:
        """The prices of the run's config; None where it has none."""
        prices = self._summary.get("prices")
        return None if prices is None else PriceList.from_dict(prices)

    @property
    def num_parameters(self) -> Mapping[str, int | None]:
        """Parameters of the 'student' and of the 'teacher' that a token passes through; None where they are not known,
        as in folders that were written before they were noted."""
        return self._summary.get("num_parameters") or {}

    @property
    def _summary(self) -> Mapping[str, Any]:
        summary: Mapping[str, Any] = self.manifest.get("summary") or {}
        return summary

    @property
    def teacher_name(self) -> str | None:
        """What tables call that teacher: the last part of its path unless another name was given."""
        return self.job.get("teacher_name")


def find_results(paths: Sequence[Path], *, needs_texts: bool = False) -> list[Path]:
    """The results folders and the data files at or below `paths`, path by path and in order of their names, once each.

    Args:
        paths: where to look.
        needs_texts: leaves out data files, which have none.

    Raises:
        UserError: a path has none, or one whose run has not ended.
    """
    folders: dict[Path, Path] = {}
    for path in paths:
        unfinished = sorted(path.rglob(f"{RESPONSES}.work"))
        if unfinished:
            raise UserError(
                f"{unfinished[0].parent}: the evaluation has not ended; the same `relay-verl eval` continues it"
            )
        data_files = [] if needs_texts else _data_files(path)
        places = sorted([*(file.parent for file in path.rglob(RESPONSES)), *data_files])
        if not places:
            raise UserError(f"{path} holds no results: no {RESPONSES} in it or below")
        for place in places:
            folders.setdefault(place.resolve(), place)
    return list(folders.values())


def _data_files(path: Path) -> list[Path]:
    """The tables next to a table of questions, or the one at `path`."""
    if path.is_file():
        return [path] if path.suffix == ".csv" else []
    tables = list(path.rglob(QUESTIONS))
    return [file for table in tables for file in table.parent.glob("*.csv") if file.name != QUESTIONS]


def read_result(folder: Path) -> Result:
    """One results folder, or one data file.

    Raises:
        UserError: no manifest or a damaged one, a line that is not a record (names it), another number of records than
            were written, or other bytes.
    """
    if folder.suffix == ".csv" and folder.is_file():
        return Result(folder, *read_data_file(folder))
    with as_user_error(
        OSError,
        lambda error: f"{error.filename}: {error.strerror}; {folder} is not a whole result of `relay-verl eval`",
    ):
        manifest = _read_manifest(folder / MANIFEST)
        records = read_records(folder / RESPONSES)
    if len(records) != manifest["num_queries"]:
        raise UserError(
            f"{folder / RESPONSES} has {len(records)} responses, but {manifest['num_queries']} were written"
        )
    # the judge adds its verdicts to the records
    if not (folder / f"{VERDICTS}.manifest.json").exists() and "output_sha256" in manifest:
        actual = sha256_of(folder / RESPONSES)
        if actual != manifest["output_sha256"]:
            raise UserError(
                f"{folder / RESPONSES} was edited after it was written: its SHA-256 is {actual}, the manifest says "
                f"{manifest['output_sha256']}"
            )
    return Result(folder, manifest, records)


def _read_manifest(file: Path) -> dict[str, Any]:
    """The manifest.

    Raises:
        UserError: no JSON, or `job` or `num_queries` is missing or of another type; the line names the file.
    """
    with as_user_error((ValueError, RecursionError), f"{file} is damaged"):
        manifest = json.loads(file.read_bytes())
    if not isinstance(manifest, dict):
        raise UserError(f"{file} is damaged: it is not a JSON object")
    for key, kind in (("job", dict), ("num_queries", int)):
        if not isinstance(manifest.get(key), kind):
            raise UserError(f"{file} is damaged: {key} is {manifest.get(key)!r:.80}")
    return manifest
