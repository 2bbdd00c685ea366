"""Timed batches of relayed responses, and an engine that is kept as busy as it was during them."""

from __future__ import annotations

import asyncio
import itertools
import math
import statistics
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from relay_verl.decoder import RelayDecoder
from relay_verl.engines.base import TokenEngine
from relay_verl.types import RelayTrajectory

SAMPLING = {"temperature": 1.0}
"""As in training: not greedy, and without seeds."""


@dataclass(frozen=True)
class TimedBatch:
    """Responses that started together."""

    trajectories: list[RelayTrajectory]
    """What was written."""
    durations: list[float]
    """Seconds of each response, [num]."""

    @property
    def seconds(self) -> float:
        """Until the last one ended."""
        return max(self.durations)

    @classmethod
    async def run(cls, decoder: RelayDecoder, prompts: Sequence[list[int]]) -> TimedBatch:
        """Relay all prompts at once."""
        started = time.monotonic()

        async def one(prompt: list[int]) -> tuple[RelayTrajectory, float]:
            trajectory = await decoder.run(prompt, sampling=SAMPLING)
            return trajectory, time.monotonic() - started

        trajectories, durations = zip(*await asyncio.gather(*(one(prompt) for prompt in prompts)), strict=True)
        return cls(list(trajectories), list(durations))


@dataclass(frozen=True)
class Load:
    """How busy a model is."""

    num_running: float
    """Requests under way, on average."""
    num_tokens: int
    """Tokens of one."""


def loads_of(batches: Sequence[TimedBatch]) -> dict[str, Load]:
    """How busy each model was during these batches."""
    written = [trajectory for batch in batches for trajectory in batch.trajectories]
    served = [call for each in written for call in each.calls if call.num_delivered]
    turns = [len(one.token_ids) for each in written for one in each.segments if one.source == "student"]
    seconds = sum(batch.seconds for batch in batches)
    waited_s = sum(call.latency_s for call in served)
    written_s = sum(sum(batch.durations) for batch in batches) - waited_s
    return {
        "student": Load(written_s / seconds, round(statistics.mean(turns))),
        "teacher": Load(waited_s / seconds, round(statistics.mean([call.num_delivered for call in served] or [1]))),
    }


@asynccontextmanager
async def busy(engine: TokenEngine, prompts: Sequence[list[int]], load: Load) -> AsyncIterator[None]:
    """Have the engine as busy as that while the block runs; below a request at a time, it rests between two."""
    num = math.ceil(load.num_running)
    rest = num / load.num_running - 1 if num else 0.0  # in shares of a request's time

    async def ask_forever(number: int) -> None:
        for prompt in itertools.cycle(prompts[number % len(prompts) :]):
            started = time.monotonic()
            await engine.generate(prompt, max_tokens=load.num_tokens, sampling={**SAMPLING, "ignore_eos": True})
            await asyncio.sleep(rest * (time.monotonic() - started))

    tasks = [asyncio.create_task(ask_forever(number)) for number in range(num)]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
