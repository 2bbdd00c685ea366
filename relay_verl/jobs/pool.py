"""Spreads a job's queries over worker processes in Ray, or runs them in this one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from relay_verl.engines.failures import RetriedError
from relay_verl.errors import EngineError, PermanentError
from relay_verl.jobs.formats import Row


class Worker(Protocol):
    """Makes a query's result. Grades, tokenizes and decodes in its own process; the models are elsewhere."""

    async def process(self, row: Row) -> Any:
        """See `relay_verl.jobs.job.Job.process`."""
        ...


class Pool:
    """Workers made by `make_worker`, side by side.

    Args:
        make_worker: makes one; it is sent to the processes.
        num_workers: processes; 0 works in this one.
        max_concurrency: queries under way at a time, over all.
    """

    def __init__(self, make_worker: Callable[[], Worker], num_workers: int, max_concurrency: int):
        self._local = None if num_workers else make_worker()
        self._actors: list[Any] = []
        self._load: list[int] = [0] * num_workers
        if num_workers:
            import ray

            host = ray.remote(_Host).options(
                num_cpus=1, max_concurrency=max_concurrency, max_restarts=3, scheduling_strategy="SPREAD"
            )
            self._actors = [host.remote(make_worker) for _ in range(num_workers)]

    async def process(self, row: Row) -> Any:
        """The result of the least busy worker.

        Raises:
            PermanentError: the query can never be answered.
            EngineError: the worker died, or its engine could not answer.
        """
        if self._local is not None:
            return await self._local.process(row)
        from ray.exceptions import RayError

        index = min(range(len(self._load)), key=self._load.__getitem__)
        self._load[index] += 1
        try:
            return await self._actors[index].process.remote(row)
        except RayError as error:
            cause = getattr(error, "cause", None)
            if isinstance(cause, PermanentError):
                raise PermanentError(str(cause), concerns_all=cause.concerns_all) from error
            last_line = str(cause or error).strip().splitlines()[-1]  # Ray's own texts end with what happened
            message = f"{type(cause or error).__name__}: {last_line}"
            if isinstance(cause, RetriedError):
                raise RetriedError(message, cause.status_code) from error
            raise EngineError(message) from error
        finally:
            self._load[index] -= 1


class _Host:
    """The Ray actor around a worker."""

    def __init__(self, make_worker: Callable[[], Worker]):
        self._worker = make_worker()

    async def process(self, row: Row) -> Any:
        return await self._worker.process(row)


def default_num_workers() -> int:
    """None on a single machine; one for each node of a Ray cluster that has several."""
    import ray

    if not ray.is_initialized():
        return 0
    alive = sum(1 for node in ray.nodes() if node["Alive"])
    return alive if alive > 1 else 0
