"""A method as a point: its accuracy and what a response costs, both as measures that pair up question by question."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial

from relay_verl.frontier.axis import Axis, Ledger
from relay_verl.frontier.hull import Place
from relay_verl.frontier.measuring import Measured
from relay_verl.frontier.method import Method
from relay_verl.report.statistics import Estimate, Measure, accuracy, estimate, measure
from relay_verl.traces.records import ResponseRecord


@dataclass(frozen=True, eq=False)
class Point:
    """One method on all axes."""

    method: Method
    num_responses: int
    """Those of all training seeds."""
    accuracy: Measure
    """Mean over benchmarks."""
    costs: Mapping[Axis, Measure]
    """A response's cost, likewise, in the axis's unit."""

    @property
    def name(self) -> str:
        """The method's."""
        return self.method.name

    @cached_property
    def accuracy_estimate(self) -> Estimate:
        """With its interval."""
        return estimate(self.accuracy)

    @cached_property
    def cost_estimates(self) -> Mapping[Axis, Estimate]:
        """Likewise, by axis."""
        return {axis: estimate(cost) for axis, cost in self.costs.items()}

    def place(self, axis: Axis) -> Place:
        """Cost and accuracy."""
        return self.costs[axis].value, self.accuracy.value


def points_of(measured: Sequence[Measured], ledger: Ledger) -> list[Point]:
    """The methods as points, over the benchmarks that all of them answered."""
    benchmarks = list(dict.fromkeys(record.benchmark for record in measured[0].seeds[0]))
    return [_point(one, benchmarks, ledger) for one in measured]


def _point(one: Measured, benchmarks: Sequence[str], ledger: Ledger) -> Point:
    def counts(record: ResponseRecord, axis: Axis) -> tuple[float, float]:
        return ledger.cost(record, axis), 1

    return Point(
        one.method,
        sum(map(len, one.seeds)),
        accuracy(one.seeds, benchmarks),
        {
            axis: replace(measure(one.seeds, benchmarks, partial(counts, axis=axis)), is_share=False)
            for axis in ledger.axes
        },
    )
