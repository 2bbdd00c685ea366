"""The two generators as long jobs: a model started in Ray or reached by URL, a dataset in, a dataset out.

`plan_warmup_data` samples the vanilla student (paper 3.1), `plan_filter` asks the teacher (3.2.2). Both say all that
decides their output in the job's spec, so that a stopped job continues only as the same job.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from relay_verl.config import TeacherSettings
from relay_verl.data import teacher_filter
from relay_verl.data import warmup_generator as warmup_samples
from relay_verl.data.pass_counts import COLUMN
from relay_verl.data.source import Source
from relay_verl.data.teacher_filter import TeacherFilter
from relay_verl.data.warmup_generator import WarmupSampler
from relay_verl.engines.base import TokenEngine
from relay_verl.engines.deadlines import GRADING_S
from relay_verl.engines.resilience import NO_BREAKER
from relay_verl.errors import UserError
from relay_verl.jobs import Job, run_job, tell_unanswerable
from relay_verl.jobs.formats import Parquet, Row
from relay_verl.jobs.pool import Pool, Worker, default_num_workers
from relay_verl.jobs.store import JobStore
from relay_verl.models.address import as_student, model_sha256
from relay_verl.models.tokenizers import tokenizer_at
from relay_verl.run_config import RunConfig


@dataclass(frozen=True)
class Plan:
    """A generator's job before its model is there."""

    model: TeacherSettings
    """Which model writes, and how it runs."""
    tokenizer_path: str
    """Whose tokenizer it has."""
    spec: Mapping[str, Any]
    """See `relay_verl.jobs.job.Job.spec`."""
    schema: pa.Schema
    """Columns of the output."""
    make_worker: Callable[[TokenEngine, Any], Worker]
    """From an engine and its tokenizer."""
    to_records: Callable[[Row, Any], list[Row]]
    """The output's rows of a query and its result."""
    num_requests: int
    """Responses a query takes at most."""
    author: str
    """Who the model is: student or teacher."""
    locate: Callable[[Sequence[str]], Mapping[str, str]]
    """See `relay_verl.jobs.job.Job.locate`."""
    count_tokens: Callable[[Any], int]
    """Tokens that the model wrote for a result."""
    max_failed_share: float
    """See `relay_verl.jobs.job.Job.max_failed_share`."""
    summarize: Callable[[Path], Mapping[str, Any]] | None = None
    """See `relay_verl.jobs.job.Job.summarize`."""

    def job(self, engine: TokenEngine, tokenizer: Any, num_workers: int = 0) -> Job:
        """The job on a running engine; `num_workers` processes in Ray tokenize and grade, 0 for this one."""
        # twice what the engines run at a time, so that they never wait for work
        at_a_time = 2 * self.model.max_num_seqs * self.model.num_replicas // self.num_requests + 1
        pool = Pool(partial(self.make_worker, engine, tokenizer), num_workers, at_a_time)
        return Job(
            self.spec,
            Parquet(self.schema),
            pool.process,
            self.to_records,
            max_concurrency=at_a_time,
            # each response has its own deadline, and early stopping asks for them one after another at worst
            timeout_s=self.num_requests * self.model.timeout_s + GRADING_S,
            summarize=self.summarize,
            engines={self.author: engine},
            count_tokens=lambda result: {self.author: self.count_tokens(result)},
            locate=self.locate,
            max_failed_share=self.max_failed_share,
        )


def plan_warmup_data(run: RunConfig, source: Source, student: str) -> Plan:
    """The data of the call warm-up (3.1): `relay.warmup` says what is drawn, and `student` is the model before it."""
    settings = run.relay
    options = asdict(settings.warmup)
    options.pop("base_model")  # says which student a recipe is for; `student` is who is asked
    sampling = {"temperature": options.pop("temperature"), "top_p": 1.0, "top_k": -1}
    arguments = options | _limits(run, sampling) | {"written_length": settings.written_length}
    return Plan(
        model=replace(as_student(settings.teacher, student), timeout_s=settings.rollout_timeout_s),
        tokenizer_path=run.prompts.tokenizer_of(student),
        spec={
            "kind": "warmup-data",
            "data": source.sha256,
            "student": student,
            "student_sha256": model_sha256(student),
            "columns": warmup_samples.SCHEMA.names,
            **arguments,
            **run.prompts.spec(run.prompts.tokenizer_path),
        },
        schema=warmup_samples.SCHEMA,
        make_worker=partial(WarmupSampler, timeout_s=settings.rollout_timeout_s, **arguments),
        to_records=warmup_samples.to_records,
        num_requests=settings.warmup.num_samples,
        author="student",
        locate=source.locate,
        count_tokens=warmup_samples.count_tokens,
        max_failed_share=settings.max_failed_call_share,
        summarize=warmup_samples.summarize,
    )


def plan_filter(run: RunConfig, source: Source, *, stop_early: bool = False) -> Plan:
    """The dataset with the teacher's pass counts (3.2.2): `relay.filter` and `relay.teacher` say who is asked and how
    often. `stop_early` samples a query no further than its verdict at `relay.filter.min_pass_rate` needs.

    Raises:
        UserError: the dataset has pass counts already, a threshold of 0 leaves nothing to ask, or there are several
            teachers.
    """
    if COLUMN in source.schema.names:
        raise UserError(f"--data: {source.path} has a column {COLUMN!r} already: it is filtered")
    settings = run.relay
    teacher, chosen = settings.only_teacher, settings.filter
    if stop_early and not chosen.min_pass_rate:
        raise UserError("relay.filter.min_pass_rate=0 keeps every query: --early-stop would ask nothing")
    arguments = {
        "num_samples": chosen.num_samples,
        "stop_at": chosen.min_pass_rate if stop_early else None,
        "seed": chosen.seed,
        **_limits(run, teacher.sampling()),
    }
    name = teacher.path or f"{teacher.model or ''}@{teacher.base_url or teacher.engine}"
    name += " (chat)" if teacher.reads_messages else ""
    return Plan(
        model=replace(teacher, timeout_s=settings.rollout_timeout_s),  # a whole response, not a call
        # an endpoint without one of its own has the student's
        tokenizer_path=teacher.own_tokenizer or teacher.path or _students_tokenizer(run),
        spec={
            "kind": "filter",
            "data": source.sha256,
            "teacher": name,
            "teacher_sha256": model_sha256(teacher.path) if teacher.path else None,
            **arguments,
            **run.prompts.spec(run.prompts.tokenizer_path),
        },
        schema=teacher_filter.filtered_schema(source.schema),
        make_worker=partial(TeacherFilter, timeout_s=settings.rollout_timeout_s, **arguments),
        to_records=teacher_filter.to_records,
        num_requests=chosen.num_samples,
        author="teacher",
        locate=source.locate,
        count_tokens=teacher_filter.count_tokens,
        max_failed_share=settings.max_failed_call_share,
    )


def _students_tokenizer(run: RunConfig) -> str:
    """Where the tokenizer is that the student has, or will have."""
    student = run.student
    if student is None:
        raise UserError(
            "actor_rollout_ref.model.path: no student is given, whose tokenizer this needs: set RELAY_STUDENT"
        )
    return run.prompts.tokenizer_of(student)


def generate(
    run: RunConfig,
    plan: Plan,
    source: Source,
    out: Path,
    check: Callable[[Plan, Source, Any], None],
    *,
    num_workers: int | None = None,
) -> dict[str, Any]:
    """Start the plan's model, run its job and write `out`; gives the manifest. Does nothing if `out` is finished.

    Args:
        run: the composed recipe; its rollout section says how the engine runs.
        plan: what to do.
        source: with which queries.
        out: parquet file; its manifest stands next to it.
        check: tries the plan on rows of the source, with the tokenizer, before a model loads:
            `relay_verl.preflight.commands.check_generator`.
        num_workers: processes that tokenize and grade; by default one for each node of a cluster that has several.

    Raises:
        UserError: the tokenizer has no end-of-sequence token or no chat template, or the model cannot start.
        JobError: the job cannot continue; what is finished is saved.
    """
    from relay_verl.models.address import check_tokenizer_path
    from relay_verl.models.launch import start_teacher
    from relay_verl.models.ray_session import ray_cluster

    finished = JobStore(out, plan.spec, Parquet(plan.schema)).finished_manifest()
    if finished is not None:
        print(f"{out} is there already", file=sys.stderr)
        _warn_of_unanswerable(out, finished)
        return finished
    if plan.tokenizer_path != plan.model.path:
        check_tokenizer_path(f"the {plan.author}'s tokenizer", plan.tokenizer_path)
    tokenizer = tokenizer_at(run.prompts, plan.tokenizer_path)
    check(plan, source, tokenizer)

    async def write() -> dict[str, Any]:
        group = await start_teacher(run, replace(plan.model, breaker_threshold=NO_BREAKER), tokenizer)
        assert group is not None
        workers = default_num_workers() if num_workers is None else num_workers
        job = plan.job(group.engine, tokenizer, workers)
        return await run_job(job, source.queries(), source.num_rows, out)

    num_gpus = plan.model.num_replicas * plan.model.tensor_parallel_size
    needs_ray = plan.model.path is not None or num_workers  # an endpoint is asked from here
    with ray_cluster(run, num_gpus) if needs_ray else nullcontext():
        manifest = asyncio.run(write())
    _warn_of_unanswerable(out, manifest)
    return manifest


def _warn_of_unanswerable(out: Path, manifest: Mapping[str, Any]) -> None:
    if missing := tell_unanswerable(out, manifest):
        print(f"warning: {missing}", file=sys.stderr)


def _limits(run: RunConfig, sampling: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "max_tokens": run.lengths.max_response,
        "sampling": dict(sampling),
        "template": dict(run.prompts.template),
    }
