"""What a relay costs while nothing is called: vLLM's own load generator against the relay server, and against the bare
server of its student, in turn.

Random prompts of one length, greedy, over `/v1/completions` as streams (the generator's backend `openai`): no chat
template stands between, and the end of a sequence is ignored, so both sides write as many tokens. No prompt is sent
twice: what one side has read is not in the student's prefix cache for the other. The relay is asked under its own name,
so the student is watched for commands; should it write one, it is served, and the last column counts it.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count

import psutil

from relay_verl.bench.running_server import RunningServer
from relay_verl.bench.timing import ratios_of, run_in_turn, spread_of
from relay_verl.errors import EngineError, UserError
from relay_verl.markdown import markdown_table

ROUND_S = 1800.0
"""Seconds that a round of one side may take."""
TARGETS = {"tokens/s": "at least 0.95", "TTFT": "at most 1.05", "ITL p99": "at most 1.1"}
"""What the ratios should be."""
CALLS = "relay:calls_total"
_KEY = "OPENAI_API_KEY"  # where the generator reads its key
_BARE, _OURS = "bare", "relay"
_LATENCIES = ("first_token_ms", "between_tokens_ms")
_PROCESSES = ("client", "relay", "student")


@dataclass(frozen=True)
class Load:
    """What each side gets in a round."""

    tokenizer: str
    """Folder or hub id of the student's tokenizer."""
    num_requests: int
    """Requests."""
    input_len: int
    """Tokens of a prompt."""
    output_len: int
    """Tokens of a response."""


@dataclass(frozen=True)
class LoadResult:
    """One side's round."""

    tokens_per_s: float
    """Response tokens a second."""
    first_token_ms: float
    """Median time to the first token."""
    between_tokens_ms: float
    """99th percentile of the time between two pieces of a response."""
    num_calls: int
    """Calls that the relay served or that failed."""
    cpu_s: dict[str, float | None]
    """CPU seconds by process; None where it is elsewhere."""


async def bench_serving(
    relay: RunningServer, student: RunningServer, load: Load, concurrencies: Sequence[int], rounds: int
) -> str:
    """The two tables: speed at each concurrency, and CPU time.

    Raises:
        UserError: `relay` has no counters of a relay.
        EngineError: a request failed, or a round took longer than ROUND_S.
    """
    await count_calls(relay)
    seeds = count(1)
    speed, cpu = [], []
    for concurrency in concurrencies:

        def side(server: RunningServer, concurrency: int = concurrency) -> Callable[[], Awaitable[LoadResult]]:
            async def work() -> LoadResult:
                return await _measure(server, relay, student, load, concurrency, next(seeds))

            return work

        results = await run_in_turn({_BARE: side(student), _OURS: side(relay)}, rounds)
        speed.append(_speed_row(concurrency, results[_BARE], results[_OURS]))
        cpu += [_cpu_row(concurrency, name, results[name]) for name in (_BARE, _OURS)]
    heads = [
        "concurrency",
        "tokens/s, bare",
        "tokens/s, relay",
        *(f"{name}, relay / bare ({target})" for name, target in TARGETS.items()),
        "calls",
    ]
    words = (
        f"Nothing called: {rounds} rounds of {load.num_requests} requests, {load.input_len} tokens in and "
        f"{load.output_len} out, greedy, /v1/completions as streams; ratios are median (least to most)"
    )
    cpu_heads = ["concurrency", "side", "client", "relay", "student"]
    cpu_words = "CPU seconds of a round, median"
    return (
        f"{words}:\n\n{markdown_table(heads, speed)}\n\n{cpu_words}:\n\n{markdown_table(cpu_heads, cpu, num_labels=2)}"
    )


async def count_calls(relay: RunningServer) -> int:
    """Calls that reached the teacher so far.

    Raises:
        UserError: the server counts none, so it is not a relay.
    """
    samples = (await relay.counters()).get(CALLS)
    if samples is None:
        raise UserError(f"--url: {relay.url}/metrics has no {CALLS}; expected the address of `relay-verl serve`")
    return int(sum(value for labels, value in samples if labels["outcome"] in ("served", "failed")))


async def _measure(
    server: RunningServer, relay: RunningServer, student: RunningServer, load: Load, concurrency: int, seed: int
) -> LoadResult:
    from vllm.benchmarks import serve

    arguments = _arguments(server, load, concurrency, seed)
    num_calls, cpu_s = await count_calls(relay), _cpu_seconds(relay, student)
    try:
        with _key_in_environment(server.key):
            async with asyncio.timeout(ROUND_S):
                result = await serve.main_async(arguments)
    except TimeoutError:
        raise EngineError(f"{server.url}: a round took more than {ROUND_S:g} s") from None
    if result["failed"] or result["completed"] != load.num_requests:
        reason = next((error for error in result.get("errors", []) if error), "")
        reason = reason.strip().splitlines()[-1] if reason.strip() else "no reason given"
        raise EngineError(f"{server.url}: {result['failed']} of {load.num_requests} requests failed: {reason}")
    return LoadResult(
        result["output_throughput"],
        result["median_ttft_ms"],
        result["p99_itl_ms"],
        await count_calls(relay) - num_calls,
        {
            name: None if after is None or (before := cpu_s[name]) is None else after - before
            for name, after in _cpu_seconds(relay, student).items()
        },
    )


def _arguments(server: RunningServer, load: Load, concurrency: int, seed: int) -> argparse.Namespace:
    """The command line of `vllm bench serve`, whose command itself asks for the version of the distribution 'vllm': the
    CPU build has another name. Remove when the CPU build ships as 'vllm'."""
    from vllm.benchmarks import serve
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    options = {
        "--backend": "openai",
        "--endpoint": "/v1/completions",
        "--base-url": server.url,
        "--model": server.model,
        "--tokenizer": load.tokenizer,
        "--dataset-name": "random",
        "--random-input-len": load.input_len,
        "--random-output-len": load.output_len,
        "--num-prompts": load.num_requests,
        "--max-concurrency": concurrency,
        "--temperature": 0,
        "--seed": seed,
    }
    parser = FlexibleArgumentParser()
    serve.add_cli_args(parser)
    words = [str(word) for pair in options.items() for word in pair]
    return parser.parse_args([*words, "--ignore-eos", "--disable-tqdm", "--save-detailed"])


@contextmanager
def _key_in_environment(key: str) -> Iterator[None]:
    """The generator takes a key from nowhere else but its arguments, which it prints."""
    before = os.environ.get(_KEY)
    os.environ[_KEY] = key or "none"
    try:
        yield
    finally:
        if before is None:
            del os.environ[_KEY]
        else:
            os.environ[_KEY] = before


def _cpu_seconds(relay: RunningServer, student: RunningServer) -> dict[str, float | None]:
    return {
        "client": sum(psutil.Process().cpu_times()[:2]),
        "relay": relay.cpu_seconds(),
        "student": student.cpu_seconds(),
    }


def _speed_row(concurrency: int, bare: Sequence[LoadResult], ours: Sequence[LoadResult]) -> list[str]:
    speeds = [[result.tokens_per_s for result in results] for results in (bare, ours)]
    pairs = [
        speeds,
        *([[getattr(result, name) for result in results] for results in (bare, ours)] for name in _LATENCIES),
    ]
    return [
        str(concurrency),
        *(f"{statistics.median(speed):.0f}" for speed in speeds),
        *(spread_of(ratios_of(mine, base)) for base, mine in pairs),
        str(sum(result.num_calls for result in ours)),
    ]


def _cpu_row(concurrency: int, name: str, results: Sequence[LoadResult]) -> list[str]:
    cells = []
    for process in _PROCESSES:
        seconds = [value for result in results if (value := result.cpu_s[process]) is not None]
        cells.append(f"{statistics.median(seconds):.2f}" if seconds else "")
    return [str(concurrency), name, *cells]
