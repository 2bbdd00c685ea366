"""What the responses of a run cost: tokens of both models, floating-point operations, and money where prices are known.
Pure.

Invariant: all of it follows from the records and from what the run's manifest notes of prices and parameters.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from relay_verl.prices.price import PriceList
from relay_verl.prices.usage import Usage, student_usage, teacher_usage
from relay_verl.traces.records import ResponseRecord


@dataclass(frozen=True)
class Spending:
    """The cost of some responses, all of them together."""

    num_responses: int
    student: Usage
    """What the student read and wrote."""
    teacher: Usage
    """What the teacher read and wrote, or its API bills."""
    student_flops: int | None
    """2 x parameters x tokens, prefill included; None where its parameters are not known."""
    teacher_flops: int | None
    """The same of the teacher."""
    currency: str | None
    """Of the money below; None without prices."""
    student_cost: float | None
    """Money for the student's tokens; None without prices."""
    teacher_cost: float | None
    """Money for the teacher's."""
    cost_of_teacher_alone: float | None
    """Money for responses of the same lengths by the teacher alone (`PriceList.cost_of_teacher_alone`)."""

    @property
    def cost(self) -> float | None:
        """Money for both models."""
        if self.student_cost is None or self.teacher_cost is None:
            return None
        return self.student_cost + self.teacher_cost

    @property
    def cost_share(self) -> float | None:
        """Money over that of the teacher alone; None without prices, or where the teacher is free."""
        return self.cost / self.cost_of_teacher_alone if self.cost is not None and self.cost_of_teacher_alone else None


def spending(
    records: Sequence[ResponseRecord], prices: PriceList | None, num_parameters: Mapping[str, int | None]
) -> Spending:
    """What these responses of one run cost.

    Args:
        records: the responses.
        prices: of the run (`relay_verl.traces.results.Result.prices`).
        num_parameters: of 'student' and 'teacher'.
    """
    student, teacher, alone = Usage(), Usage(), 0.0
    for record in records:
        parts = [(segment["source"], segment["num_tokens"]) for segment in record.segments]
        student += student_usage(record.num_prompt_tokens, parts)
        teacher += teacher_usage(record.calls)
        alone += prices.cost_of_teacher_alone(record.num_prompt_tokens, record.num_tokens) if prices else 0.0
    return Spending(
        num_responses=len(records),
        student=student,
        teacher=teacher,
        student_flops=_flops(student, num_parameters.get("student")),
        teacher_flops=_flops(teacher, num_parameters.get("teacher")),
        currency=prices.currency if prices else None,
        student_cost=prices.student.cost(student) if prices else None,
        teacher_cost=prices.teacher.cost(teacher) if prices else None,
        cost_of_teacher_alone=alone if prices else None,
    )


def _flops(usage: Usage, num_parameters: int | None) -> int | None:
    """0 of a model that takes no part, whatever its parameters."""
    if not usage.num_computed:
        return 0
    return None if num_parameters is None else usage.flops(num_parameters)
