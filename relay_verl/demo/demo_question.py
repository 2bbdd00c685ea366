"""The questions of a shipped pair's world, with their answers: `questions.jsonl`. Pure.

Invariant: what is drawn was held out from the training, takes turns among the kinds of questions, and depends on the
seed alone.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import chain, zip_longest
from pathlib import Path
from random import Random

from relay_verl.config.validation import validate
from relay_verl.config.values import STRICT
from relay_verl.errors import UserError, as_user_error, suggest
from relay_verl.files import reading


@dataclass(frozen=True)
class DemoQuestion:
    """A question and its answer."""

    __pydantic_config__ = STRICT

    id: str
    """The dataset's."""
    benchmark: str
    """Its kind, such as tiny/mul."""
    text: str
    """As a person asks it, without the instruction of the prompt."""
    answer: str
    """The right one."""
    is_held_out: bool
    """Whether training has not seen it."""


def write_questions(questions: Iterable[DemoQuestion]) -> str:
    """The file's content, a question a line."""
    return "".join(f"{json.dumps(asdict(question), ensure_ascii=False)}\n" for question in questions)


def read_questions(file: Path) -> list[DemoQuestion]:
    """The questions of a file.

    Raises:
        UserError: it cannot be read, or a line is not a question; names the file and the line.
    """
    with reading(file):
        lines = file.read_bytes().splitlines()  # bytes: a text has other line breaks, too
    questions = []
    for number, line in enumerate(lines, start=1):
        with as_user_error(ValueError, f"{file}, line {number}"):
            questions.append(validate(DemoQuestion, json.loads(line), ""))
    return questions


def draw_questions(questions: Sequence[DemoQuestion], num: int, seed: int) -> list[DemoQuestion]:
    """Questions that were held out, the kinds of questions in turns.

    Args:
        questions: of the pair.
        num: how many.
        seed: of the draw.

    Raises:
        UserError: there are not as many.
    """
    kinds: dict[str, list[DemoQuestion]] = {}
    for question in questions:
        if question.is_held_out:
            kinds.setdefault(question.benchmark, []).append(question)
    most = sum(map(len, kinds.values()))
    if num > most:
        raise UserError(f"--num-questions: {num}: the pair has {most} questions that were held out from its training")
    shuffled = [Random(f"{seed}-{kind}").sample(of_kind, k=len(of_kind)) for kind, of_kind in kinds.items()]
    return [question for question in chain.from_iterable(zip_longest(*shuffled)) if question is not None][:num]


def find_question(text: str, questions: Sequence[DemoQuestion]) -> DemoQuestion:
    """The question that a person means, by its whole text or by what tells it from the others; blanks and case do not
    matter.

    >>> world = [DemoQuestion(t, "tiny", f"What is {t}?", "", True) for t in ("7*8", "12+5")]
    >>> find_question("7 * 8", world).text, find_question("What is 12+5?", world).text
    ('What is 7*8?', 'What is 12+5?')

    Raises:
        UserError: the world has no such question; names some that it has.
    """
    texts = [question.text for question in questions]
    start = _num_shared(texts)
    end = _num_shared([text[start:][::-1] for text in texts])
    short = [text[start : len(text) - end] for text in texts]
    asked = _squeezed(text)
    for question, brief in zip(questions, short, strict=True):
        if asked and asked in (_squeezed(question.text), _squeezed(brief)):
            return question
    one_of_each = {question.benchmark: brief for question, brief in zip(questions, short, strict=True)}
    raise UserError(
        f"--question: {text!r} is not one of the {len(questions)} questions that this pair knows, such as "
        f"{', '.join(map(repr, one_of_each.values()))}{suggest(asked, short)}"
    )


def _num_shared(texts: Sequence[str]) -> int:
    """How many characters all of them begin with."""
    differ = (number for number, letters in enumerate(zip(*texts, strict=False)) if len(set(letters)) > 1)
    return next(differ, min(map(len, texts), default=0))


def _squeezed(text: str) -> str:
    return "".join(text.split()).casefold()
