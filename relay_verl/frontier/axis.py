"""What a response costs, on four axes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from relay_verl.prices import PriceList
from relay_verl.traces.records import ResponseRecord
from relay_verl.traces.spending import spending


class Axis(StrEnum):
    """A kind of cost."""

    TOKENS = "teacher_tokens"
    """Tokens that the teacher writes, or that its API bills as written."""
    FLOPS = "teacher_flops"
    """The teacher's floating-point operations: 2 x parameters x tokens, prefill counted."""
    MONEY = "money"
    """Money for both models' tokens, at `relay.prices`."""
    SECONDS = "seconds"
    """Seconds from the prompt to the end of a response, among the others that are under way."""


@dataclass(frozen=True)
class AxisWords:
    """How people read an axis."""

    title: str
    """What it is, after 'by' or 'against'."""
    unit: str
    """Unit of its numbers; `{currency}` is that of the prices."""
    factor: float = 1.0
    """What a response's cost is multiplied with, so that the number is easy to read."""
    missing: str = ""
    """Why the axis is missing, and what to set; empty for one that never is."""


WORDS: Mapping[Axis, AxisWords] = {
    Axis.TOKENS: AxisWords("teacher tokens", "teacher tokens a response"),
    Axis.FLOPS: AxisWords(
        "teacher FLOPs",
        "teacher GFLOPs a response",
        factor=1e-9,
        missing="the teacher's parameters are not known: set relay.prices.teacher.num_parameters",
    ),
    Axis.MONEY: AxisWords(
        "money",
        "{currency} per 1,000 responses",
        factor=1000.0,
        missing="no prices: set relay.prices.teacher.preset, or relay.prices.currency with input and output",
    ),
    Axis.SECONDS: AxisWords("seconds", "seconds a response"),
}


@dataclass(frozen=True)
class Ledger:
    """What tokens cost in this run."""

    prices: PriceList | None
    """`relay.prices`; None without any."""
    num_parameters: int | None
    """The teacher's, for FLOPs; None if they are not known."""

    def unit(self, axis: Axis) -> str:
        """Unit of an axis."""
        return WORDS[axis].unit.format(currency=self.prices.currency if self.prices else "")

    @property
    def axes(self) -> tuple[Axis, ...]:
        """The axes that are known."""
        is_known = {Axis.FLOPS: self.num_parameters is not None, Axis.MONEY: self.prices is not None}
        return tuple(axis for axis in Axis if is_known.get(axis, True))

    def cost(self, record: ResponseRecord, axis: Axis) -> float:
        """Cost of a response on an axis of `axes`, in the axis's unit."""
        spent = spending([record], self.prices, {"teacher": self.num_parameters})
        costs = {
            Axis.TOKENS: spent.teacher.num_output,
            Axis.FLOPS: spent.teacher_flops,
            Axis.MONEY: spent.cost,
            Axis.SECONDS: record.latency_s,
        }
        cost = costs[axis]
        assert cost is not None, axis
        return WORDS[axis].factor * cost
