"""The query router: whole questions go to the teacher by a score of the student's. Pure.

The score is the mean log-probability of the tokens of the student's own answer. The student answers every question; the
share P of questions whose answers it is least sure of go to the teacher, which answers them anew. That is a cascade by
confidence: it needs no training and no labels, but the student's answer is paid for, too, and comes first in time. A
router such as RouteLLM's or BEST-Route's reads the question alone, by a model that is trained for it; none is trained
here.

Both answers are those of the methods in which each model answers alone, so a query router asks no model. Its threshold
is the quantile of the scores of these very questions, without their verdicts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from relay_verl.traces.records import ResponseRecord

Key = tuple[str, str, int]


def route(
    name: str, share: float, student: Sequence[ResponseRecord], teacher: Sequence[ResponseRecord]
) -> list[ResponseRecord] | None:
    """The responses of the router; None if the student's engine gives no log-probabilities.

    Args:
        name: of the method.
        share: of each benchmark's responses that go to the teacher.
        student: responses of the student alone, with `mean_logprob`.
        teacher: those of the teacher alone to the same questions.
    """
    if not any(record.mean_logprob is not None for record in student):
        return None
    answers = {_key(record): record for record in teacher}
    routed = _least_sure(share, student)
    return [
        _join(name, record, answers[_key(record)]) if _key(record) in routed else replace(record, condition=name)
        for record in student
    ]


def _least_sure(share: float, records: Sequence[ResponseRecord]) -> set[Key]:
    """The share of each benchmark's responses with the lowest scores. One without a score, which has no token of its
    own or was not completed, is the least sure."""
    routed: set[Key] = set()
    for benchmark in dict.fromkeys(record.benchmark for record in records):
        scored = [
            (float("-inf") if record.mean_logprob is None else record.mean_logprob, _key(record))
            for record in records
            if record.benchmark == benchmark
        ]
        routed |= {key for _, key in sorted(scored)[: round(share * len(scored))]}
    return routed


def _join(name: str, student: ResponseRecord, teacher: ResponseRecord) -> ResponseRecord:
    """The teacher's answer after the student's, which is not read but has its cost."""
    return replace(
        teacher,
        condition=name,
        segments=[*student.segments, *teacher.segments],
        num_tokens=student.num_tokens + teacher.num_tokens,
        latency_s=student.latency_s + teacher.latency_s,
    )


def _key(record: ResponseRecord) -> Key:
    return record.benchmark, record.id, record.sample
