"""Prometheus metrics that one event loop moves once a token: prometheus_client's own take a lock for each number."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector


class TokenHistogram(Collector):
    """Counts values by their bucket.

    Args:
        name: of the metric.
        words: what it is.
        bounds: upper bounds of the buckets, rising.
    """

    def __init__(self, name: str, words: str, bounds: Sequence[float]):
        self._name = name
        self._words = words
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def observe(self, value: float) -> None:
        """Count one value."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def collect(self) -> Iterable[HistogramMetricFamily]:
        """What Prometheus reads."""
        family = HistogramMetricFamily(self._name, self._words)
        buckets, total = [], 0
        for bound, count in zip([*map(str, map(float, self._bounds)), "+Inf"], self._counts, strict=True):
            total += count
            buckets.append((bound, float(total)))
        family.add_metric([], buckets, self._sum)
        return [family]


class TokenCounter(Collector):
    """A counter by one label, filled once a token.

    Args:
        name: of the metric, without `_total`.
        words: what it is.
        label: its label.
        values: those that the label may have.
    """

    def __init__(self, name: str, words: str, label: str, values: Sequence[str]):
        self._name = name
        self._words = words
        self._label = label
        self.counts = dict.fromkeys(values, 0)
        """The counts by the label's value."""

    def collect(self) -> Iterable[CounterMetricFamily]:
        """What Prometheus reads."""
        family = CounterMetricFamily(self._name, self._words, labels=[self._label])
        for value, count in self.counts.items():
            family.add_metric([value], float(count))
        return [family]
