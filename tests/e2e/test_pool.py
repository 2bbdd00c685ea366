"""A job over several processes in Ray makes what one process makes, and outlives one of them."""

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ray import cloudpickle

from relay_verl.engines import PermanentError
from relay_verl.errors import JobError
from relay_verl.jobs.pool import Pool, default_num_workers
from tests.helpers import generators, tokenizers
from tests.helpers.generators import SeededEngine, filter_job, run, write_questions

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(200)]


@pytest.fixture
def ray_here() -> Iterator[Any]:
    import ray

    modules = [generators, tokenizers, sys.modules[__name__]]
    for module in modules:
        cloudpickle.register_pickle_by_value(module)  # Ray's workers cannot import the tests
    ray.init(num_cpus=4, include_dashboard=False, log_to_driver=False)
    yield ray
    ray.shutdown()
    for module in modules:
        cloudpickle.unregister_pickle_by_value(module)


def over(pool: Pool, source: Any) -> Any:
    job = filter_job(source, SeededEngine(), max_concurrency=8)
    return type(job)(**{**vars(job), "process": pool.process})


class Worker:
    """Says where it works; dies of a question or refuses one if it is told to."""

    def __init__(self, dies_of: str | None = None, refuses: str | None = None) -> None:
        self._dies_of = dies_of
        self._refuses = refuses
        self._worker = generators.filter_worker(SeededEngine(0.002))

    async def process(self, row: Any) -> Any:
        if row["extra_info"]["id"] == self._dies_of:
            os.kill(os.getpid(), signal.SIGKILL)
        if row["extra_info"]["id"] == self._refuses:
            raise PermanentError("400: the prompt is too long")
        return await self._worker.process(row)


def test_several_processes_make_the_same_file(ray_here: Any, tmp_path: Path) -> None:
    source = write_questions(tmp_path / "questions.parquet", 40)
    run(filter_job(source, SeededEngine()), source, tmp_path / "one.parquet")
    pool = Pool(Worker, 2, 8)
    run(over(pool, source), source, tmp_path / "two.parquet")
    assert (tmp_path / "two.parquet").read_bytes() == (tmp_path / "one.parquet").read_bytes()
    assert default_num_workers() == 0, "a single machine needs none"


def test_a_process_that_dies_fails_its_queries_alone(ray_here: Any, tmp_path: Path) -> None:
    source = write_questions(tmp_path / "questions.parquet", 40)
    out = tmp_path / "out.parquet"
    with pytest.raises(JobError, match=r"of 40 queries failed, the first one: q\d+: ") as error:
        run(over(Pool(lambda: Worker("q20"), 2, 8), source), source, out)
    assert "\n" not in str(error.value)
    manifest = run(over(Pool(Worker, 2, 8), source), source, out)
    assert 40 > manifest["num_resumed"] >= 20, "at most those under way were lost"


def test_a_query_that_is_refused_in_another_process_is_left_out(ray_here: Any, tmp_path: Path) -> None:
    source = write_questions(tmp_path / "questions.parquet", 40)
    manifest = run(over(Pool(lambda: Worker(refuses="q20"), 2, 8), source), source, tmp_path / "out.parquet")
    [refused] = manifest["unanswerable"]
    assert (refused["query"], refused["cause"]) == ("q20", "400: the prompt is too long")
