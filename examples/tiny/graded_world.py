"""The graded world: questions of five grades that need 1 to 25 tokens of the teacher.

Four families of questions whose answers are numbers of a known length, and one that no one can answer:

    -  difference   1 digit            83-76=7
    +  sum          3 digits           512+61=573
    *  product      6 digits           512*345=176640
    ^  power        12 or 25 digits    612^4=140283207936, 512^9=2417851639229258349412352
    #  a hash       no one knows it: the queries that the paper's filter takes out (3.2.2)

The digits are all that a question needs of the teacher, in one stretch (`Question.needed` tokens), and the same number
stands in the answer, which is copied:

    We compute 83-76=7. So the answer is \\boxed{7}. That is all that was asked for.

Each family has five grades, by the left operand: the larger, the harder. A model knows each digit of an answer with a
probability (`Knowledge.digit_rate`): the share of pre-training examples that state it; the others state a mistake. All
digits of one answer are equally well known and told independently of each other, so that a right beginning does not
tell the rest, and a long answer is harder to get right alone than a short one. Who does not know an answer writes
arbitrary digits, in the right number. The form of a response and the copy are always told right.
It shares the language of the plain world (world.py). Pure but for the tokenizer; no model.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from random import Random

import world
from transformers import PreTrainedTokenizerFast
from world import LABELS, Part, datasets_among, rows_among, text_of, tokenizer_of

GRADES = range(1, 6)


class Family(StrEnum):
    SUB = "-"
    ADD = "+"
    MUL = "*"
    POW = "^"
    HASH = "#"


@dataclass(frozen=True)
class Question(world.Question):
    """One question, such as 512*345."""

    @property
    def needed(self) -> int:
        """How many tokens of the teacher give the answer to a student that knows nothing of it; 0 where none do."""
        return 0 if self.family is Family.HASH else len(str(self.truth))

    @property
    def grade(self) -> int:
        """1 (easy) to 5 (hard), by the left operand; 0 where the family has none."""
        for form in FORMS:
            if form.family is self.family and len(str(self.truth)) == form.num_digits:
                return 1 + sum(self.left >= start for start in form.starts[1:-1])
        return 0

    @property
    def facts(self) -> dict[str, object]:
        return {**super().facts, "grade": self.grade, "needed": self.needed}


@dataclass(frozen=True)
class Form:
    """The questions of one family whose answers have the same length."""

    family: Family
    num_digits: int
    starts: tuple[int, int, int, int, int, int]
    """Left operands: those of grade g are from starts[g - 1] to below starts[g]."""
    rights: range
    """Right operands; a question is one of the form if its answer has `num_digits` digits."""
    num_train: tuple[int, int, int, int, int]
    """Questions of each grade for GRPO; more of the hard ones, so that about half of those that the teacher can answer,
    the student cannot."""
    num_test: int
    """Questions of each grade that are held out from it."""


FORMS = (
    Form(Family.SUB, 1, (50, 60, 70, 80, 90, 100), range(40, 100), (6, 12, 18, 27, 27), 12),
    Form(Family.ADD, 3, (500, 600, 700, 800, 900, 1000), range(10, 100), (6, 12, 18, 27, 27), 12),
    Form(Family.MUL, 6, (500, 600, 700, 800, 900, 1000), range(200, 1000), (4, 8, 12, 18, 18), 8),
    Form(Family.POW, 12, (563, 600, 700, 800, 900, 1000), range(4, 5), (2, 3, 5, 7, 8), 5),
    Form(Family.POW, 25, (470, 490, 510, 530, 550, 570), range(9, 10), (1, 2, 3, 4, 5), 3),
)
NUM_HASHES_IN_TEST = 40


@dataclass(frozen=True)
class Knowledge:
    """How well a model knows the answers of each grade."""

    known: tuple[float, float, float, float, float]
    """Share of each grade's questions of whose answers it knows every digit rather than not."""
    width: float
    """Share of a grade's questions that it half knows: the digits of the best of them it always writes, those of the
    worst never."""

    def digit_rate(self, question: Question) -> float:
        """The probability with which a digit of the answer is told right."""
        if question.family is Family.HASH:
            return 0.0
        margin = self.known[question.grade - 1] - hardness(question)
        return min(1.0, max(0.0, 0.5 + margin / self.width))


@cache
def hardness(question: Question) -> float:
    """A question's rank among those of its form and grade, 0 to 1, the same for every model."""
    peers = sorted(
        (q for q in questions(question.family) if (q.grade, q.needed) == (question.grade, question.needed)),
        key=lambda q: hashlib.sha256(q.id.encode()).digest(),
    )
    return (peers.index(question) + 0.5) / len(peers)


@cache
def questions(family: Family) -> tuple[Question, ...]:
    """All questions of a family, in a fixed order."""
    if family is Family.HASH:
        return tuple(Question(family, left, right) for left in range(500, 516) for right in range(2, 8))
    chosen: list[Question] = []
    for form in FORMS:
        for grade in GRADES if form.family is family else ():
            lefts = range(form.starts[grade - 1], form.starts[grade])
            candidates = [Question(family, left, right) for left in lefts for right in form.rights]
            candidates = [q for q in candidates if q.truth > 0 and len(str(q.truth)) == form.num_digits]
            chosen += Random(f"{LABELS[family]}-{grade}").sample(
                candidates, k=form.num_train[grade - 1] + form.num_test
            )
    return tuple(chosen)


def all_questions() -> list[Question]:
    """All questions of all families, in a fixed order."""
    return [question for family in Family for question in questions(family)]


def response_parts(question: Question, computed: Part, boxed: Part) -> list[Part]:
    """The response whose numbers are the given parts."""
    return [
        Part(f"We compute {question.expression}="),
        computed,
        Part(". So the answer is \\boxed{"),
        boxed,
        Part("}. That is all that was asked for."),
    ]


def response_text(question: Question, number: str) -> str:
    """The response that states `number` throughout."""
    part = Part(number)
    return text_of(response_parts(question, part, part))


def draw_number(question: Question, knowledge: Knowledge, rng: Random) -> str:
    """An answer as a model of this knowledge is told it, digit by digit."""
    rate = knowledge.digit_rate(question)
    truth = str(question.truth)
    if rate == 0.0:
        return "".join(rng.choice("0123456789") for _ in truth)
    mistakes = Random(question.id)
    wrong = [str((int(digit) + mistakes.randint(1, 9)) % 10) for digit in truth]
    return "".join(right if rng.random() < rate else other for right, other in zip(truth, wrong, strict=True))


def draw_example(question: Question, rng: Random, knowledge: Knowledge) -> list[Part]:
    """One response to train a model on."""
    number = Part(draw_number(question, knowledge, rng))
    return response_parts(question, number, number)


def split_questions(seed: int) -> dict[str, list[Question]]:
    """Questions for GRPO ('train') and held out from it ('test'): of each form and grade as many as `FORMS` says.

    The models see all of them in pre-training: an answer is a fact that is known or not. What is held out is the
    experience of asking for it.
    """
    split: dict[str, list[Question]] = {"train": [], "test": []}
    num_test = {(form.family, form.num_digits): form.num_test for form in FORMS} | {
        (Family.HASH, 0): NUM_HASHES_IN_TEST
    }
    groups: dict[tuple[Family, int, int], list[Question]] = {}
    for question in all_questions():
        groups.setdefault((question.family, question.needed, question.grade), []).append(question)
    for (family, needed, grade), group in groups.items():
        shuffled = Random(f"{seed}-{LABELS[family]}-{needed}-{grade}").sample(group, k=len(group))
        held_out = num_test[family, needed]
        split["test"] += shuffled[:held_out]
        split["train"] += shuffled[held_out:]
    return split


def rows(chosen: Iterable[Question], split: str) -> list[dict[str, object]]:
    """Rows in verl's dataset schema."""
    return rows_among(all_questions(), chosen, split)


def datasets(seed: int) -> dict[str, list[dict[str, object]]]:
    """The rows of each file, of all families."""
    return datasets_among(all_questions(), split_questions(seed))


def build_tokenizer() -> PreTrainedTokenizerFast:
    """The tokenizer of the graded world's prompts and responses."""
    return tokenizer_of(text for q in all_questions() for text in (q.prompt, response_text(q, str(q.truth))))
