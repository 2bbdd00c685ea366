"""`questions.csv`: what is known of each question of some benchmarks, for results that are kept as small data files.

    # {"sha256": ..., "world": {"tiny": ...}}
    benchmark,id,family,grade,needed
    tiny/mul,tiny-mul-7-8,mul,2,3

Records do not keep the `extra_info` of their question; this file does, but for what only numbers the rows. `world` is
the SHA-256 of the benchmarks' questions, as it stands in the manifest of every evaluation: another version of the
questions is another world, and its results are refused.

Invariant: a file that is read is as it was written (`relay_verl.traces.sealed`).
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from relay_verl.benchmarks.registry import Questions
from relay_verl.errors import UserError
from relay_verl.files import replace_file
from relay_verl.traces.sealed import read_sealed, seal

QUESTIONS = "questions.csv"
_NUMBERING = ("index", "id", "split")
"""Of `extra_info`, what says nothing of a question."""

Fact = int | str
"""A number or a word."""


@dataclass(frozen=True)
class QuestionFacts:
    """The questions of some benchmarks, in the order in which they are asked."""

    world: Mapping[str, str]
    """SHA-256 of each benchmark's questions, by its name (`relay_verl.benchmarks.registry.Questions.sha256`)."""
    names: Sequence[tuple[str, str]]
    """Data source and id of each question."""
    facts: Mapping[str, Sequence[Fact]]
    """What is known of them, by the name of the fact: one value a question, '' where it is not known."""

    @cached_property
    def number_of(self) -> Mapping[tuple[str, str], int]:
        """The place of each question."""
        return {name: number for number, name in enumerate(self.names)}


def facts_of(questions: Mapping[str, Questions]) -> QuestionFacts:
    """What the rows of loaded benchmarks say, by the benchmarks' names.

    Raises:
        UserError: a fact is neither a number nor a word.
    """
    rows = [row for loaded in questions.values() for row in loaded.rows]
    names = [name for row in rows for name in row["extra_info"] if name not in _NUMBERING]
    facts: dict[str, list[Fact]] = {name: [] for name in names}
    for row in rows:
        for name, values in facts.items():
            values.append(_checked(name, row["extra_info"].get(name)))
    return QuestionFacts(
        {name: loaded.sha256 for name, loaded in questions.items()},
        [(str(row["data_source"]), str(row["extra_info"]["id"])) for row in rows],
        facts,
    )


def _checked(name: str, value: Any) -> Fact:
    if value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise UserError(f"extra_info.{name}: {value!r}: expected a whole number or a word")
    return value


def write_questions(folder: Path, questions: QuestionFacts) -> Path:
    """Write `questions.csv` in a folder of data files; gives its path."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["benchmark", "id", *questions.facts])
    for number, name in enumerate(questions.names):
        table.writerow([*name, *(values[number] for values in questions.facts.values())])
    path = folder / QUESTIONS
    replace_file(path, seal({"world": dict(questions.world)}, text.getvalue()))
    return path


def read_questions(path: Path) -> QuestionFacts:
    """The questions of a file.

    Raises:
        UserError: it is not there, it was edited, or it is not a table of questions.
    """
    header, body = read_sealed(path)
    head, *lines = csv.reader(io.StringIO(body))
    if head[:2] != ["benchmark", "id"] or not isinstance(header.get("world"), dict):
        raise UserError(f"{path}: expected a table of questions, as `relay-verl condense` writes it")
    columns = list(zip(*lines, strict=True)) or [()] * len(head)
    facts = {name: _read(values) for name, values in zip(head[2:], columns[2:], strict=True)}
    return QuestionFacts(header["world"], list(zip(*columns[:2], strict=True)), facts)


def find_questions(paths: Sequence[Path]) -> QuestionFacts:
    """The one table of questions at or below `paths`.

    Raises:
        UserError: there is none, or there are tables of different versions.
    """
    places = [path if path.is_dir() else path.parent for path in paths]
    files = sorted({file for place in places for file in place.rglob(QUESTIONS)})
    tables = {file: read_questions(file) for file in files}
    if not tables:
        raise UserError(f"{', '.join(map(str, paths))}: expected {QUESTIONS}; `relay-verl condense` writes it")
    first, *others = tables
    for other in others:
        if tables[other].world != tables[first].world:
            raise UserError(f"{first} and {other} are two versions of the questions: give the results of one")
    return tables[first]


def _read(values: Sequence[str]) -> list[Fact]:
    """A column: whole numbers if all that is known are."""
    is_number = all(value.removeprefix("-").isdecimal() for value in values if value)
    return [int(value) if value and is_number else value for value in values]
