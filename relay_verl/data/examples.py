r"""How a row of any dataset becomes a question and an answer, by the one list of `relay_verl.data.columns`. Pure.

Invariant: a reader never raises. What it cannot find is an empty question or None for an answer, which its caller
reports with the row's place. A question never carries a known instruction: the prompt adds the paper's.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from relay_verl.data.columns import ANSWERS, IDS, SOLUTIONS, TASKS, first_text, has_any, values_of
from relay_verl.data.prompts import strip_wrapper
from relay_verl.data.schema import QUESTION_COLUMNS, plain_answer, question_text, text_id
from relay_verl.data.truths import Truth, join_parts, list_parts
from relay_verl.grading import boxed_answer

Row = Mapping[str, Any]
HASHES = "####"
"""What stands before the answer in GSM8K's solutions."""
TEXT_ANSWERS = (*ANSWERS, *SOLUTIONS, "reward_model")
"""Columns of which a row that is not multiple choice needs one."""
_WORD = re.compile(r"\\[A-Za-z]+|[A-Za-z]{2,}")
_JOINING_WORDS = ("and", "or")


@dataclass(frozen=True)
class Example:
    """What training and evaluation need of a row."""

    question: str
    """The question alone; empty if the row has none."""
    answer: Truth | None
    """Its answer; None if the row has none that a response can be graded by."""
    id: str
    """The dataset's own id of the row, or one made from the question."""
    task: str | None = None
    """The task it belongs to, where the dataset has several."""


Reader = Callable[[Row], Example]


def read_columns(
    *, is_math: bool = True, any_of: bool = False, has_plain_solutions: bool = False, with_context: bool = False
) -> Reader:
    """A reader of rows with a column for the question and one for the answer.

    Args:
        is_math: whether an answer may be a worked solution, which holds it in its last box or behind `####`.
        any_of: whether one answer of a list is enough.
        has_plain_solutions: whether a column of SOLUTIONS may hold the answer alone.
        with_context: whether a column `context` has a passage that stands before the question.
    """

    def read(row: Row) -> Example:
        question = question_text(row)
        context = first_text(row, ("context",)) if with_context else None
        return make_example(row, question, read_answer(row, is_math, any_of, has_plain_solutions), context)

    return read


def make_example(row: Row, question: str | None, answer: Truth | None, context: str | None = None) -> Example:
    """The example of a row, with the dataset's own id if it has one."""
    text = strip_wrapper(question or "")
    if text and context:
        text = f"{strip_wrapper(context)}\n{text}"
    return Example(text, answer, own_id(row) or text_id(text), first_text(row, TASKS))


def read_answer(row: Row, is_math: bool, any_of: bool, has_plain_solutions: bool) -> Truth | None:
    """The first answer that says something: in ANSWERS, in verl's `reward_model`, or in SOLUTIONS."""
    reward_model = row.get("reward_model")
    given = list(values_of(row, ANSWERS))
    if isinstance(reward_model, Mapping):
        given.append(reward_model.get("ground_truth"))
        any_of = any_of or reward_model.get("any_of") is True
    for values, find in ((given, answer_in if is_math else str.strip), (values_of(row, SOLUTIONS), _solution_answer)):
        for value in values:
            parts = [part for text in list_parts(value) if (part := find(text))]
            if parts:
                return join_parts(parts, any_of=any_of)
    if has_plain_solutions:
        texts = [text for value in values_of(row, SOLUTIONS) for text in list_parts(value)]
        return texts[0] if texts else None
    return None


def answer_in(text: str) -> str | None:
    r"""The answer in what an answer's column says: a worked solution there holds it in its last box, or behind `####`.

    >>> answer_in("He has 3 + 4 eggs.\n#### 7"), answer_in(r"The sum is $3+4=\boxed{7}$."), answer_in("7")
    ('7', '7', '7')
    """
    return text.strip() if _is_row_of_boxes(text) else _solution_answer(text) if _is_worked(text) else text.strip()


def own_id(row: Row) -> str | None:
    """The dataset's own id of a row; None if it has none."""
    extra = row.get("extra_info")
    ids = [*values_of(row, IDS), *([extra.get("id"), extra.get("index")] if isinstance(extra, Mapping) else [])]
    return next((id for value in ids if (id := plain_answer(value))), None)


def missing_columns(row: Row, answers: Sequence[str] = TEXT_ANSWERS) -> str | None:
    """What a row would need to have a question and an answer, as the end of a message; None if it has the columns."""
    if has_any(row, QUESTION_COLUMNS) and has_any(row, answers):
        return None
    return (
        f"it has the columns {', '.join(map(str, row)) or 'none'}; expected a question in one of "
        f"{', '.join(QUESTION_COLUMNS)}, and an answer in one of {', '.join(answers)}"
    )


def _is_worked(text: str) -> bool:
    return HASHES in text or r"\boxed" in text


def _is_row_of_boxes(text: str) -> bool:
    r"""Whether several boxes are the answer together: `\boxed{2}, \boxed{3}`, without a sentence around them."""
    if HASHES in text or text.count(r"\boxed") < 2:
        return False
    return all(word.startswith("\\") or word.lower() in _JOINING_WORDS for word in _WORD.findall(text))


def _solution_answer(solution: str) -> str | None:
    if HASHES in solution:
        return solution.rpartition(HASHES)[2].strip() or None
    return boxed_answer(solution, is_truth=True)
