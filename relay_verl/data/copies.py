"""A dataset's questions, each once: copies that agree are one row, and copies that disagree are none. Pure.

Invariant: `settle` gives each example back or notes it as dropped, the order of the first copies kept. The
questions and the ids of what it gives back are distinct.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from relay_verl.data.dropped import DroppedRows, DropReason
from relay_verl.data.sources import Example
from relay_verl.data.truths import Truth
from relay_verl.grading import grade


class QuestionCopies:
    """Collects examples; memory grows with the distinct ones alone."""

    def __init__(self) -> None:
        self.num_contradicted = 0
        """Questions whose copies have different answers."""
        self._copies: dict[str, Counter[Example]] = {}  # question without its blanks -> its rows, first one first
        self._question_of_id: dict[str, str] = {}  # the question that has an id first
        self._reused_ids: Counter[Example] = Counter()  # examples of other questions under such an id

    def add(self, example: Example) -> None:
        """Note an example, which has an answer."""
        question = " ".join(example.question.split())
        if question not in self._copies and example.id in self._question_of_id:
            self._reused_ids[example] += 1
            return
        self._question_of_id.setdefault(example.id, question)
        self._copies.setdefault(question, Counter())[example] += 1

    def settle(self, dropped: DroppedRows) -> Iterator[Example]:
        """The first copy of each question whose copies agree; notes all others."""
        for copies in self._copies.values():
            first = next(iter(copies))
            answers = list(dict.fromkeys(copy.answer or "" for copy in copies))
            if all(_is_same_answer(answers[0], other) for other in answers[1:]):
                yield first
                copies[first] -= 1
                for copy, num_rows in copies.items():
                    if num_rows:
                        _drop_duplicate(copy, first, num_rows, dropped)
                continue
            self.num_contradicted += 1
            for copy, num_rows in copies.items():
                dropped.add(
                    copy.id,
                    DropReason.CONTRADICTION,
                    num_rows,
                    first_id=first.id,
                    question=first.question,
                    answer=copy.answer,
                    answers=answers,
                )
        for example, num_rows in self._reused_ids.items():
            first = next(iter(self._copies[self._question_of_id[example.id]]))
            _drop_duplicate(example, first, num_rows, dropped)


def _drop_duplicate(example: Example, first: Example, num_rows: int, dropped: DroppedRows) -> None:
    same = "id" if first.id == example.id else "question"
    other = {} if first.answer == example.answer else {"answer": example.answer, "first_answer": first.answer}
    dropped.add(example.id, DropReason.DUPLICATE, num_rows, same=same, first_id=first.id, **other)


def _is_same_answer(answer: Truth, other: Truth) -> bool:
    """Whether the grader takes one for the other. Texts that are equal are not parsed."""
    return any(
        grade(given if "\\boxed" in given else rf"\boxed{{{given}}}", truth).is_correct
        for parts, truth in ((answer, other), (other, answer))
        for given in ((parts,) if isinstance(parts, str) else parts)
    )
