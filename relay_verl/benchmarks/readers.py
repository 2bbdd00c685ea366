r"""How a row of each benchmark becomes a question and an answer, where `relay_verl.data.examples` is not enough. Pure.

Invariant: a reader never raises. What it cannot find is an empty question or None for an answer, which
`relay_verl.benchmarks.registry.load_benchmark` reports with the row's place.

Multiple choice: the options stand in a list, or, lettered, in the question itself. The right one is given by its
letter, by its number from 0, or by its text.

GPQA's file has the right option and three wrong ones in columns of their own. They are shuffled by a seed that is
derived from the row's id, so that a question has the same letters in every copy of the file and in every run.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from pathlib import Path

from relay_verl.data.columns import LETTERS, OPTIONS, first_text, values_of
from relay_verl.data.examples import Example, Row, make_example, own_id
from relay_verl.data.prompts import LETTERS as OPTION_LETTERS
from relay_verl.data.prompts import strip_wrapper, with_options
from relay_verl.data.schema import question_text, text_id
from relay_verl.data.truths import list_parts
from relay_verl.seeds import derive_seed

GPQA_OPTIONS = ("correct_answer", "incorrect_answer_1", "incorrect_answer_2", "incorrect_answer_3")
"""GPQA's columns of options, the right one first."""
CHOICE_ANSWERS = (*LETTERS, "reward_model")
"""Columns of which a multiple-choice row needs one."""
TASK_PREFIX = "bbeh_"
"""What the names of BBEH's folders of tasks begin with."""

_INLINE_OPTION = re.compile(r"^[ \t]*\(?([A-Z])[).:]\s*\S", re.MULTILINE)


def read_choice(row: Row) -> Example:
    """A multiple-choice row. A letter, number or text that no option has is not an answer."""
    question = strip_wrapper(question_text(row) or "")
    options = _options(row)
    if options is None:
        letters = _inline_letters(question)
        return make_example(row, question, _right_letter(row, letters, ()))
    answer = _right_letter(row, OPTION_LETTERS[: len(options)], options)
    return make_example(row, with_options(question, options) if question else "", answer)


def read_gpqa(row: Row) -> Example:
    """A row of GPQA's own file, or of a copy in another multiple-choice layout."""
    options = [first_text(row, (column,)) for column in GPQA_OPTIONS]
    question = strip_wrapper(question_text(row) or "")
    if not all(options):
        return read_choice(row)
    order = list(range(len(options)))
    random.Random(derive_seed(0, "gpqa", own_id(row) or text_id(question))).shuffle(order)
    shuffled = [options[index] or "" for index in order]
    letter = OPTION_LETTERS[order.index(0)]
    return make_example(row, with_options(question, shuffled) if question else "", letter)


def task_of_file(file: Path | None) -> str | None:
    """BBEH's task of an official file, under the name that the hub's copy gives it; None for any other file.

    >>> task_of_file(Path("benchmark_tasks/bbeh_time_arithmetic/task.json")), task_of_file(Path("mini/data.json"))
    ('time arithmetic', None)
    """
    if file is None:
        return None
    stem = file.parent.name if file.stem == "task" else file.name.removesuffix(file.suffix).removesuffix(".task")
    is_task = stem.startswith(TASK_PREFIX) or file.stem.endswith(".task")
    return stem.removeprefix(TASK_PREFIX).replace("_", " ") if is_task else None


def _options(row: Row) -> list[str] | None:
    """The options as texts; None without at least two, or with more than there are letters."""
    for value in values_of(row, OPTIONS):
        if isinstance(value, str) and value.startswith(("['", '["')):  # a CSV file has room for texts alone
            value = list_parts(value)
        if not isinstance(value, list) or not 2 <= len(value) <= len(OPTION_LETTERS):
            continue
        if all(isinstance(option, str | int | float) for option in value):
            return [str(option) for option in value]
    return None


def _inline_letters(question: str) -> str:
    """The letters of the options that a question holds, each at the start of a line; empty without a run from A on."""
    letters = _INLINE_OPTION.findall(question)
    return "".join(letters) if len(letters) > 1 and letters == list(OPTION_LETTERS[: len(letters)]) else ""


def _right_letter(row: Row, letters: str, options: Sequence[str]) -> str | None:
    reward_model = row.get("reward_model")
    given = list(values_of(row, LETTERS))
    if isinstance(reward_model, dict):
        given.append(reward_model.get("ground_truth"))
    for value in given:
        if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < len(letters):
            return letters[value]
        if not isinstance(value, str):
            continue
        letter = value.strip().strip("().").upper()
        if len(letter) == 1 and letter.isalpha():
            return letter if letter in letters else None
        matching = [index for index, option in enumerate(options) if option.strip() == value.strip()]
        if len(matching) == 1:
            return letters[matching[0]]
    return None
