"""Curves that are measured, over engines whose speed is known."""

import asyncio
from typing import Any

import pytest

from relay_verl.bench.curves import (
    Bench,
    Comparison,
    busy,
    comparisons_to_markdown,
    loads_of,
    trajectories_of,
    workload_of,
)
from relay_verl.bench.scale import simulate
from relay_verl.bench.scenario import Scenario
from relay_verl.engines.base import Generation
from relay_verl.types import CallOutcome, CallRecord, RelayStatus, RelayTrajectory, Segment
from tests.helpers.virtual_clock import now, run_virtually

PREFILL_S, DECODE_S, MOST_TOGETHER = 0.01, 0.02, 4


class Engine:
    """Reads one prompt at a time, and writes a token of up to four texts every 20 ms."""

    def __init__(self) -> None:
        self._reading = asyncio.Lock()
        self._writing = asyncio.Semaphore(MOST_TOGETHER)
        self.prompts: list[tuple[int, ...]] = []

    async def generate(self, prompt_ids: list[int], *, max_tokens: int, **_: Any) -> Generation:
        self.prompts.append(tuple(prompt_ids))
        async with self._reading:
            await asyncio.sleep(PREFILL_S)
        async with self._writing:
            await asyncio.sleep((max_tokens - 1) * DECODE_S)
        return Generation([1] * max_tokens, None, "length")


def test_the_curve_of_replicas_whose_speed_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relay_verl.bench.curves.time.monotonic", now)
    prompts = [list(range(number, number + 20)) for number in range(16)]

    async def run() -> tuple[list[Engine], Any]:
        engines = [Engine(), Engine()]
        return engines, await Bench(engines, prompts, stop=["</call>"], most_tokens=108, rounds=3).curve(
            cached_share=0.5
        )

    engines, curve = run_virtually(run())
    assert [count for count, _ in curve.decode] == [1, 2, 4, 8], "each replica gets its share of 16"
    rates = [rate for _, rate in curve.decode]
    assert rates == pytest.approx([50, 100, 200, 200], rel=0.01), "the prefill is in no rate"
    assert curve.prefill_s_per_token == pytest.approx(PREFILL_S / 20)
    assert curve.cached_share == 0.5
    asked = [prompt for engine in engines for prompt in engine.prompts]
    assert len(set(asked)) == len(asked), "no prompt comes twice, so no cache has one"


def trajectory(*lengths: int) -> RelayTrajectory:
    writers = ("student", "teacher")
    segments = [Segment(writers[index % 2], [1] * length) for index, length in enumerate(lengths)]  # type: ignore[arg-type]
    calls = [CallRecord(CallOutcome.SERVED, length, length) for length in lengths[1::2]]
    return RelayTrajectory([1] * 6, segments, RelayStatus.COMPLETED, calls)


def test_the_work_of_a_batch_is_that_of_its_responses() -> None:
    batch = [trajectory(10), trajectory(4, 8, 2), trajectory(3, 4, 3, 2), trajectory(30)]
    workload = workload_of(batch, num_responses=4)
    assert (workload.prompt_tokens, workload.call_share, workload.calls_per_response) == (6, 0.5, 1.5)
    assert (workload.max_calls, workload.response_tokens.max, workload.tokens_per_call.max) == (2, 30, 8)
    assert [each.turns for each in trajectories_of(batch)] == [(10,), (4, 8, 2), (3, 4, 3, 2), (30,)]
    assert workload_of([trajectory(5)], 1).call_share == 0, "no calls at all"


async def test_an_engine_that_is_kept_busy_has_so_many_requests_all_the_time() -> None:
    running: list[int] = []

    class Counting:
        num = 0

        async def generate(self, prompt_ids: list[int], *, max_tokens: int, **_: Any) -> Generation:
            self.num += 1
            running.append(self.num)
            await asyncio.sleep(0)
            self.num -= 1
            return Generation([1] * max_tokens, None, "length")

    engine = Counting()
    async with busy(engine, [[1], [2]], num=3, num_tokens=5):
        while len(running) < 30:
            await asyncio.sleep(0)
    assert max(running) == 3


def test_how_busy_each_model_is_during_a_batch() -> None:
    def calling(latency_s: float) -> RelayTrajectory:
        call = CallRecord(CallOutcome.SERVED, 6, 6, latency_s=latency_s)
        segments = [Segment("student", [1] * 8), Segment("teacher", [1] * 6), Segment("student", [1] * 4)]
        return RelayTrajectory([1], segments, RelayStatus.COMPLETED, [call])

    batches = [[calling(1.0), calling(2.0)], [calling(1.0), calling(2.0)]]
    assert loads_of(batches, [1.0, 1.0]) == {"student": (1, 6), "teacher": (3, 6)}
    assert loads_of([[trajectory(5)] * 8], [1.0]) == {"student": (4, 5), "teacher": (1, 1)}


def test_what_is_simulated_stands_next_to_what_was_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relay_verl.bench.curves.time.monotonic", now)
    batch = [trajectory(10), trajectory(4, 8, 2)]

    async def run() -> Any:
        return await Bench([Engine()], [[1, 2, 3], [4, 5, 6]], stop=[], most_tokens=20, rounds=1).curve(
            cached_share=0.0
        )

    curve = run_virtually(run())
    scenario = Scenario("measured", curve, curve, workload_of(batch, 2))
    outcome = simulate(scenario, trajectories_of(batch), 1, 1)
    comparison = Comparison(1, scenario, [0.4, 0.5, 0.6], [outcome.seconds] * 3)
    assert comparison.ratio == pytest.approx(outcome.seconds / 0.5)
    assert "0.50 (0.40 to 0.60)" in comparisons_to_markdown([comparison])
