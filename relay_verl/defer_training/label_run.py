"""Runs the job of `relay-verl defer-data`: both models started in Ray or reached by URL, a label file out."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from relay_verl.config import num_gpus_of
from relay_verl.data.schema import iter_rows
from relay_verl.data.source import Source
from relay_verl.defer.engine_head import EngineHead
from relay_verl.defer_training.label_plan import LabelPlan
from relay_verl.defer_training.labelled_query import LabelledQuery, count_tokens, summarize, to_records
from relay_verl.engines.base import TokenEngine
from relay_verl.engines.deadlines import GRADING_S
from relay_verl.engines.resilience import NO_BREAKER
from relay_verl.errors import UserError
from relay_verl.evaluation.shared_tokenizer import load_shared_tokenizer
from relay_verl.jobs import Job, run_job, tell_unanswerable
from relay_verl.jobs.formats import Parquet
from relay_verl.jobs.pool import Pool, default_num_workers
from relay_verl.jobs.store import JobStore
from relay_verl.models.deferring import read_engine_head, with_head
from relay_verl.models.launch import start_models
from relay_verl.models.ray_session import ray_cluster
from relay_verl.run_config import RunConfig


def write_labels(
    run: RunConfig,
    plan: LabelPlan,
    source: Source,
    out: Path,
    check: Callable[[Source, Any, str], None],
    *,
    num_workers: int | None = None,
) -> dict[str, Any]:
    """Start both models, run the plan's job and write `out`; gives the manifest. Does nothing if `out` is finished.

    Args:
        run: a composed recipe; its rollout section says how engines run.
        plan: what to do.
        source: with which queries.
        out: parquet file; its manifest stands next to it.
        check: tries rows of the source with the tokenizer and its path, before a model loads.
        num_workers: processes that tokenize and grade; by default one for each node of a cluster that has several.

    Raises:
        UserError: the models have different tokenizers, one cannot start, or no query has a reference.
        JobError: the job cannot continue; what is finished is saved.
    """
    finished = JobStore(out, plan.spec, Parquet(plan.schema)).finished_manifest()
    if finished is not None:
        print(f"{out} is there already", file=sys.stderr)
        return finished
    addresses = [str(plan.student.address), str(plan.teacher.address)]
    tokenizer, path = load_shared_tokenizer(run.prompts, addresses, run.prompts.tokenizer_path)
    check(source, tokenizer, path)
    models = {"student": plan.student, "teacher": plan.teacher}
    # a job counts failures by itself
    models = {role: replace(model, breaker_threshold=NO_BREAKER) for role, model in models.items()}
    heads: dict[str, EngineHead] = {}
    if plan.defer is not None:
        heads["student"] = read_engine_head(plan.defer, addresses[0], tokenizer, run.prompts)
        with_head(run, heads["student"])  # what it says against the recipe is said before a model loads

    async def write() -> dict[str, Any]:
        engines = await start_models(run, models, tokenizer, heads=heads)
        workers = default_num_workers() if num_workers is None else num_workers
        job = label_job(run, plan, engines["student"], engines["teacher"], tokenizer, workers)
        return await run_job(job, source.queries(), source.num_rows, out)

    num_gpus = num_gpus_of(models.values())
    with ray_cluster(run, num_gpus, turns=[list(models.values())]) if num_gpus or num_workers else nullcontext():
        manifest = asyncio.run(write())
    if missing := tell_unanswerable(out, manifest):
        print(f"warning: {missing}", file=sys.stderr)
    return manifest


def label_job(
    run: RunConfig, plan: LabelPlan, student: TokenEngine, teacher: TokenEngine, tokenizer: Any, num_workers: int = 0
) -> Job:
    """The job on running engines; `num_workers` processes in Ray tokenize and grade, 0 for this one."""
    at_a_time = plan.teacher.max_num_seqs * plan.teacher.num_replicas
    pool = Pool(partial(plan.make_worker, student, teacher, tokenizer), num_workers, at_a_time)
    settings = run.relay
    return Job(
        plan.spec,
        Parquet(plan.schema),
        pool.process,
        to_records,
        max_concurrency=at_a_time,
        # references are tried one after another, then come the prefills and the rollouts, side by side
        timeout_s=(settings.defer_training.num_tries + 2) * settings.rollout_timeout_s + GRADING_S,
        summarize=summarize_file,
        engines={"student": student, "teacher": teacher},
        count_tokens=count_tokens,
        max_failed_share=settings.max_failed_call_share,
    )


def summarize_file(out: Path) -> Mapping[str, Any]:
    """Numbers on a label file, for its manifest.

    Raises:
        UserError: it has no row.
    """
    if not pq.read_metadata(out).num_rows:
        raise UserError(f"{out}: the teacher answered none of the queries right, so there is nothing to label")
    return summarize(read_labels(out))


def read_labels(path: Path) -> list[LabelledQuery]:
    """The queries of a label file, in order.

    Raises:
        UserError: it has none.
    """
    try:
        return [LabelledQuery.of(row) for row in iter_rows(path)]
    except (KeyError, TypeError):
        raise UserError(f"{path}: expected labels; `relay-verl defer-data` writes them") from None
