"""What responses take: requests, tokens, money, time; measured on a few of them and scaled to many. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

from relay_verl.prices import PriceList
from relay_verl.traces.consumption import union_length
from relay_verl.traces.records import ResponseRecord
from relay_verl.traces.spending import spending


@dataclass(frozen=True)
class Workload:
    """What some responses take, all of them together."""

    num_responses: float = 0.0
    num_requests: float = 0.0
    """Turns of the student and calls to the teacher."""
    num_student_tokens: float = 0.0
    """Tokens that the student writes."""
    num_teacher_tokens: float = 0.0
    """Tokens that the teacher writes, or that its API bills as written."""
    num_read_tokens: float = 0.0
    """Tokens that both models read anew."""
    money: float = 0.0
    """At the run's prices; 0 without any."""
    busy_s: float = 0.0
    """Seconds of all responses, one after the other."""
    wall_s: float = 0.0
    """Seconds in which some response is under way, as many at a time as in the trial."""

    def __add__(self, other: Workload) -> Workload:
        return Workload(*(getattr(self, each.name) + getattr(other, each.name) for each in fields(self)))

    def scaled(self, num_responses: float) -> Workload:
        """The same for another number of responses.

        >>> Workload(num_responses=4, num_requests=6, wall_s=2.0).scaled(100).num_requests
        150.0

        Raises:
            ValueError: without a response there is nothing to scale.
        """
        if not self.num_responses:
            raise ValueError("no response to scale")
        factor = num_responses / self.num_responses
        return Workload(*(getattr(self, each.name) * factor for each in fields(self)))

    def least_s(self, at_a_time: int) -> float:
        """Seconds if a response takes no longer where `at_a_time` of them are under way than it did in the trial.

        >>> Workload(num_responses=8, busy_s=16.0, wall_s=4.0).least_s(at_a_time=16)
        2.0
        """
        if not self.num_responses:
            return 0.0
        return min(self.wall_s, max(self.busy_s / at_a_time, self.busy_s / self.num_responses))


def workload_of(records: Sequence[ResponseRecord], prices: PriceList | None) -> Workload:
    """What these responses of one run took."""
    spent = spending(records, prices, {})
    usages = (spent.student, spent.teacher)
    return Workload(
        num_responses=len(records),
        num_requests=sum(_num_requests(record) for record in records),
        num_student_tokens=spent.student.num_output,
        num_teacher_tokens=spent.teacher.num_output,
        num_read_tokens=sum(usage.num_input - usage.num_cached for usage in usages),
        money=spent.cost or 0.0,
        busy_s=sum(record.latency_s for record in records),
        wall_s=union_length((record.started_at, record.started_at + record.latency_s) for record in records),
    )


def _num_requests(record: ResponseRecord) -> int:
    turns = sum(segment["source"] == "student" for segment in record.segments)
    return turns + sum(call["num_context"] > 0 for call in record.calls)
