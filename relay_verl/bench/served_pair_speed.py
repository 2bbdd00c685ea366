"""A relay server next to the bare servers of its two models, all running already: without calls (`serving_speed`), then
with them (`hand_over`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from relay_verl.bench.hand_over import bench_hand_overs
from relay_verl.bench.naive_proxy import NaiveProxy
from relay_verl.bench.running_server import reach
from relay_verl.bench.serving_speed import Load, bench_serving
from relay_verl.checkpoints.relay_file import RelayLimits
from relay_verl.serving.pair_options import STUDENT_KEY, TEACHER_KEY
from relay_verl.serving.settings import ServeSettings


@dataclass(frozen=True)
class ServedPairBench:
    """What is measured."""

    load: Load
    """What a round without calls sends."""
    questions: Sequence[Sequence[Mapping[str, Any]]]
    """Chats of a round with calls."""
    limits: RelayLimits
    """Limits of the pair's `relay.json`, which the naive proxy keeps, too."""
    max_tokens: int
    """Most tokens of an answer to a question."""
    temperature: float
    """At which questions are answered."""
    concurrencies: Sequence[int]
    """Requests at a time, each in rounds of its own."""
    rounds: int
    """Counted rounds of each."""

    async def run(self, url: str, student_url: str, teacher_url: str) -> str:
        """The tables. Keys come from the environment variables that `relay-verl serve` reads.

        Raises:
            UserError: an address that is none, or a `url` without a relay.
            EngineError: a server is down, or a request failed.
        """
        async with (
            reach("--url", url, ServeSettings.api_key_env) as relay,
            reach("--student-url", student_url, STUDENT_KEY) as student,
            reach("--teacher-url", teacher_url, TEACHER_KEY) as teacher,
        ):
            speed = await bench_serving(relay, student, self.load, self.concurrencies, self.rounds)
            naive = NaiveProxy(
                student,
                teacher,
                self.max_tokens,
                self.limits.max_calls,
                self.limits.max_tokens_per_call,
                self.temperature,
            )
            hand_overs = await bench_hand_overs(relay, naive, self.questions, self.concurrencies, self.rounds)
        return f"{speed}\n\n{hand_overs}"
