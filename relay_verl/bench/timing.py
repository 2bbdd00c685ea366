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


def timings_to_markdown(timings: Sequence[Timing]) -> str:
    """A table: median seconds, tokens, and seconds relative to the first way, median (least to most)."""
    base = timings[0]
    rows = []
    for timing in timings:
        ratios = [mine / theirs for mine, theirs in zip(timing.seconds, base.seconds, strict=True)]
        seconds, num_tokens = statistics.median(timing.seconds), statistics.median(timing.num_tokens)
        spread = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        rows.append([timing.name, f"{seconds:.2f}", f"{num_tokens:.0f}", spread])
    return markdown_table(["way", "seconds a round", "tokens a round", f"time / {base.name}'s"], rows)
