"""Runs a long job: queries in, one result each, in any order, without a barrier; each result is saved as it comes.

The first failure is logged at once, and failures are counted: a job of which too many fail ends with the cause.

Memory is bounded by the queries in flight: queries are read as they are needed, and results stay on disk. A query that
fails leaves no result; the others continue, and the same command tries it again. A query that can never be answered
(`relay_verl.errors.PermanentError`) leaves no result either, but it counts: it is left out of the output, the manifest
names it with its place and its cause, and it never keeps the job from ending. A query at which the server fails each
time (HTTP 500) while it answers others is treated alike.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from relay_verl.engines.deadlines import Pulse
from relay_verl.engines.failure_share import FailureShare
from relay_verl.engines.failures import RetriedError
from relay_verl.errors import EngineError, JobError, PermanentError
from relay_verl.jobs.formats import Row
from relay_verl.jobs.job import Job
from relay_verl.jobs.progress import LINE_S, ProgressBar, TokenMeter
from relay_verl.jobs.results import Entry
from relay_verl.jobs.store import JobStore
from relay_verl.jobs.unanswerable import describe_unanswerable
from relay_verl.versions import versions

logger = logging.getLogger(__name__)

BROKEN = 500
"""HTTP status of a server that failed at a request for a reason of its own. Others from 501 on say that it, or what
stands before it, is overloaded or away for a while."""


@dataclass
class _Progress:
    bar: ProgressBar
    meter: TokenMeter
    pulse: Pulse
    queries: FailureShare
    parts: FailureShare
    failures: dict[str, str] = field(default_factory=dict)
    """Why a query failed, by its key."""
    broken: set[str] = field(default_factory=set)
    """Those of them at which the server failed (`BROKEN`)."""
    is_last_try: bool = False
    """Whether queries run for the second time."""
    num_in_a_row: int = 0
    warned_at: float = -math.inf
    num_resumed: int = 0


async def run_job(job: Job, queries: Iterable[tuple[str, Row]], num_queries: int, out: Path) -> dict[str, Any]:
    """Run `job` on all queries, or continue it, and write `out`; gives its manifest.

    Args:
        job: what to do.
        queries: pairs of a unique key and a row, always in the same order. They are read more than once: a list or
            `relay_verl.jobs.queries.Queries`.
        num_queries: how many there are, for the estimate.
        out: the file to write.

    Raises:
        TypeError: `queries` is an iterator, which can be read once only.
        JobError: it cannot continue, some queries failed, or an engine refuses all of them; what is finished is saved.
    """
    if isinstance(queries, Iterator):
        raise TypeError("queries are read more than once: give a list or relay_verl.jobs.queries.Queries")
    started = time.monotonic()
    store = JobStore(out, job.spec, job.format)
    # The same command again after the end does nothing, and needs no lock: a finished output is not written to.
    manifest = store.finished_manifest()
    if manifest is not None:
        return manifest
    with store:
        meter = TokenMeter(job.engines)
        async with ProgressBar(f"{Path(out).parent.name}/{Path(out).name}", num_queries, meter) as bar:
            queries_share, parts_share = (
                FailureShare(job.max_failed_share, what, key=job.failed_share_key) for what in ("queries", job.parts)
            )
            progress = _Progress(bar, meter, Pulse(meter.count_tokens), queries_share, parts_share)
            try:
                await _run_open(job, queries, store, progress)
                await _try_again(job, queries, num_queries, store, progress)
            except asyncio.CancelledError as error:  # Ctrl-C; `relay_verl.jobs.interruption` tells the note
                error.add_note(
                    f"{bar.num_done:,} of {num_queries:,} queries are saved in {store.work}: the same command "
                    "continues from there"
                )
                raise
        # Results stay in the working folder, so the next run asks for the failed queries alone.
        if progress.failures:
            key, cause = next(iter(progress.failures.items()))
            raise JobError(
                f"{len(progress.failures)} of {num_queries} queries failed, the first one: {key}: {cause}; the others "
                f"are saved in {store.work}: the same command continues from there"
            )
        # An output without a row would look like a result; what refuses everything is a mistake of the job.
        entries = ((key, store.results.get(key)) for key, _ in queries)
        refused = {key: entry.refusal for key, entry in entries if entry and entry.refusal is not None}
        if refused and len(refused) == num_queries:
            store.forget()
            key, cause = next(iter(refused.items()))
            raise JobError(f"none of the {num_queries} queries can be answered, the first one: {key}: {cause}")
        store.assemble(
            _records(job, queries, store),
            {
                "num_queries": num_queries,
                "num_resumed": progress.num_resumed,
                "seconds": round(time.monotonic() - started, 1),
                "unanswerable": describe_unanswerable(job, refused),
                "versions": versions(),
            },
            job.summarize,
        )
    return store.finished_manifest() or {}


async def _run_open(job: Job, queries: Iterable[tuple[str, Row]], store: JobStore, progress: _Progress) -> None:
    """Run the queries that nothing is known of yet."""
    async with _tasks(job.max_concurrency) as start:
        for key, row in queries:
            if key in store.results:
                progress.num_resumed += 1
                progress.bar.update()
            else:
                # Waits while enough queries are under way, which bounds the memory.
                await start(partial(_run_query, job, store, key, row, progress))


async def _try_again(
    job: Job, queries: Iterable[tuple[str, Row]], num_queries: int, store: JobStore, progress: _Progress
) -> None:
    """Run the queries once more at which a server failed, and record those at which it fails again.

    A server that fails at a query each time, such as for a defect that its prompt meets, would keep the job from ending
    for ever. A server that is in trouble fails at every query: then, or when too many fail, nothing is recorded.
    """
    keys, progress.broken, progress.is_last_try = progress.broken, set(), True
    if not keys:
        return
    async with _tasks(job.max_concurrency) as start:
        for key, row in queries:
            if key in keys:
                await start(partial(_run_query, job, store, key, row, progress))
    broken = progress.broken
    if not broken or len(broken) > job.max_failed_share * num_queries or not await _is_well(job, queries, store):
        return
    for key, row in queries:
        if key in broken:
            cause = progress.failures.pop(key)
            store.put(key, Entry(refusal=cause) if job.replace is None else Entry(job.replace(row, cause)))
            progress.bar.update()


async def _is_well(job: Job, queries: Iterable[tuple[str, Row]], store: JobStore) -> bool:
    """Whether a query that has its answer is answered again."""
    for key, row in queries:
        entry = store.results.get(key)
        if entry is not None and entry.refusal is None:
            try:
                await asyncio.wait_for(_process(job, row), job.timeout_s)
            except (EngineError, TimeoutError):
                return False
            return True
    return False


@asynccontextmanager
async def _tasks(limit: int) -> AsyncIterator[Callable[[Any], Awaitable[None]]]:
    """Yield a `start` that keeps at most `limit` tasks in flight; the first error cancels the rest."""
    room = asyncio.Semaphore(limit)

    async def run(work: Callable[[], Awaitable[None]]) -> None:
        try:
            await work()
        finally:
            room.release()

    try:
        async with asyncio.TaskGroup() as group:

            async def start(work: Callable[[], Awaitable[None]]) -> None:
                await room.acquire()
                group.create_task(run(work))

            yield start
    except* JobError as errors:
        raise errors.exceptions[0] from None


async def _run_query(job: Job, store: JobStore, key: str, row: Row, progress: _Progress) -> None:
    progress.bar.num_under_way += 1
    try:
        result = await progress.pulse.wait(job.timeout_s, _process(job, row))
    except PermanentError as error:
        # A wrong key or address: every further query would cost time and fail alike.
        if error.concerns_all:
            raise JobError(
                f"the engine refuses every query: {error}; what is finished is saved in {store.work}: the same command "
                "continues from there"
            ) from error
        store.put(key, Entry(refusal=str(error)))
    except (EngineError, TimeoutError) as error:
        _note_failure(job, store, key, error, progress)
        return
    else:
        # On disk before it is counted: a process killed here loses nothing it has shown.
        store.put(key, Entry(result))
        progress.meter.add_result(job.count_tokens(result))
        progress.queries.add(1, 0)
        _count(progress, progress.parts, job.find_failure(result), store)
    finally:
        progress.bar.num_under_way -= 1
    # An answer, even a refusal, shows that the engine lives.
    progress.failures.pop(key, None)
    progress.num_in_a_row = 0
    progress.bar.update()


def _note_failure(job: Job, store: JobStore, key: str, error: Exception, progress: _Progress) -> None:
    """Count a query that failed.

    Raises:
        JobError: too many failed, or too many in a row.
    """
    cause = progress.failures[key] = str(error) or "it timed out"
    if isinstance(error, RetriedError) and error.status_code == BROKEN:
        progress.broken.add(key)
    if progress.is_last_try:  # it has been counted
        return
    progress.num_in_a_row += 1
    _count(progress, progress.queries, f"{key}: {cause}", store)
    if progress.num_in_a_row >= job.max_failures:
        raise JobError(
            f"{progress.num_in_a_row} queries failed in a row, the last one: {key}: {cause}; what is finished is saved "
            f"in {store.work}: the same command continues from there"
        ) from error


def _count(progress: _Progress, share: FailureShare, failure: str | None, store: JobStore) -> None:
    """Count a request that failed, or one that was served if `failure` is None.

    Raises:
        JobError: too many failed.
    """
    if failure is None:
        share.add(1, 0)
        return
    share.add(0, 1, failure)
    if share.is_over:
        raise JobError(
            f"{share.explain()}; what is finished is saved in {store.work}: the same command continues from there"
        )
    if time.monotonic() - progress.warned_at >= LINE_S:
        progress.warned_at = time.monotonic()
        logger.warning("%s: %s", store.out, str(share))  # as text: the counts change before it may be read


async def _process(job: Job, row: Row) -> Any:
    return await job.process(row)


def _records(job: Job, queries: Iterable[tuple[str, Row]], store: JobStore) -> Iterator[list[Row]]:
    """The output's records in groups, in the order of their queries."""
    iterator = iter(queries)
    while group := list(itertools.islice(iterator, job.shard_size)):
        records: list[Row] = []
        for key, row in group:
            entry = store.results.get(key)
            if entry is not None and entry.refusal is None:
                records += job.to_records(row, entry.result)
        yield records
