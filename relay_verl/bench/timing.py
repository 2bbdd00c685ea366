"""Rounds of several variants to do the same work, in turn, and the table of their ratios."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from relay_verl.markdown import markdown_table

Result = TypeVar("Result")

Variant = Callable[[], Awaitable[Sequence[int]]]
"""Does the work once; gives the tokens of each response."""


@dataclass(frozen=True)
class Timing:
    """One way's rounds."""

    name: str
    """The way."""
    seconds: list[float]
    """Wall-clock seconds of each round, [rounds]."""
    num_tokens: list[int]
    """Response tokens of each round, [rounds]."""


async def run_in_turn(variants: Mapping[str, Callable[[], Awaitable[Result]]], rounds: int) -> dict[str, list[Result]]:
    """What the variants give, [rounds] each, after one warm-up that is not counted. They run in turn, and who is first
    alternates, so that a machine that becomes faster or slower favours none."""
    results: dict[str, list[Result]] = {name: [] for name in variants}
    for number in range(rounds + 1):
        for name in reversed(list(variants)) if number % 2 else list(variants):
            result = await variants[name]()
            if number:
                results[name].append(result)
    return results


async def time_rounds(variants: Mapping[str, Variant], rounds: int) -> list[Timing]:
    """Time the variants in turn, `rounds` times (`run_in_turn`)."""

    def timed(way: Variant) -> Callable[[], Awaitable[tuple[float, int]]]:
        async def work() -> tuple[float, int]:
            started = time.monotonic()
            lengths = await way()
            return time.monotonic() - started, sum(lengths)

        return work

    results = await run_in_turn({name: timed(way) for name, way in variants.items()}, rounds)
    return [
        Timing(name, [seconds for seconds, _ in each], [num_tokens for _, num_tokens in each])
        for name, each in results.items()
    ]


def ratios_of(values: Sequence[float], base: Sequence[float]) -> list[float]:
    """Each round's ratio, [rounds]; nan where the base has 0."""
    return [value / other if other else math.nan for value, other in zip(values, base, strict=True)]


def spread_of(ratios: Sequence[float]) -> str:
    """Median, and least to most.

    >>> spread_of([1.1, 0.9, 1.0])
    '1.00 (0.90 to 1.10)'
    """
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"


def ratio_to(times: Sequence[float], base: Sequence[float]) -> str:
    """Times relative to others, round by round: median (least to most).

    >>> ratio_to([2.0, 3.0, 3.0], [2.0, 2.0, 1.0])
    '1.50 (1.00 to 3.00)'
    """
    return spread_of(ratios_of(times, base))


def timings_to_markdown(timings: Sequence[Timing]) -> str:
    """A table: median seconds, tokens, and seconds relative to the first way, median (least to most)."""
    base = timings[0]
    rows = []
    for timing in timings:
        seconds, num_tokens = statistics.median(timing.seconds), statistics.median(timing.num_tokens)
        ratio = ratio_to(timing.seconds, base.seconds)
        rows.append([timing.name, f"{seconds:.2f}", f"{num_tokens:.0f}", ratio])
    return markdown_table(["way", "seconds a round", "tokens a round", f"time / {base.name}'s"], rows)
