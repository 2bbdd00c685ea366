r"""Where a row of any dataset has its question, its answer and its id: one list of names for all commands. Pure.

Invariant: of several columns the first that says something counts, not the first that is there. A merged table has
`answer: null` next to a worked solution, and that row has an answer.

Names are compared without case, and blanks count as underscores: `Problem`, `Short Answer` and `short_answer` need no
entries of their own. The names inside each tuple stand in the order in which they are tried.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache

QUESTIONS = (
    "problem",
    "question",
    "raw_problem",
    "problem_statement",
    "query",
    "input",
    "prompt",
    "messages",
    "instruction",
)
"""Columns of a question: a text, or a list of messages."""
ANSWERS = (
    "answer",
    "expected_answer",
    "final_answer",
    "short_answer",
    "correct_answer",
    "gold_answer",
    "target",
    "label",
    "ground_truth",
)
"""Columns of an answer. `reward_model.ground_truth`, as in verl's schema, comes after them."""
SOLUTIONS = ("solution",)
"""Columns of a worked solution, which holds the answer in its last box or behind `####`."""
IDS = ("id", "unique_id", "uuid", "question_id", "problem_id", "record_id")
"""Columns of the dataset's own id."""
OPTIONS = ("options", "choices")
"""Columns of a multiple-choice question's options."""
LETTERS = ("answer_letter", "answer", "correct_answer", "target", "label", "answer_index", "answer_idx")
"""Columns of the right option: its letter, its number from 0, or its text."""
TASKS = ("task", "task_name")
"""Columns of the task that a question belongs to, where a benchmark has several."""


def values_of(row: Mapping[str, object], names: Sequence[str]) -> Iterator[object]:
    """What the row has in the columns of these names, in the order of the names, without nulls.

    >>> list(values_of({"Short Answer": "7", "answer": None, "Problem": "3+4"}, ANSWERS))
    ['7']
    """
    columns: dict[str, list[str]] = {}
    for column in row:
        columns.setdefault(_plain(column), []).append(column)
    for name in names:
        for column in columns.get(name, ()):
            if row[column] is not None:
                yield row[column]


def has_any(row: Mapping[str, object], names: Sequence[str]) -> bool:
    """Whether the row has a column of one of these names, also an empty one."""
    return any(_plain(column) in names for column in row)


def first_text(row: Mapping[str, object], names: Sequence[str]) -> str | None:
    """The first text in these columns that is not blank, without the blanks around it."""
    return next((value.strip() for value in values_of(row, names) if isinstance(value, str) and value.strip()), None)


@lru_cache(maxsize=4096)
def _plain(column: object) -> str:
    return str(column).strip().lower().replace(" ", "_")
