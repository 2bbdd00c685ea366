"""Whose verdict counts as right: the rule's, or the LLM judge's as in the paper (4.2, C.2). Pure: no torch, Ray, verl.

Invariant: no number mixes the two. By judge, a response without the judge's verdict is an error and never takes the
rule's instead.

Departures from the paper, which reports GPT-4o-mini's verdicts:

1. The default is the rule: it needs no paid endpoint and gives the same number twice. `--by judge` is the paper's.
2. A response without a box is wrong without being asked about; what the paper's judge is given then is not known.
3. A reply that is neither Yes nor No counts as wrong, and so does a question that the judge refuses for good. A judge
   that was not heard (no endpoint, no reply) gives no verdict, and `relay-verl judge` asks it again.
4. Letters and words (BBEH, MMLU-Pro, SuperGPQA) stay by rule: C.2 names the judge for mathematics, where an answer can
   be written in many ways.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from enum import StrEnum

from relay_verl.benchmarks.registry import REGISTRY
from relay_verl.errors import UserError
from relay_verl.traces.records import REFUSED, UNCLEAR_REPLY, ResponseRecord
from relay_verl.traces.results import Result


class VerdictsBy(StrEnum):
    """Whose verdicts a report counts."""

    RULE = "rule"
    JUDGE = "judge"


def parse_verdicts_by(value: str) -> VerdictsBy:
    """What `--by` says.

    Raises:
        UserError: another word; lists the valid ones.
    """
    if value not in list(VerdictsBy):
        raise UserError(f"--by: {value!r} is not one of {', '.join(VerdictsBy)}")
    return VerdictsBy(value)


def is_for_judge(benchmark: str) -> bool:
    """Whether the judge decides on this benchmark: not where answers are letters or words (departure 4)."""
    return benchmark not in REGISTRY or REGISTRY.find(benchmark).kind == "math"


def verdict_of(record: ResponseRecord, by: VerdictsBy) -> bool | None:
    """Whether a response is right; None by judge if the judge was not asked or not heard."""
    if by is VerdictsBy.RULE or not is_for_judge(record.benchmark):
        return record.is_correct
    if record.judge is None:
        return None
    is_final = has_unclear_reply(record) or is_refused(record)
    return False if is_final else record.judge["is_correct"]


def has_unclear_reply(record: ResponseRecord) -> bool:
    """Whether the judge replied, but neither Yes nor No (departure 3)."""
    return record.judge is not None and record.judge["error"] == UNCLEAR_REPLY


def is_refused(record: ResponseRecord) -> bool:
    """Whether the judge refuses the question for good (departure 3)."""
    return record.judge is not None and record.judge["error"].startswith(REFUSED)


def take_verdicts(records: Iterable[ResponseRecord], by: VerdictsBy) -> list[ResponseRecord]:
    """The records with `is_correct` as `by` says.

    Raises:
        ValueError: a response has no verdict; `check_verdicts` says beforehand which results have all of them.
    """
    if by is VerdictsBy.RULE:
        return list(records)
    taken = []
    for record in records:
        verdict = verdict_of(record, by)
        if verdict is None:
            raise ValueError(f"{record.benchmark}/{record.id}/{record.sample} has no verdict of a judge")
        taken.append(replace(record, is_correct=verdict))
    return taken


def check_verdicts(results: Sequence[Result], by: VerdictsBy) -> None:
    """Raise UserError if some responses have no verdict by `by`: names the first such results and how many."""
    missing = {result.folder: sum(verdict_of(record, by) is None for record in result.records) for result in results}
    unjudged = [result for result in results if missing[result.folder]]
    if not unjudged:
        return
    first, *others = unjudged
    further = f"; {len(others)} more results lack verdicts, too" if others else ""
    raise UserError(
        f"--by judge: {missing[first.folder]:,} of {len(first.records):,} responses in {first.folder} have no verdict "
        f"of a judge{further}; `relay-verl judge {first.folder} --judge-url URL --judge-model NAME` asks one, --by "
        "rule needs none"
    )
