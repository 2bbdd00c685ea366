"""Whether a question is the student's or needs the teacher, as far as responses can say (paper 3.2.3). Pure.

Invariant: a scenario is said of a question only where it was measured: by several samples under one condition, as in
training, or by several conditions together. That no teacher solves a question is said only where a teacher was asked.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from relay_verl.rewards import Scenario, find_scenario
from relay_verl.traces.records import ResponseRecord

Question = tuple[str, str, str]
"""Condition, benchmark and id: what the samples of one question under one condition share."""


@dataclass(frozen=True)
class QuestionFacts:
    """What is known of a question under one condition."""

    num_samples: int
    """Responses under this condition."""
    num_right: int
    """Those that are right."""
    scenario: str
    """Such as 'teacher-dependent'; empty where it was not measured."""
    basis: str
    """What it follows from, in words; empty with it."""


def question_of(record: ResponseRecord) -> Question:
    """The key of `find_questions`."""
    return record.condition, record.benchmark, record.id


def find_questions(records: Iterable[ResponseRecord], *, is_training: bool = False) -> Mapping[Question, QuestionFacts]:
    """Facts of each question under each condition.

    Args:
        records: the responses.
        is_training: the conditions are steps of a training, whose students differ: they are not put together.
    """
    alone: dict[Question, list[ResponseRecord]] = {}
    joined: dict[tuple[str, str], list[ResponseRecord]] = {}
    for record in records:
        alone.setdefault(question_of(record), []).append(record)
        joined.setdefault((record.benchmark, record.id), []).append(record)
    return {key: _facts(samples, [] if is_training else joined[key[1:]]) for key, samples in alone.items()}


def _facts(samples: Sequence[ResponseRecord], joined: Sequence[ResponseRecord]) -> QuestionFacts:
    num_right = sum(record.is_correct for record in samples)
    if len(samples) > 1:
        scenario, basis = _scenario(samples), f"{num_right} of {len(samples)} samples right under this condition"
    elif len({record.condition for record in joined}) > 1:
        of_all = sum(record.is_correct for record in joined)
        scenario, basis = _scenario(joined), f"{of_all} of {len(joined)} responses right, all conditions together"
    else:
        scenario = basis = ""
    return QuestionFacts(len(samples), num_right, scenario, basis if scenario else "")


def _scenario(samples: Sequence[ResponseRecord]) -> str:
    """The scenario; the teacher's own response is one with its help. Empty where it would blame a teacher that was
    never asked."""
    helped = [record.has_called or record.num_teacher_tokens > 0 for record in samples]
    scenario = find_scenario([record.is_correct for record in samples], helped)
    is_known = scenario is not Scenario.TEACHER_UNSOLVABLE or any(record.num_teacher_tokens for record in samples)
    return scenario.replace("_", "-") if is_known else ""
