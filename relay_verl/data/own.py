"""Questions of the user's own: any file with a question and an answer in each row, under any column names. Pure.

Invariant: behind `OwnColumns.rename` a row has its question and its answer where `relay_verl.data.columns` looks for
them, and nothing else there; a row without the columns is an error that names its place and the columns it has.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from relay_verl.data.columns import ANSWERS, LETTERS, QUESTIONS, has_any
from relay_verl.data.examples import TEXT_ANSWERS, read_columns
from relay_verl.data.files import READERS
from relay_verl.data.sources import HUB_PREFIX, DatasetSource, HubId, parse_source
from relay_verl.errors import UserError, suggest

_NAME = re.compile(r"\w[\w.+-]*")
_OTHERS = re.compile(r"[^\w.+-]+")


@dataclass(frozen=True)
class OwnColumns:
    """Where a file of the user's own has its question and its answer."""

    question: str | None = None
    """The question's column; None looks for one of the usual names."""
    answer: str | None = None
    """The answer's column; likewise."""

    @property
    def is_given(self) -> bool:
        """Whether a column is named."""
        return self.question is not None or self.answer is not None

    def rename(self, row: Mapping[str, Any], place: str) -> Mapping[str, Any]:
        """The row with the named columns under the usual names, in place of all others that a reader would look at.

        >>> OwnColumns("Frage", "Loesung").rename({"Frage": "1+1?", "Loesung": 2, "answer": "no"}, "sums.csv: row 1")
        {'problem': '1+1?', 'answer': 2}

        Raises:
            UserError: it has no such columns; names `place`.
        """
        _check(row, place, "question", self.question, QUESTIONS)
        _check(row, place, "answer", self.answer, (*TEXT_ANSWERS, *LETTERS))
        named: dict[str, Any] = {}
        hidden: list[str] = []
        if self.question is not None:
            named[QUESTIONS[0]] = row[self.question]
            hidden += QUESTIONS
        if self.answer is not None:
            named[ANSWERS[0]] = row[self.answer]
            hidden += (*TEXT_ANSWERS, *LETTERS)
        is_kept = {name: name not in (self.question, self.answer) and not has_any({name: 0}, hidden) for name in row}
        return {**named, **{name: value for name, value in row.items() if is_kept[name]}}


def _check(row: Mapping[str, Any], place: str, what: str, column: str | None, usual: Sequence[str]) -> None:
    """Raise UserError if the row has not the named column, or none of the usual ones where no column is named."""
    columns = ", ".join(map(str, row)) or "none"
    if column is None and not has_any(row, usual):
        raise UserError(
            f"{place} has no column that is known to hold the {what}; it has the columns {columns}: name one with "
            f"--{what}-column, or call it one of {', '.join(dict.fromkeys(usual))}"
        )
    if column is not None and column not in row:
        raise UserError(
            f"{place} has no column --{what}-column {column!r}; it has the columns {columns}"
            f"{suggest(column, map(str, row))}"
        )


def find_own(text: str) -> Path | HubId | None:
    """The copy that a command line names where a dataset's name could stand; None if it looks like a name.

    >>> find_own("sums/train.csv"), find_own("math-500"), str(find_own("hub:me/sums"))
    (PosixPath('sums/train.csv'), None, 'hub:me/sums')
    """
    path = Path(text).expanduser()
    is_path = "/" in text or path.suffix.lower() in READERS or path.exists()
    return parse_source(text) if is_path or text.startswith(HUB_PREFIX) else None


def own_name(name: str | None, source: Path | HubId, taken: Sequence[str], option: str) -> str:
    """The name of a dataset of the user's own, in lower case: as given, or the file's with - for what no name has.

    Args:
        name: as given; None if it is not.
        source: where the dataset is.
        taken: names of the datasets that have an entry here.
        option: how a command line gives the name.

    Raises:
        UserError: it cannot be a name, or another dataset has it.
    """
    default = source.absolute().stem if isinstance(source, Path) else source.id.rpartition("/")[2]
    chosen = (_OTHERS.sub("-", default).strip("-.+") or "own" if name is None else name).lower()
    if not _NAME.fullmatch(chosen):
        raise UserError(f"{option} {chosen!r}: a name has letters, digits and . _ + - alone; give one")
    if chosen in taken:
        raise UserError(f"{option} {chosen!r} is the name of another dataset; give {source} a name of its own")
    return chosen


def own_source(name: str, columns: OwnColumns) -> DatasetSource:
    """A dataset to train on whose rows are the user's own."""
    read = read_columns(has_plain_solutions=True)
    return DatasetSource(name=name, hub_id=None, split="train", read=read, rename=columns.rename)
