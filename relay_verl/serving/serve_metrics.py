"""What Prometheus reads at `/metrics`: one registry a server, so that several in a process do not mix.

`relay_verl/serving/README.md` has the table. Counters move while responses are written, not when they end.
"""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from relay_verl.serving.settings import ServerState
from relay_verl.serving.token_metrics import TokenCounter, TokenHistogram
from relay_verl.serving.usage import RelayCount
from relay_verl.types import CallOutcome, CallRecord

_FIRST_TOKEN_S = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80, 160)
_BETWEEN_TOKENS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1, 2.5, 5, 10)
_WHOLE_S = (0.05, 0.1, 0.3, 0.5, 0.8, 1, 1.5, 2, 2.5, 5, 10, 15, 20, 30, 40, 50, 60, 120, 240, 480, 960)
ASKED = (CallOutcome.SERVED, CallOutcome.FAILED)
"""Outcomes of calls that reached the teacher."""


class ServeMetrics:
    """The metrics of one server.

    Args:
        state: how the server is.
        num_running: responses that are written now.
        num_waiting: responses that wait for a place.
        budget_left: teacher tokens left of this minute; None without a limit.
    """

    def __init__(
        self,
        state: Callable[[], ServerState],
        num_running: Callable[[], int],
        num_waiting: Callable[[], int],
        budget_left: Callable[[], int] | None,
    ):
        self.registry = CollectorRegistry()
        self.calls = Counter("relay:calls", "Commands by outcome", ["outcome"], registry=self.registry)
        self.tokens = TokenCounter("relay:tokens", "Response tokens by writer", "source", ("student", "teacher"))
        self.registry.register(self.tokens)
        self.prompt_tokens = Counter("relay:prompt_tokens", "Prompt tokens", registry=self.registry)
        cache = Counter(
            "relay:teacher_context_tokens", "Tokens the teacher read, by cache", ["cache"], registry=self.registry
        )
        self._cached, self._prefilled = cache.labels("hit"), cache.labels("miss")
        self.call_latency = Histogram(
            "relay:call_latency_seconds", "From a call to its last token", buckets=_WHOLE_S, registry=self.registry
        )
        self.teacher_failures = Counter("relay:teacher_failures", "Calls that failed", registry=self.registry)
        self.first_token = Histogram(
            "relay:time_to_first_token_seconds",
            "From a request to its first token",
            buckets=_FIRST_TOKEN_S,
            registry=self.registry,
        )
        self.between_tokens = TokenHistogram(
            "relay:inter_token_latency_seconds", "Between two pieces of a response", _BETWEEN_TOKENS_S
        )
        self.registry.register(self.between_tokens)
        self.whole = Histogram(
            "relay:e2e_request_latency_seconds",
            "From a request to its end",
            buckets=_WHOLE_S,
            registry=self.registry,
        )
        self.success = Counter(
            "relay:request_success", "Responses by why they ended", ["finished_reason"], registry=self.registry
        )
        self.errors = Counter("relay:request_errors", "Requests by error", ["code"], registry=self.registry)
        self.budget_refusals = Counter(
            "relay:budget_refusals", "Responses whose calls were turned off by a budget", registry=self.registry
        )
        for outcome in CallOutcome:  # so that a rate of a counter that has not moved is 0, not absent
            self.calls.labels(outcome.value)
        gauges = {
            "relay:requests_running": ("Responses that are written now", num_running),
            "relay:requests_waiting": ("Responses that wait for a place", num_waiting),
        }
        if budget_left is not None:
            gauges["relay:teacher_budget_left_tokens"] = ("Teacher tokens left of this minute", budget_left)
        for name, (words, read) in gauges.items():
            Gauge(name, words, registry=self.registry).set_function(read)
        self.registry.register(_StateCollector(state))

    def note_calls(self, calls: list[CallRecord]) -> None:
        """Count what became of commands."""
        for call in calls:
            self.calls.labels(call.outcome.value).inc()
            if call.outcome is CallOutcome.FAILED:
                self.teacher_failures.inc()
            if call.outcome in ASKED:
                self.call_latency.observe(call.latency_s)
        count = RelayCount()
        count.add_calls(calls)
        self._cached.inc(count.teacher_cached_tokens)
        self._prefilled.inc(count.teacher_prefilled_tokens)

    def page(self) -> bytes:
        """The text that Prometheus reads."""
        return generate_latest(self.registry)


class _StateCollector(Collector):
    """`relay:server_state`: 1 for the state that the server is in."""

    def __init__(self, state: Callable[[], ServerState]):
        self._state = state

    def collect(self) -> list[GaugeMetricFamily]:
        family = GaugeMetricFamily("relay:server_state", "1 for the state of the server", labels=["state"])
        for state in ServerState:
            family.add_metric([state.value], float(state is self._state()))
        return [family]
