"""How far a long job is: queries done, with an estimate, and tokens by author while responses are still being written.

A response takes minutes on a small machine, and as many are under way as an engine holds: finished queries alone stand
still and then jump. Whose engine publishes its counters (verl's servers) is counted as it writes. Another one, such as
an endpoint, which may write for others too, is counted when a turn of a response ends; and where workers in Ray ask it,
when a response ends. Tokens are those of this run, without those of an earlier one that it resumes.

Off a terminal the bar is a line every LINE_S seconds.

Invariant: a bar that cannot be printed, such as on a terminal that is gone, or an engine that cannot be asked, costs no
job.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TextIO

from tqdm import tqdm
from tqdm.std import EMA

from relay_verl.engines.deadlines import pulse_of
from relay_verl.engines.load import EngineLoad
from relay_verl.jobs.byproducts import by_product

REFRESH_S = 5.0
"""Seconds between two looks at the engines on a terminal."""
LINE_S = 30.0
"""Seconds between two lines elsewhere, such as in a log file."""
DELAY_S = 1.0
"""Seconds before a bar is shown."""
_WHAT = "the progress of a job"
_SMOOTHING = 0.3
"""Weight of the last interval in a rate."""


class _Bar(tqdm):
    """tqdm's bar with a lock of its own. Where a bar cannot be printed, tqdm leaves its lock taken by the thread that
    tried, and a bar of another thread, such as transformers' for loading weights, would wait for it for good."""

    monitor_interval = 0  # its thread would wait, too


_Bar.set_lock(threading.RLock())


class _Author:
    """The tokens of one author since the job began."""

    def __init__(self, engine: Any):
        self._load = getattr(engine, "load", None)
        self._pulse = pulse_of(engine)
        self._answered_before = self._pulse.num_tokens
        self._written_before: int | None = None
        self._num_written = 0
        self.num_in_results = 0

    @property
    def num_tokens(self) -> int:
        """What the source that knows most knows."""
        return max(self._num_written, self._pulse.num_tokens - self._answered_before, self.num_in_results)

    async def read(self) -> None:
        """Ask the engine, if it can be asked."""
        load: EngineLoad | None = await self._load() if self._load is not None else None
        if load is None:
            return
        if self._written_before is None:
            self._written_before = load.num_written - self.num_tokens
        self._num_written = load.num_written - self._written_before


class TokenMeter:
    """Tokens so far and tokens a second, by author.

    Args:
        engines: who writes, by name; two names of one engine become one.
        clock: seconds that only grow.
    """

    def __init__(self, engines: Mapping[str, Any], clock: Callable[[], float] = time.monotonic):
        names: dict[int, list[str]] = {}
        for name, engine in engines.items():
            names.setdefault(id(engine), []).append(name)
        self._title = {name: "+".join(joined) for joined in names.values() for name in joined}
        self._authors = {self._title[name]: _Author(engine) for name, engine in engines.items()}
        self._rates = {title: (EMA(_SMOOTHING), EMA(_SMOOTHING)) for title in self._authors}
        self._last: dict[str, int] = dict.fromkeys(self._authors, 0)
        self._clock = clock
        self._started_at = self._read_at = clock()

    @property
    def num_tokens(self) -> dict[str, int]:
        """Tokens so far, by author."""
        return {title: author.num_tokens for title, author in self._authors.items()}

    async def count_tokens(self) -> int:
        """A number that grows while the engines work, as of the last look."""
        return sum(self.num_tokens.values())

    def add_result(self, tokens: Mapping[str, int]) -> None:
        """A response has ended; `tokens` is what each author wrote of it."""
        for name, num_tokens in tokens.items():
            if name in self._title:
                self._authors[self._title[name]].num_in_results += num_tokens

    async def read(self) -> None:
        """Look at the engines."""
        await asyncio.gather(*(author.read() for author in self._authors.values()))
        now = self._clock()
        for title, num_tokens in self.num_tokens.items():
            tokens, seconds = self._rates[title]
            tokens(num_tokens - self._last[title])
            seconds(now - self._read_at)
            self._last[title] = num_tokens
        self._read_at = now

    def describe(self, *, is_whole: bool = False) -> str:
        """The tokens of each author, and a second: lately, or over the whole job."""
        whole_s = self._clock() - self._started_at
        parts = []
        for title, num_tokens in self.num_tokens.items():
            tokens, seconds = (num_tokens, whole_s) if is_whole else (each() for each in self._rates[title])
            rate = tokens / seconds if seconds else 0.0
            parts.append(f"{title} {tqdm.format_sizeof(num_tokens)} tokens {rate:.1f}/s")
        return ", ".join(parts)


class ProgressBar:
    """Shows a job on standard error, as an asynchronous context manager.

    Args:
        name: of the job.
        num_queries: of the whole job.
        meter: who writes.
        file: where to; standard error if None.
    """

    def __init__(self, name: str, num_queries: int, meter: TokenMeter, file: TextIO | None = None):
        file = file or sys.stderr
        is_terminal = file.isatty()
        self._meter = meter
        self._every_s = REFRESH_S if is_terminal else LINE_S
        self._bar = _Bar(disable=True)
        with by_product(_WHAT):  # it prints at once
            self._bar = _Bar(
                total=num_queries,
                desc=name,
                unit="query",
                smoothing=0.05,
                file=file if is_terminal else Lines(file),
                mininterval=0.1 if is_terminal else float("inf"),  # there the ticker alone prints
            )
        self._ticker: asyncio.Task[None] | None = None
        self.num_under_way = 0

    async def __aenter__(self) -> ProgressBar:
        with by_product(_WHAT):
            await self._meter.read()
        self._ticker = asyncio.create_task(self._tick())
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._ticker is not None
        self._ticker.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._ticker
        with by_product(_WHAT):
            await self._meter.read()
            self._bar.set_postfix_str(self._meter.describe(is_whole=True), refresh=False)
            self._bar.close()

    @property
    def num_done(self) -> int:
        """Queries that are done, with those of an earlier run."""
        return int(self._bar.n)

    def update(self, num_queries: int = 1) -> None:
        """So many more queries are done."""
        with by_product(_WHAT):
            self._bar.update(num_queries)

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(self._every_s)
            with by_product(_WHAT):
                await self._meter.read()
                tokens = self._meter.describe()
                parts = [tokens, f"{self.num_under_way} under way"] if tokens else [f"{self.num_under_way} under way"]
                self._bar.set_postfix_str(", ".join(parts), refresh=False)
                self._bar.refresh()


def show_progress(iterable: Iterable[Any] | None = None, **options: Any) -> Any:
    """tqdm's bar on a terminal; elsewhere a line every LINE_S seconds. Nothing of a work that takes less than DELAY_S.

    `options` are tqdm's.
    """
    if sys.stderr.isatty():
        return _Bar(iterable, **options, delay=DELAY_S)
    options.pop("position", None)  # lines stand below each other
    return _Bar(iterable, **options, delay=DELAY_S, file=Lines(sys.stderr), mininterval=LINE_S, maxinterval=LINE_S)


class Lines:
    """A file for tqdm that turns each redrawing of the bar into a line."""

    def __init__(self, file: TextIO):
        self._file = file

    def write(self, text: str) -> int:
        for line in text.replace("\r", "\n").splitlines():
            if line.strip():
                self._file.write(f"{line.rstrip()}\n")
        return len(text)

    def flush(self) -> None:
        self._file.flush()
