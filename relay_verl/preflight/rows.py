"""The rows of the data files as training reads them: each one checked, and the few that are tried.

Invariant: what is said of a row names its file and its number in it, counted from 1; training, `filter` and
`warmup-data` judge a row by the same function, `relay_verl.data.schema.check_row`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from relay_verl.data.files import iter_file
from relay_verl.data.parquet import iter_parquet
from relay_verl.data.schema import MAX_NAMED, check_row
from relay_verl.data.truths import Truth, truth_of
from relay_verl.errors import UserError
from relay_verl.grading import Grader, kind_of

SUFFIXES = (".parquet", ".json", ".jsonl")
"""What verl's dataset reads, by the end of a file's name."""
MAX_SHAPES = 8
"""Most rows of a file that are tried: the first of each sequence of roles."""
MAX_GRADED = 50
"""Rows at the beginning of a file whose answers are graded against themselves; of other kinds than math all are, for
those need no parser."""
_READ = ("reward_model", "ability", "extra_info", "data_source")


@dataclass(frozen=True)
class TrialRow:
    """A row that is put to the chat templates and to the endpoints before a run."""

    place: str
    """Its file and number, for messages."""
    messages: Sequence[Mapping[str, Any]]
    """Its prompt."""
    data_source: str | None = None
    """Its data source; None if it does not say."""

    @property
    def roles(self) -> tuple[str, ...]:
        """Who speaks in it, in order."""
        return tuple(message["role"] for message in self.messages)


def checked_rows(name: str, place: str, prompt_key: str) -> Iterator[dict[str, Any]]:
    """The rows of a local file, each with its prompt at `prompt`, its answer and what else a check reads.

    Args:
        name: the file.
        place: what messages call it.
        prompt_key: the column of the prompt, `data.prompt_key`.

    Raises:
        UserError: the file cannot be read or has no row, or a row has no usable prompt or answer; names the row.
    """
    path, number = Path(name).expanduser(), 0
    needed = (prompt_key, "reward_model")
    is_parquet = path.suffix == ".parquet"
    rows = iter_parquet(path, needed, only=(prompt_key, *_READ)) if is_parquet else iter_file(path)
    for number, row in enumerate(rows, start=1):
        if missing := [column for column in needed if row.get(column) is None]:
            raise UserError(
                f"{place}: row {number} has no {' and no '.join(missing)}; it has "
                f"{', '.join(key for key, value in row.items() if value is not None) or 'no column'}"
            )
        yield check_row({**row, "prompt": row[prompt_key]}, f"{place}: row {number}")
    if not number:
        raise UserError(f"{place} has no rows")


def trial_rows(name: str, place: str, prompt_key: str) -> list[TrialRow]:
    """The first row of each sequence of roles in a local file, MAX_SHAPES at most: a chat template that takes a
    question may refuse a system message that comes in row 500."""
    rows = checked_rows(name, place, prompt_key)
    return first_of_each_shape(
        TrialRow(f"{place}: row {number}", row["prompt"], row.get("data_source"))
        for number, row in enumerate(rows, start=1)
    )


def first_of_each_shape(rows: Iterable[TrialRow]) -> list[TrialRow]:
    """The first of these rows for each sequence of roles, MAX_SHAPES at most."""
    shapes: dict[tuple[str, ...], TrialRow] = {}
    for row in rows:
        shapes.setdefault(row.roles, row)
        if len(shapes) == MAX_SHAPES:
            break
    return list(shapes.values())


def grade_against_itself(place: str, rows: Iterable[Mapping[str, Any]], grader: Grader) -> str | None:
    r"""A warning on rows whose own answer, in a box, the grader does not take for right: no response can be right.

    Args:
        place: what messages call their file.
        rows: each with verl's `reward_model` and `ability`.
        grader: judges as training does.

    Raises:
        UserError: this is so of each row that was graded.
    """
    wrong: list[str] = []
    num_graded = 0
    for number, row in enumerate(rows, start=1):
        kind = kind_of(row.get("ability"))
        if kind == "math" and number > MAX_GRADED:
            continue
        truth = truth_of(row["reward_model"])
        num_graded += 1
        if not grader.grade(_boxed(truth), truth, kind).is_correct:
            first = truth if isinstance(truth, str) else truth[0]
            wrong.append(f"row {number} (ability {kind}, ground truth {first[:60]!r})")
    if not wrong:
        return None
    named = ", ".join(wrong[:MAX_NAMED]) + (", ..." if len(wrong) > MAX_NAMED else "")
    line = f"{place}: of {num_graded} rows graded against their own answer, {len(wrong)} count as wrong: {named}"
    if len(wrong) == num_graded:
        raise UserError(
            f"{line}; no response could earn a reward: ability 'choice' needs a letter as ground truth, and every "
            "other answer must fit in a box"
        )
    return line


def _boxed(truth: Truth) -> str:
    """A response that gives this truth as its answer."""
    first = truth if isinstance(truth, str) else truth[0]
    return first if "\\boxed" in first else f"\\boxed{{{first}}}"
