"""Runs a long job: queries in, one result each, in any order, without a barrier; progress as it is made.

A first failure is said at once, and failures are counted: a job of which too many fail ends with the cause.

Memory is bounded by the open shards: queries are read as they are needed, and a shard is forgotten when it is written.
A query that fails leaves no result; the others continue, and the same command tries it again. A query that can never
be answered (`relay_verl.errors.PermanentError`) leaves no result either, but it counts: it is left out of the
output, the manifest names it with its place and its cause, and it never keeps the job from ending.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from relay_verl.config import RelaySettings
from relay_verl.engines.deadlines import Pulse
from relay_verl.engines.failure_share import KEY, FailureShare
from relay_verl.errors import EngineError, JobError, PermanentError
from relay_verl.jobs.formats import Format, Row
from relay_verl.jobs.progress import LINE_S, ProgressBar, TokenMeter
from relay_verl.jobs.store import JobStore, Shard
from relay_verl.versions import versions

logger = logging.getLogger(__name__)

MAX_NAMED = 3
"""Most queries that a message names."""


@dataclass(frozen=True)
class Job:
    """What to do with each query."""

    spec: Mapping[str, Any]
    """Everything that decides the output, as JSON: inputs with their hashes, models, sampling, seed. A stopped job goes
    on only under the same spec."""
    format: Format
    """The output's kind of file."""
    process: Callable[[Row], Awaitable[Any]]
    """A query's result, as JSON. An EngineError or TimeoutError fails this query alone, and a PermanentError leaves it
    out; past `timeout_s` it is cancelled."""
    to_records: Callable[[Row, Any], list[Row]]
    """The output's rows of a query and its result."""
    shard_size: int = 256
    """Queries a shard."""
    max_concurrency: int = 256
    """Queries under way at a time."""
    timeout_s: float = 3600.0
    """Seconds without a result of any query after which a query fails; like a request to an engine, a query that waits
    while others end is not late (`relay_verl.engines.deadlines`)."""
    summarize: Callable[[Path], Mapping[str, Any]] | None = None
    """Numbers on the whole output, which the manifest gets as its `summary`; None leaves it without."""
    max_failures: int = 32
    """Failures in a row after which the job stops: the engine looks dead."""
    max_failed_share: float = RelaySettings.max_failed_call_share
    """Largest share of the queries, and of what `find_failure` finds, that may fail; see
    `relay_verl.engines.failure_share`."""
    failed_share_key: str = KEY
    """What the user sets it with."""
    find_failure: Callable[[Any], str | None] = lambda result: None
    """Why a part of a result is missing that is not worth the whole, such as the judge's verdict of a response; None
    if it is not missing. The result is kept."""
    parts: str = "parts"
    """What `find_failure` looks at, as a message calls it."""
    engines: Mapping[str, Any] = field(default_factory=dict)
    """Who writes, by the names under which their tokens are shown: student, teacher."""
    count_tokens: Callable[[Any], Mapping[str, int]] = lambda result: {}
    """What each of them wrote of a result."""
    locate: Callable[[Sequence[str]], Mapping[str, str]] = lambda keys: {}
    """Where queries stand, such as a file and a row, by their keys."""


@dataclass
class _Progress:
    bar: ProgressBar
    meter: TokenMeter
    pulse: Pulse
    queries: FailureShare
    parts: FailureShare
    failures: list[str] = field(default_factory=list)
    num_in_a_row: int = 0
    warned_at: float = -math.inf
    num_resumed: int = 0


async def run_job(job: Job, queries: Iterable[tuple[str, Row]], num_queries: int, out: Path) -> dict[str, Any]:
    """Run `job` on all queries, or go on with it, and write `out`; gives its manifest.

    Args:
        job: what to do.
        queries: pairs of a unique id and a row, always in the same order.
        num_queries: how many there are, for the estimate.
        out: the file to write.

    Raises:
        JobError: it cannot continue, some queries failed, or an engine refuses all of them; what is finished is saved.
    """
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
                num_shards = await _run_shards(job, queries, store, progress)
            except asyncio.CancelledError as error:  # Ctrl-C; `relay_verl.jobs.interruption` tells the note
                error.add_note(
                    f"{bar.num_done:,} of {num_queries:,} queries are saved in {store.work}: the same command "
                    "continues from there"
                )
                raise
        # Finished shards stay in the working folder, so the next run asks for the failed queries alone.
        if progress.failures:
            raise JobError(
                f"{len(progress.failures)} of {num_queries} queries failed, the first one: {progress.failures[0]}; the "
                f"others are saved in {store.work}: the same command goes on from there"
            )
        refused = store.refused_in(num_shards)
        # An output without a row would look like a result; what refuses everything is a mistake of the job.
        if refused and len(refused) == num_queries:
            store.forget()
            key, cause = next(iter(refused.items()))
            raise JobError(f"none of the {num_queries} queries can be answered, the first one: {key}: {cause}")
        store.assemble(
            num_shards,
            {
                "num_queries": num_queries,
                "num_resumed": progress.num_resumed,
                "seconds": round(time.monotonic() - started, 1),
                "unanswerable": _describe_refused(job, refused),
                "versions": versions(),
            },
            job.summarize,
        )
    return store.finished_manifest() or {}


async def _run_shards(job: Job, queries: Iterable[tuple[str, Row]], store: JobStore, progress: _Progress) -> int:
    """Run what is missing; gives the number of shards."""
    num_shards = 0
    async with _tasks(job.max_concurrency) as start:
        for index, chunk in enumerate(_batched(queries, job.shard_size)):
            num_shards = index + 1
            keys = [key for key, _ in chunk]
            shard = store.open_shard(index, keys)
            num_done = len(keys) if shard is None else shard.num_done
            progress.num_resumed += num_done
            progress.bar.update(num_done)
            if shard is None:
                continue
            rows = dict(chunk)
            # A run that was killed between the last result and the end of its shard.
            if shard.is_complete:
                _finish(job, store, index, shard, rows)
            for key in keys:
                if key not in shard.results and key not in shard.refused:
                    # Waits while enough queries are under way, which bounds the open shards, and so the memory.
                    await start(partial(_run_query, job, store, index, shard, rows, key, progress))
    return num_shards


def _batched(items: Iterable[Any], size: int) -> Iterator[tuple[Any, ...]]:
    iterator = iter(items)
    while chunk := tuple(itertools.islice(iterator, size)):
        yield chunk


@asynccontextmanager
async def _tasks(limit: int) -> AsyncIterator[Callable[[Any], Awaitable[None]]]:
    """Gives a function that starts work once less than `limit` is under way; the first error ends all."""
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


async def _run_query(
    job: Job, store: JobStore, index: int, shard: Shard, rows: Mapping[str, Row], key: str, progress: _Progress
) -> None:
    progress.bar.num_under_way += 1
    try:
        result = await progress.pulse.wait(job.timeout_s, _process(job, rows[key]))
    except PermanentError as error:
        # A wrong key or address: every further query would cost time and fail alike.
        if error.concerns_all:
            raise JobError(
                f"the engine refuses every query: {error}; what is finished is saved in {store.work}: the same command "
                "continues from there"
            ) from error
        shard.refuse(key, str(error))
    except (EngineError, TimeoutError) as error:
        progress.failures.append(f"{key}: {str(error) or 'it timed out'}")
        progress.num_in_a_row += 1
        _count(progress, progress.queries, progress.failures[-1], store)
        if progress.num_in_a_row >= job.max_failures:
            raise JobError(
                f"{progress.num_in_a_row} queries failed in a row, the last one: {progress.failures[-1]}; what is "
                f"finished is saved in {store.work}: the same command goes on from there"
            ) from error
        return
    else:
        # On disk before it is counted: a process killed here loses nothing it has shown.
        shard.add(key, result)
        progress.meter.add_result(job.count_tokens(result))
        progress.queries.add(1, 0)
        _count(progress, progress.parts, job.find_failure(result), store)
    finally:
        progress.bar.num_under_way -= 1
    # An answer, even a refusal, shows that the engine lives.
    progress.num_in_a_row = 0
    progress.bar.update()
    if shard.is_complete:
        _finish(job, store, index, shard, rows)


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


def _finish(job: Job, store: JobStore, index: int, shard: Shard, rows: Mapping[str, Row]) -> None:
    answered = [key for key in shard.keys if key in shard.results]
    records = [record for key in answered for record in job.to_records(rows[key], shard.results[key])]
    store.finish_shard(index, shard, records)


def _describe_refused(job: Job, refused: Mapping[str, str]) -> list[dict[str, str]]:
    """The queries that can never be answered, for the manifest."""
    places = job.locate(list(refused)) if refused else {}
    return [{"query": key, "place": places.get(key, key), "cause": cause} for key, cause in refused.items()]


def tell_unanswerable(out: Path, manifest: Mapping[str, Any]) -> str:
    """What a finished output leaves out, on one line with the first cases; empty if it is whole.

    Args:
        out: the output.
        manifest: its manifest.
    """
    refused = manifest.get("unanswerable") or []
    if not refused:
        return ""
    named = "; ".join(f"{one['place']}: {one['cause']}" for one in refused[:MAX_NAMED])
    more = f"; {len(refused) - MAX_NAMED} more in its manifest" if len(refused) > MAX_NAMED else ""
    return (
        f"{out}: {len(refused)} of {manifest['num_queries']} queries can never be answered and are left out: "
        f"{named}{more}"
    )
