"""The two generators as long jobs: a model started in Ray or reached by URL, a dataset in, a dataset out.

`make_warmup_data` samples the vanilla student (paper 3.1), `filter_dataset` asks the teacher (3.2.2). Both say all that
decides their output in the job's spec, so that a stopped job goes on only as the same job.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from relay_verl.config import ConfigError, TeacherSettings, read_settings
from relay_verl.data import filter as teacher_filter
from relay_verl.data import warmup_samples
from relay_verl.data.files import sha256_of
from relay_verl.data.filter import TeacherFilter
from relay_verl.data.schema import dataset_schema, iter_rows, parquet_files
from relay_verl.data.solvability import COLUMN
from relay_verl.data.warmup_samples import WarmupSampler
from relay_verl.engines.base import TokenEngine
from relay_verl.jobs import Job, run_job
from relay_verl.jobs.pool import Pool, Worker, default_num_workers
from relay_verl.jobs.store import Row


@dataclass(frozen=True)
class Source:
    """A dataset that a generator reads."""

    path: Path
    """A parquet file, or a folder of them."""
    num_rows: int
    """Queries in it."""
    schema: pa.Schema
    """Its columns."""
    sha256: list[str]
    """Hash of each file."""

    @classmethod
    def scan(cls, path: Path) -> Source:
        """Check every row before a model loads.

        Raises:
            ConfigError: see `relay_verl.data.schema.iter_rows`.
        """
        num_rows = sum(1 for _ in iter_rows(path))
        return cls(path, num_rows, dataset_schema(path), [sha256_of(file) for file in parquet_files(path)])

    def queries(self) -> Iterator[tuple[str, Row]]:
        """Id and row of each query, in order."""
        return ((row["extra_info"]["id"], row) for row in iter_rows(self.path))


def make_warmup_data(
    config: Any, source: Source, out: Path, *, student: str, num_workers: int | None = None
) -> dict[str, Any]:
    """Write the data of the call warm-up; gives the manifest.

    Args:
        config: a composed relay recipe; `relay.warmup` says what is drawn, its rollout section how the engine runs.
        source: queries.
        out: parquet file in `relay_verl.data.warmup_samples.SCHEMA`.
        student: the student before any training.
        num_workers: processes beside the engine; see `default_num_workers`.

    Raises:
        JobError: it cannot go on; what is finished is saved.
    """
    settings = read_settings(config.relay)
    options = asdict(settings.warmup)
    sampling = {"temperature": options.pop("temperature"), "top_p": 1.0, "top_k": -1}
    arguments = options | _limits(config, sampling)
    job = _JobPlan(
        spec={"kind": "warmup-data", "data": source.sha256, "student": student, **arguments},
        schema=warmup_samples.SCHEMA,
        make_worker=partial(WarmupSampler, **arguments),
        to_records=warmup_samples.to_records,
        num_requests=settings.warmup.num_samples,
    )
    teacher = replace(settings.teacher, path=student, base_url=None, model=None)
    return _run(config, job, source, out, model=teacher, tokenizer_path=student, num_workers=num_workers)


def filter_dataset(
    config: Any, source: Source, out: Path, *, stop_early: bool = False, num_workers: int | None = None
) -> dict[str, Any]:
    """Write the dataset with the teacher's pass counts; gives the manifest.

    Args:
        config: a composed relay recipe; `relay.filter` and `relay.teacher` say who is asked and how often.
        source: queries.
        out: parquet file with the dataset's columns and `teacher_pass`.
        stop_early: stop sampling a query once its verdict at `relay.filter.min_pass_rate` is certain.
        num_workers: processes beside the engine; see `default_num_workers`.

    Raises:
        ConfigError: the dataset has pass counts already.
        JobError: it cannot go on; what is finished is saved.
    """
    if COLUMN in source.schema.names:
        raise ConfigError(f"--data: {source.path} has a column {COLUMN!r} already: it is filtered")
    settings = read_settings(config.relay)
    chosen = settings.filter
    sampling = {"temperature": settings.teacher.temperature, "top_p": 1.0, "top_k": -1}
    arguments = {
        "num_samples": chosen.num_samples,
        "stop_at": chosen.min_pass_rate if stop_early else None,
        "seed": chosen.seed,
        **_limits(config, sampling),
    }
    teacher = settings.teacher
    name = teacher.path or f"{teacher.model or ''}@{teacher.base_url}"
    job = _JobPlan(
        spec={"kind": "filter", "data": source.sha256, "teacher": name, **arguments},
        schema=teacher_filter.filtered_schema(source.schema),
        make_worker=partial(TeacherFilter, **arguments),
        to_records=teacher_filter.to_records,
        num_requests=chosen.num_samples,
    )
    tokenizer_path = teacher.path or config.actor_rollout_ref.model.path  # an endpoint's tokenizer is the student's
    return _run(config, job, source, out, model=teacher, tokenizer_path=tokenizer_path, num_workers=num_workers)


@dataclass(frozen=True)
class _JobPlan:
    """A job before its engine is there."""

    spec: Mapping[str, Any]
    schema: pa.Schema
    make_worker: Callable[..., Worker]
    to_records: Callable[[Row, Any], list[Row]]
    num_requests: int


def _limits(config: Any, sampling: Mapping[str, Any]) -> dict[str, Any]:
    from omegaconf import OmegaConf

    template = config.data.get("apply_chat_template_kwargs") or {}
    return {
        "max_tokens": int(config.data.max_response_length),
        "sampling": dict(sampling),
        "template": OmegaConf.to_container(template, resolve=True) if OmegaConf.is_config(template) else template,
    }


def _run(
    config: Any,
    plan: _JobPlan,
    source: Source,
    out: Path,
    *,
    model: TeacherSettings,
    tokenizer_path: str,
    num_workers: int | None,
) -> dict[str, Any]:
    from verl.utils import hf_tokenizer

    trusts = config.actor_rollout_ref.model.get("trust_remote_code", False)
    tokenizer = hf_tokenizer(tokenizer_path, trust_remote_code=trusts)
    if tokenizer.eos_token_id is None:
        raise ConfigError(f"{tokenizer_path}: its tokenizer has no end-of-sequence token; no response could end")
    # twice what the engines run at a time, so that they never wait for work
    at_a_time = 2 * model.max_num_seqs * model.num_replicas // plan.num_requests + 1

    async def run() -> dict[str, Any]:
        with _engine(config, model, tokenizer) as start:
            make_worker = partial(plan.make_worker, await start(), tokenizer)
            workers = default_num_workers() if num_workers is None else num_workers
            pool = Pool(make_worker, workers, at_a_time)
            job = Job(
                spec={**plan.spec, "num_queries": source.num_rows},
                schema=plan.schema,
                process=pool.process,
                to_records=plan.to_records,
                max_concurrency=at_a_time,
            )
            return await run_job(job, source.queries(), source.num_rows, out)

    return asyncio.run(run())


@contextmanager
def _engine(config: Any, model: TeacherSettings, tokenizer: Any) -> Iterator[Callable[[], Any]]:
    """Ray, and a function that starts the model there; an endpoint needs nothing started."""
    from relay_verl.evaluation.runner import ray_cluster
    from relay_verl.teacher import start_teacher

    async def start() -> TokenEngine:
        group = await start_teacher(config, model, tokenizer)
        assert group is not None
        return group.engine

    with ray_cluster(config, num_gpus=model.num_replicas * model.tensor_parallel_size):
        yield start


def describe(manifest: Mapping[str, Any]) -> str:
    """One line on what a job did."""
    return json.dumps({k: manifest[k] for k in ("num_queries", "num_resumed", "seconds")})
