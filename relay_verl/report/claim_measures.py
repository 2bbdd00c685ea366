"""What a claim may be about: measures of one condition, a number for each training seed.

    accuracy               share of right answers, the mean over benchmarks
    call_rate              share of responses that called
    call_ratio             the teacher's tokens over all tokens, the mean over benchmarks
    tokens_per_call        tokens that a call asks for
    gap_recovered          accuracy above the student alone, over the teacher's above it (paper 4.4)
    above_router           accuracy above that of a random router with as large a share (1, Figure 1)
    saved_against_router   share of the tokens of a router as accurate that is saved (abstract)
    asked_by_needed        rank correlation of the tokens asked for with those that the question needs, over questions
                           that called
    called_by_grade        rank correlation of calling with the question's grade

Percent, but for tokens and rank correlations. NaN where a measure means nothing: a correlation of what does not vary,
a gap where the teacher is not better.

A new measure is a function of `Answers` and the `References`, with its name, unit and words in MEASURES. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from relay_verl.errors import UserError
from relay_verl.report.rank_correlation import MIN_QUESTIONS, correlate_ranks
from relay_verl.report.statistics import Average, Measure
from relay_verl.traces.question_table import QuestionFacts
from relay_verl.traces.records import ResponseRecord


@dataclass(frozen=True)
class Answers:
    """What the training seeds of a condition answered to the same questions: sums over the samples of each,
    [num_questions, num_seeds]."""

    benchmarks: np.ndarray
    """Data source of each question, [num_questions]."""
    facts: Mapping[str, np.ndarray]
    """What is known of each question, [num_questions]."""
    counts: Mapping[str, np.ndarray]
    """By name: samples, right, called, tokens, teacher_tokens, calls, asked (tokens that served calls asked for)."""

    @property
    def num_questions(self) -> int:
        """Questions."""
        return len(self.benchmarks)

    @property
    def num_seeds(self) -> int:
        """Training seeds."""
        return int(self.counts["samples"].shape[1])

    @cached_property
    def strata(self) -> Sequence[np.ndarray]:
        """The places of each benchmark's questions."""
        return [np.flatnonzero(self.benchmarks == name) for name in np.unique(self.benchmarks)]

    def take(self, places: np.ndarray) -> Answers:
        """Those to some of the questions."""
        return replace(
            self,
            benchmarks=self.benchmarks[places],
            facts={name: values[places] for name, values in self.facts.items()},
            counts={name: values[places] for name, values in self.counts.items()},
        )

    def ratio(self, over: str, under: str, average: Average = Average.MEAN) -> np.ndarray:
        """A ratio of two sums of each seed, the mean over benchmarks unless they are pooled: [num_seeds]."""
        both = np.stack([self.counts[over], self.counts[under]], axis=-1)
        return Measure(tuple(both[places] for places in self.strata), average).of_seeds()


def answers_of(seeds: Sequence[Sequence[ResponseRecord]], questions: QuestionFacts) -> Answers:
    """The answers in the order of the questions, and nothing of questions that are not answered.

    Raises:
        UserError: a seed answered other questions.
    """
    answered = {(record.benchmark, record.id) for record in seeds[0]}
    places = [number for number, name in enumerate(questions.names) if name in answered]
    if len(places) != len(answered):
        raise UserError("responses to questions that questions.csv does not have: it is of another version")
    row_of = {questions.names[place]: row for row, place in enumerate(places)}
    names = ("samples", "right", "called", "tokens", "teacher_tokens", "calls", "asked")
    sums = np.zeros((len(places), len(seeds), len(names)))
    for seed, records in enumerate(seeds):
        for record in records:
            if (record.benchmark, record.id) not in row_of:
                raise UserError(f"{record.benchmark}/{record.id}: not all training seeds answered it")
            sums[row_of[record.benchmark, record.id], seed] += (
                *(1, record.is_correct, record.has_called, record.num_tokens, record.num_teacher_tokens),
                *(record.num_calls, record.num_requested_tokens),
            )
    if not sums[..., 0].all():
        raise UserError("not all training seeds answered the same questions")
    return Answers(
        np.array([questions.names[place][0] for place in places]),
        {name: np.array([values[place] for place in places]) for name, values in questions.facts.items()},
        {name: sums[..., number] for number, name in enumerate(names)},
    )


@dataclass(frozen=True)
class References:
    """What some measures are relative to, on the same questions."""

    student: Answers | None
    """The student alone, before any training."""
    teacher: Answers | None
    """The teacher alone."""

    @property
    def known(self) -> Sequence[Answers]:
        """Both, or none."""
        return [one for one in (self.student, self.teacher) if one is not None]

    def take(self, places: np.ndarray) -> References:
        """On some of the questions."""
        return References(*(one and one.take(places) for one in (self.student, self.teacher)))

    @property
    def accuracies(self) -> tuple[float, float]:
        """Of the student and of the teacher, shares of 1."""
        assert self.student and self.teacher
        student, teacher = (float(one.ratio("right", "samples").mean()) for one in (self.student, self.teacher))
        return student, teacher


Compute = Callable[[Answers, References], np.ndarray]
"""Gives a number for each training seed, [num_seeds]."""


@dataclass(frozen=True)
class ClaimMeasure:
    """A measure that claims may name."""

    words: str
    """What tables call it."""
    compute: Compute
    is_percent: bool = True
    """Whether it is a share of 1, which tables and claims have in percent."""
    needs_references: bool = False
    """Whether it is relative to the student and the teacher alone."""
    needs_facts: tuple[str, ...] = ()
    """What has to be known of each question."""
    is_proportion: bool = False
    """Whether it counts successes, so that questions that are all alike still leave room for others."""

    def values(self, answers: Answers, references: References) -> np.ndarray:
        """Of each training seed, as tables and claims have it: [num_seeds]."""
        return (100.0 if self.is_percent else 1.0) * self.compute(answers, references)

    @property
    def unit(self) -> str:
        """Behind a value."""
        return "%" if self.is_percent else ""


def _gap_recovered(answers: Answers, references: References) -> np.ndarray:
    student, teacher = references.accuracies
    gap = teacher - student
    return (answers.ratio("right", "samples") - student) / (gap if gap > 0 else np.nan)


def _above_router(answers: Answers, references: References) -> np.ndarray:
    student, teacher = references.accuracies
    router = student + answers.ratio("teacher_tokens", "tokens") * (teacher - student)
    return answers.ratio("right", "samples") - router


def _saved_against_router(answers: Answers, references: References) -> np.ndarray:
    share = _gap_recovered(answers, references)
    return 1 - answers.ratio("teacher_tokens", "tokens") / np.where(share > 0, share, np.nan)


def _asked_by_needed(answers: Answers, references: References) -> np.ndarray:
    asked, has_called = answers.counts["asked"], answers.counts["calls"] > 0
    needed = answers.facts["needed"]
    return np.array([_rank_correlation(asked[h, s], needed[h]) for s, h in enumerate(has_called.T)])


def _called_by_grade(answers: Answers, references: References) -> np.ndarray:
    return np.array([_rank_correlation(called, answers.facts["grade"]) for called in answers.counts["called"].T])


def _rank_correlation(values: np.ndarray, others: np.ndarray) -> float:
    """Spearman's; NaN for too few pairs or where one side does not vary."""
    return (
        float(correlate_ranks(np.stack([values, others], axis=-1)[None])[0]) if len(values) >= MIN_QUESTIONS else np.nan
    )


MEASURES: dict[str, ClaimMeasure] = {
    "accuracy": ClaimMeasure("accuracy", lambda a, _: a.ratio("right", "samples"), is_proportion=True),
    "call_rate": ClaimMeasure("call rate", lambda a, _: a.ratio("called", "samples"), is_proportion=True),
    "call_ratio": ClaimMeasure("call ratio", lambda a, _: a.ratio("teacher_tokens", "tokens")),
    "tokens_per_call": ClaimMeasure(
        "tokens asked for a call", lambda a, _: a.ratio("asked", "calls", Average.POOLED), is_percent=False
    ),
    "gap_recovered": ClaimMeasure("share of the gap recovered", _gap_recovered, needs_references=True),
    "above_router": ClaimMeasure("accuracy above the random router's", _above_router, needs_references=True),
    "saved_against_router": ClaimMeasure(
        "tokens saved against the random router", _saved_against_router, needs_references=True
    ),
    "asked_by_needed": ClaimMeasure(
        "rank correlation of tokens asked for and needed", _asked_by_needed, is_percent=False, needs_facts=("needed",)
    ),
    "called_by_grade": ClaimMeasure(
        "rank correlation of calling and grade", _called_by_grade, is_percent=False, needs_facts=("grade",)
    ),
}
"""By name."""
