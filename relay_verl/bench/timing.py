"""Rounds of several variants to do the same work, in turn, and the table of their ratios."""

from __future__ import annotations

import statistics
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

from relay_verl.markdown import markdown_table

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


async def time_rounds(variants: Mapping[str, Variant], rounds: int) -> list[Timing]:
    """Run the variants in turn, `rounds` times after one warm-up that is not counted."""
    timings = {name: Timing(name, [], []) for name in variants}
    for number in range(rounds + 1):
        for name, way in variants.items():
            started = time.monotonic()
            lengths = await way()
            if number:
                timings[name].seconds.append(time.monotonic() - started)
                timings[name].num_tokens.append(sum(lengths))
    return list(timings.values())


def ratio_to(times: Sequence[float], base: Sequence[float]) -> str:
    """Times relative to others, round by round: median (least to most).

    >>> ratio_to([2.0, 3.0, 3.0], [2.0, 2.0, 1.0])
    '1.50 (1.00 to 3.00)'
    """
    ratios = [one / other for one, other in zip(times, base, strict=True)]
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"


def timings_to_markdown(timings: Sequence[Timing]) -> str:
    """A table: median seconds, tokens, and seconds relative to the first way, median (least to most)."""
    base = timings[0]
    rows = []
    for timing in timings:
        seconds, num_tokens = statistics.median(timing.seconds), statistics.median(timing.num_tokens)
        ratio = ratio_to(timing.seconds, base.seconds)
        rows.append([timing.name, f"{seconds:.2f}", f"{num_tokens:.0f}", ratio])
    return markdown_table(["way", "seconds a round", "tokens a round", f"time / {base.name}'s"], rows)
