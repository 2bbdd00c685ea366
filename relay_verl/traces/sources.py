"""Where the responses on a page come from, and what the page calls them.

Invariants: each source is read once; a condition of what is read is one condition of one source. Where two sources name
a condition alike, such as two seeds of one recipe, the source's name is added to it.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from relay_verl.checkpoints.record import read_run
from relay_verl.errors import UserError, as_user_error
from relay_verl.recipes.paper import Row, paper
from relay_verl.traces.records import ResponseRecord, read_records
from relay_verl.traces.results import find_results, read_result
from relay_verl.traces.words import condition_words

MAX_NAMED = 2
"""Most models or files of a kind that a heading names."""


@dataclass(frozen=True)
class Source:
    """Responses of one results folder, of one file, or of one training."""

    path: Path
    """The folder or the file."""
    records: Sequence[ResponseRecord]
    """In the order in which they were written; at least one."""
    job: Mapping[str, Any]
    """What the results' manifest says of how they came about; empty where there is none."""
    is_training: bool
    """Whether it is a training's folder of samples."""

    @property
    def row(self) -> Row | None:
        """The row of the paper that it measures; None if it does not say."""
        return paper().rows.get(self.job.get("row") or "")

    @cached_property
    def words(self) -> str | None:
        """What its condition is in words; None where the label that it was given is all there is."""
        policy = self.job.get("policy")
        is_labelled = self.row is None and self.job.get("condition") not in (None, policy)
        return None if policy is None or is_labelled else condition_words(self.row, str(policy))


def read_sources(paths: Sequence[Path]) -> list[Source]:
    """The sources at or below `paths`, in the order given; those below one path in the order in which they were run.

    Raises:
        UserError: a path has no results, or a line is not a response (names file and line).
    """
    sources: dict[Path, Source] = {}
    for path in paths:
        if not path.exists():
            raise UserError(f"{path}: no such file or folder")
        below = {}
        for place in _places(path):
            resolved = place.resolve()
            if resolved in sources:
                continue
            below[resolved] = _read(place)
            if not below[resolved].records:
                raise UserError(f"{place} holds no responses")
        sources |= dict(sorted(below.items(), key=lambda item: item[1].records[0].started_at))
    return _tell_apart(sources)


def title_of(sources: Sequence[Source]) -> str:
    """A heading that names the training, or the models."""
    training = [source for source in sources if source.is_training]
    if training:
        steps = [int(number) for source in training for number in map(_step_of, source.records) if number]
        names = ", ".join(dict.fromkeys(map(_training_name, training)))
        over = f", steps {min(steps)} to {max(steps)}" if steps else ""
        return f"{names}: responses of the training{over}"
    jobs = [source.job for source in sources if source.job.get("policy")]
    students = dict.fromkeys(_last_part(job.get("student")) for job in jobs if job.get("student"))
    teachers = dict.fromkeys(job.get("teacher_name") or _last_part(job.get("teacher")) for job in jobs)
    models = " with ".join(filter(None, (_list(students, "students"), _list(teachers, "teachers"))))
    return f"{models or _list([source.path.name for source in sources], 'files')}: responses"


def _list(names: Iterable[str | None], what: str) -> str:
    """The names, or how many they are."""
    known = list(filter(None, names))
    return ", ".join(known) if len(known) <= MAX_NAMED else f"{len(known)} {what}"


def condition_names(sources: Sequence[Source]) -> dict[str, str]:
    """Conditions in words by what the records call them. Two with the same words keep their names after them."""
    words = {record.condition: source.words for source in sources for record in source.records if source.words}
    counts = Counter(words.values())
    return {name: said if counts[said] == 1 else f"{said}: {name}" for name, said in words.items()}


def lead_of(sources: Sequence[Source]) -> str | None:
    """The condition to read first: the trained relay under its own commands; None if no manifest says which it is."""
    learned = [source for source in sources if source.job.get("policy") == "learned"]
    trained = [source for source in learned if source.row and source.row.method.startswith("relay")]
    # the paper's own reward before its simple one; of several students without a row it cannot be told
    trained.sort(key=lambda source: source.row is not None and source.row.method != "relay")
    candidates = trained or (learned if len(learned) == 1 else [])
    return candidates[0].records[0].condition if candidates else None


def _places(path: Path) -> Sequence[Path]:
    """Results folders, a training's folder of samples, or a file of responses at a path."""
    return find_results([path], needs_texts=True) if path.is_dir() and not _of_training(path) else [path]


def _of_training(folder: Path) -> list[Path]:
    """The files of a training's samples, step by step (`relay_verl.trainer.sample_log`)."""
    return sorted(folder.glob("step_*.jsonl"))


def _read(place: Path) -> Source:
    if not place.is_dir():
        return Source(place, _read_file(place), {}, is_training=False)
    if files := _of_training(place):
        return Source(place, [record for file in files for record in _read_file(file)], {}, is_training=True)
    result = read_result(place)
    return Source(place, result.records, result.job, is_training=False)


def _read_file(path: Path) -> list[ResponseRecord]:
    with as_user_error(OSError, lambda error: f"{path}: {error.strerror}"):
        return read_records(path)


def _tell_apart(sources: Mapping[Path, Source]) -> list[Source]:
    num_sources = Counter(name for source in sources.values() for name in {r.condition for r in source.records})
    common = Path(os.path.commonpath(sources)) if len(sources) > 1 else Path()
    told_apart = []
    for path, source in sources.items():
        records = []
        for record in source.records:
            is_shared = num_sources[record.condition] > 1
            name = f"{record.condition} ({path.relative_to(common).as_posix()})" if is_shared else record.condition
            records.append(replace(record, condition=name))
        told_apart.append(replace(source, records=records))
    return told_apart


def _step_of(record: ResponseRecord) -> str | None:
    match = re.match(r"step (\d+)", record.condition)
    return match[1] if match else None


def _training_name(source: Source) -> str:
    """The recipe of the training whose samples these are, or its folder."""
    try:
        run = read_run(source.path.resolve().parent)
    except UserError:  # the record is damaged; its samples are not
        run = None
    if run and run.recipe:
        return run.recipe
    parents = [name for name in reversed(source.path.resolve().parts[:-1]) if name not in ("checkpoints", "/")]
    return parents[0] if parents else source.path.name


def _last_part(address: str | None) -> str:
    return (address or "").rstrip("/").rpartition("/")[2]
