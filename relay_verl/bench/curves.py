"""Measures the curves that `relay-verl bench scale` takes, and compares what it simulates with real batches.

In the simulation no engine slows another one down. Where they share a machine's cores they do, so a model's curve is
measured while all of its compared replicas work, and the other model's are as busy as in the batch.

1. `decode`: k requests on each replica write a short and a long text; the difference of the times is decoding alone.
2. `prefill_s_per_token`: as many requests as a batch has responses write one token each.
3. `cached_share`: from the engines' counters, over the measured batches.
4. Batches are relayed for real, and their very turns are simulated by these curves.
"""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import random
import statistics
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from relay_verl.bench.scale import simulate
from relay_verl.bench.scenario import EngineCurve, Lengths, Scenario, Trajectory, Workload, curve_of
from relay_verl.decoder import RelayDecoder
from relay_verl.engines.base import TokenEngine
from relay_verl.engines.load import EngineLoad
from relay_verl.engines.resilience import GuardedEngine
from relay_verl.engines.verl_server import VerlServerEngine
from relay_verl.markdown import markdown_table
from relay_verl.models.replica_client import ReplicaClient
from relay_verl.models.vocabulary import read_vocabulary
from relay_verl.protocol import CLOSE
from relay_verl.run_config import RunConfig
from relay_verl.tokenization import chat_ids
from relay_verl.types import RelayTrajectory

SHORT = 8
"""Tokens of the short text."""
MOST_TOKENS = 128
"""Most tokens of the long one."""
SAMPLING = {"temperature": 1.0}
"""As in training: not greedy, and without seeds."""
NEVER = "\0" * 16
"""What no model writes."""


@dataclass(frozen=True)
class Comparison:
    """A relayed batch on so many replicas of each model."""

    num_replicas: int
    """Of the student, and of the teacher."""
    scenario: Scenario
    """The curves of these replicas."""
    seconds: list[float]
    """Of each round, [rounds]."""
    simulated: list[float]
    """Seconds of the same rounds by the simulation, [rounds]."""

    @property
    def ratio(self) -> float:
        """Simulated over measured, of all rounds together."""
        return sum(self.simulated) / sum(self.seconds)


def comparisons_to_markdown(comparisons: Sequence[Comparison]) -> str:
    """The table."""
    rows = [
        [
            str(each.num_replicas),
            _spread(each.seconds),
            _spread(each.simulated),
            f"{each.ratio:.2f}",
        ]
        for each in comparisons
    ]
    return markdown_table(["replicas of each", "seconds a batch, measured", "simulated", "simulated / measured"], rows)


def _spread(seconds: Sequence[float]) -> str:
    return f"{statistics.median(seconds):.2f} ({min(seconds):.2f} to {max(seconds):.2f})"


def trajectories_of(batch: Sequence[RelayTrajectory]) -> list[Trajectory]:
    """What the simulation takes: the tokens of each turn, the student's first."""
    turns = (tuple(len(segment.token_ids) for segment in each.segments) for each in batch)
    return [Trajectory(str(index), each) for index, each in enumerate(turns)]


def workload_of(trajectories: Sequence[RelayTrajectory], num_responses: int) -> Workload:
    """The law of responses like these, as one worker and two GPUs have them."""
    calling = [each.num_calls for each in trajectories if each.num_calls]
    asked = [call.num_delivered for each in trajectories for call in each.calls if call.num_delivered]
    return Workload(
        responses_per_gpu=max(1, num_responses // 2),
        num_workers=1,
        prompt_tokens=round(statistics.mean(len(each.prompt_ids) for each in trajectories)),
        response_tokens=_lengths_of([each.num_tokens for each in trajectories]),
        call_share=len(calling) / len(trajectories),
        calls_per_response=statistics.mean(calling or [1]),
        max_calls=max(calling, default=1),
        tokens_per_call=_lengths_of(asked or [1]),
    )


def _lengths_of(lengths: Sequence[int]) -> Lengths:
    logs = np.log(np.maximum(1, lengths))
    return Lengths(median=float(np.exp(np.median(logs))), sigma=float(np.std(logs)), max=max(1, *lengths))


@asynccontextmanager
async def busy(engine: TokenEngine, prompts: Sequence[list[int]], *, num: int, num_tokens: int) -> AsyncIterator[None]:
    """Have so many requests of so many tokens under way as long as the block runs."""

    async def ask_forever(number: int) -> None:
        for prompt in itertools.cycle(prompts[number % len(prompts) :] or prompts):
            await engine.generate(prompt, max_tokens=num_tokens, sampling={**SAMPLING, "ignore_eos": True})

    tasks = [asyncio.create_task(ask_forever(number)) for number in range(num)]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


def loads_of(batches: Sequence[Sequence[RelayTrajectory]], seconds: Sequence[float]) -> dict[str, tuple[int, int]]:
    """Requests that each model has under way during a batch, on average, and the tokens of one; at least 1 each."""
    written = [trajectory for batch in batches for trajectory in batch]
    served = [call for each in written for call in each.calls if call.num_delivered]
    turns = [len(one.token_ids) for each in written for one in each.segments if one.source == "student"]
    waited_s = sum(call.latency_s for call in served)
    # how long the student took is not known: responses end one after the other, so half of them count as running
    return {
        "student": (max(1, len(batches[0]) // 2), max(1, round(statistics.mean(turns)))),
        "teacher": (
            max(1, round(waited_s / sum(seconds))),
            max(1, round(statistics.mean([call.num_delivered for call in served] or [1]))),
        ),
    }


class Bench:
    """Measures one model's replicas.

    Args:
        engines: one a replica.
        prompts: token ids of the batch, [num][length].
        stop: strings that requests of the batch stop at; the bench has them look for others, which never come.
        most_tokens: that a response may have.
        rounds: of which the median counts.
    """

    def __init__(
        self,
        engines: Sequence[TokenEngine],
        prompts: Sequence[list[int]],
        stop: Sequence[str],
        most_tokens: int,
        rounds: int,
    ):
        self._engines = engines
        self._stop = [NEVER[: len(string)] for string in stop]
        self._prompts = prompts
        self._long = min(most_tokens, MOST_TOKENS)
        self._rounds = rounds
        self._rng = random.Random(0)

    async def curve(self, cached_share: float) -> EngineCurve:
        """The curve of each of these replicas while all of them work."""
        most = -(-len(self._prompts) // len(self._engines))
        counts = [2**power for power in range(most.bit_length()) if 2**power < most]
        points = [(count, await self._rate(count)) for count in [*counts, most]]
        num_read = most * statistics.mean(len(prompt) for prompt in self._prompts)
        first_s = statistics.median([await self._time(most, 1) for _ in range(self._rounds)])
        return curve_of(points, prefill_s_per_token=first_s / num_read, cached_share=cached_share)

    async def _rate(self, count: int) -> float:
        """Tokens a second that `count` sequences on a replica decode together."""
        times = [(await self._time(count, SHORT), await self._time(count, self._long)) for _ in range(self._rounds)]
        seconds = max(1e-6, statistics.median(long - short for short, long in times))
        return count * (self._long - SHORT) / seconds

    async def _time(self, count: int, num_tokens: int) -> float:
        """Seconds until `count` requests on each replica have written so many tokens."""
        sampling = {**SAMPLING, "ignore_eos": True}
        started = time.monotonic()
        await asyncio.gather(
            *(
                engine.generate(self._new_prompt(), max_tokens=num_tokens, stop=self._stop, sampling=sampling)
                for engine in self._engines
                for _ in range(count)
            )
        )
        return time.monotonic() - started

    def _new_prompt(self) -> list[int]:
        """One that no cache has: the tokens of one of the batch in another order."""
        prompt = self._rng.choice(self._prompts)
        return self._rng.sample(prompt, len(prompt))


def bench_curves(
    run: RunConfig,
    student: str,
    teacher: str,
    rows: Sequence[Mapping[str, Any]],
    *,
    most_replicas: int,
    rounds: int,
    out: Path,
) -> str:
    """Measure on 1 to `most_replicas` replicas of each model; writes the curves of one to `out` and gives the table."""
    from relay_verl.models.address import as_student, model_at
    from relay_verl.models.launch import start_models
    from relay_verl.models.ray_session import ray_cluster
    from relay_verl.models.tokenizers import tokenizer_at
    from relay_verl.preflight.commands import check_bench

    tokenizer_path = run.prompts.tokenizer_of(student)
    tokenizer = tokenizer_at(run.prompts, tokenizer_path)
    check_bench(rows, tokenizer, tokenizer_path, run.prompts.template)
    vocabulary = read_vocabulary(student, tokenizer)
    limits = run.relay.decoder_config(
        run.lengths.max_response, greedy=True, vocab_size=vocabulary.size, end_ids=vocabulary.end_ids
    )
    prompts = [chat_ids(tokenizer, row["prompt"], run.prompts.template) for row in rows]

    def over(engine: TokenEngine, num: int, *, first: int = 0) -> VerlServerEngine:
        """The engine over some of its replicas."""
        served = engine.inner if isinstance(engine, GuardedEngine) else engine
        assert isinstance(served, VerlServerEngine)
        names = list(served.client.servers)[first : first + num]
        client = ReplicaClient({name: served.client.servers[name] for name in names})
        return VerlServerEngine(client, tokenizer, addresses=names, end_ids=vocabulary.end_ids)

    async def measure() -> list[Comparison]:
        settings = dataclasses.replace(run.relay.teacher, num_replicas=most_replicas)
        models = {"student": as_student(settings, student), "teacher": model_at(teacher, settings)}
        engines = await start_models(run, models, tokenizer)
        comparisons = []
        for num in range(1, most_replicas + 1):
            pair = {name: over(engine, num) for name, engine in engines.items()}
            decoder = RelayDecoder(pair["student"], pair["teacher"], tokenizer, limits)
            before = {name: await engine.load() for name, engine in pair.items()}
            seconds: list[float] = []
            batches: list[list[RelayTrajectory]] = []
            for _ in range(rounds + 1):
                started = time.monotonic()
                batches.append(await asyncio.gather(*(decoder.run(prompt, sampling=SAMPLING) for prompt in prompts)))
                seconds.append(time.monotonic() - started)
            del batches[0], seconds[0]  # it warmed up
            cached = {name: _cached_share(before[name], await engine.load()) for name, engine in pair.items()}
            loads = loads_of(batches, seconds)
            curves = {}
            for name, engine in engines.items():
                alone = [over(engine, 1, first=first) for first in range(num)]
                stop = [CLOSE] if name == "student" else []
                bench = Bench(alone, prompts, stop, run.lengths.max_response, rounds)
                other = "teacher" if name == "student" else "student"
                num_running, num_tokens = loads[other]
                async with busy(pair[other], prompts, num=num_running, num_tokens=num_tokens):
                    curves[name] = await bench.curve(cached[name])
            origin = f"measured on this machine with {num} replica(s) of each model at work"
            written = [trajectory for batch in batches for trajectory in batch]
            scenario = Scenario(origin, curves["student"], curves["teacher"], workload_of(written, len(prompts)))
            simulated = [simulate(scenario, trajectories_of(batch), num, num).seconds for batch in batches]
            comparisons.append(Comparison(num, scenario, seconds, simulated))
        return comparisons

    with ray_cluster(run, num_gpus=2 * most_replicas):
        comparisons = asyncio.run(measure())
    out.write_text(yaml.safe_dump(_plain(dataclasses.asdict(comparisons[0].scenario)), sort_keys=False))
    return f"{comparisons_to_markdown(comparisons)}\n\n{rounds} rounds of {len(rows)} responses; {out}"


def _cached_share(before: EngineLoad | None, after: EngineLoad | None) -> float:
    if before is None or after is None or after.num_looked_up <= before.num_looked_up:
        return 0.0
    return (after.num_cached - before.num_cached) / (after.num_looked_up - before.num_looked_up)


def _plain(value: Any) -> Any:
    """Lists where YAML has no tuples."""
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    return [_plain(each) for each in value] if isinstance(value, (list, tuple)) else value
