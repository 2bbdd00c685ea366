"""Which responses to show as cards: a few that say something about relaying, picked by rule and not by taste. Pure.

In turn: right with a call, best where the same question was answered wrong without one; wrong though it called, best
where it was answered right without one; right without a call, best under a condition that calls. Of these a question
that is not shown yet comes first, then the shortest response. Where a kind has none left, the others fill up.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle, islice
from typing import Any

from relay_verl.traces.records import ResponseRecord
from relay_verl.types import CallOutcome

EASY_TOKENS = 400
"""Tokens up to which a response fits on a card whole or nearly so."""

WITH, WITHOUT = "with a call", "without a call"
_TURNS: tuple[tuple[bool, str], ...] = ((True, WITH), (False, WITH), (True, WITHOUT))
"""Whether the response is right, and who wrote in it: what is picked in turn."""


def name_kind(record: ResponseRecord) -> str:
    """What a card is an example of, such as 'right with a call'."""
    return f"{'right' if record.is_correct else 'wrong'} {_help_of(record)}"


def _help_of(record: ResponseRecord) -> str:
    """Whether the student asked for help and got it; a baseline's calls are not the student's."""
    if any(call["outcome"] == CallOutcome.SERVED and call["has_command"] for call in record.calls):
        return WITH
    if record.num_teacher_tokens:
        return "with the teacher"
    return "with a failed call" if record.has_called else WITHOUT


def pick_instructive(records: Sequence[ResponseRecord], num: int) -> list[ResponseRecord]:
    """Up to `num` responses; fewer only if there are fewer."""
    whole = [record for record in records if record.is_completed] or list(records)
    alone = [record for record in whole if _help_of(record) == WITHOUT]
    alone_right = {_question(record) for record in alone if record.is_correct}
    alone_wrong = {_question(record) for record in alone if not record.is_correct}
    relayed = {record.condition for record in whole if _help_of(record) == WITH}

    def rank(record: ResponseRecord) -> tuple[bool, bool, bool, int]:
        """Lower is more instructive."""
        question = _question(record)
        if _help_of(record) == WITHOUT:
            evidence = (record.condition not in relayed, False)
        else:
            shows, blurs = (alone_wrong, alone_right) if record.is_correct else (alone_right, alone_wrong)
            evidence = (question not in shows, question in blurs)
        return (*evidence, record.num_tokens > EASY_TOKENS, record.num_tokens)

    remaining = sorted(whole, key=rank)
    picked: list[ResponseRecord] = []
    for turn in islice(cycle(_TURNS), min(num, len(remaining))):
        shown = {_question(record) for record in picked}

        def misses(record: ResponseRecord, turn: tuple[bool, str] = turn, shown: Any = shown) -> tuple[bool, ...]:
            kind = record.is_correct, _help_of(record)
            return kind != turn, _question(record) in shown, kind not in _TURNS

        picked.append(min(remaining, key=misses))  # the first of the best, so the most instructive one
        remaining = [record for record in remaining if record is not picked[-1]]
    return picked


def _question(record: ResponseRecord) -> tuple[str, str]:
    return record.benchmark, record.id
