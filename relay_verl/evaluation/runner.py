"""Measures a student with or without a teacher on benchmarks: one runner for every row of the paper's tables.

The engines are verl's replicas in Ray, as in training, or endpoints; each model is started once and serves every
condition. A condition is a long job of its own: its results folder appears when it is whole, and a run that was killed
continues where it ended. Greedy pass@1, or avg@k where a benchmark says so (paper 4.2).

A response may take `relay.rollout_timeout_s`, whoever writes it; `relay.teacher.timeout_s` bounds calls alone.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from relay_verl.config import TeacherSettings, num_gpus_of
from relay_verl.deferral import Deferral
from relay_verl.engines.base import TokenEngine
from relay_verl.engines.deadlines import GRADING_S
from relay_verl.engines.resilience import NO_BREAKER
from relay_verl.evaluation.job_spec import describe, note_costs
from relay_verl.evaluation.shared_tokenizer import load_shared_tokenizer, vocabulary_of_writer
from relay_verl.evaluation.suite import Condition, EvalSuite
from relay_verl.evaluation.worker import (
    EvalSettings,
    EvalWorker,
    count_tokens,
    missing_verdict,
    to_records,
    unanswered,
)
from relay_verl.jobs import Job, run_job
from relay_verl.jobs.formats import JsonLines
from relay_verl.jobs.pool import Pool, default_num_workers
from relay_verl.jobs.store import JobStore
from relay_verl.models.address import as_student, model_at, model_sha256
from relay_verl.models.deferring import read_engine_head, with_head
from relay_verl.models.launch import start_models
from relay_verl.models.ray_session import ray_cluster
from relay_verl.models.vocabulary import Vocabulary
from relay_verl.report.summary import tell_not_completed, write_summary
from relay_verl.run_config import RunConfig
from relay_verl.traces.results import RESPONSES


@dataclass(frozen=True)
class PlannedEvaluation:
    """What `evaluate` is about to ask, for a check before any model loads."""

    run: RunConfig
    """The composed recipe."""
    conditions: Sequence[Condition]
    """Those whose results are not there yet."""
    suite: EvalSuite
    """What is asked."""
    models: Mapping[str, TeacherSettings]
    """Each model's settings, by its address."""
    tokenizer: Any
    """That of all of them."""
    tokenizer_path: str
    """Where it is from."""
    vocabularies: Sequence[Vocabulary]
    """Of each condition, that of the model that writes."""


def evaluate(
    run: RunConfig,
    conditions: Sequence[Condition],
    suite: EvalSuite,
    check: Callable[[PlannedEvaluation], None],
    *,
    tokenizer_path: str | None = None,
    endpoint_models: Mapping[str, str] = {},
    student_replicas: int = 1,
    num_workers: int | None = None,
    further: Callable[[], Condition | None] = lambda: None,
    tell: Callable[[Condition], None] = lambda condition: None,
) -> None:
    """Ask every question under every condition; each leaves its results folder. What is there already is kept.

    Args:
        run: a composed recipe; its rollout section says how engines run, its relay section what calls may cost.
        conditions: who answers.
        suite: what is asked.
        check: tries questions, templates and endpoints before a model loads:
            `relay_verl.preflight.commands.check_evaluation`.
        tokenizer_path: whose tokenizer both models have; the first model's that is not an endpoint if None.
        endpoint_models: the model's name at an endpoint, by address; its first one if it is not there.
        student_replicas: vLLM replicas of each student.
        num_workers: processes that tokenize and grade; by default one for each node of a cluster that has several.
        further: asked for one more condition of the last one's models once all are answered, until it gives None, such
            as a search whose next step depends on the results; not asked where nothing is open.
        tell: told of each condition when its turn comes.

    Raises:
        UserError: a model cannot be used; before any model loads.
        JobError: a condition cannot continue; what is finished is saved.
    """
    addresses = dict.fromkeys(model for condition in conditions for model in condition.models if model)
    digests = {address: model_sha256(address) for address in addresses}  # once each: weights are large
    prompts_by = tokenizer_path or run.prompts.tokenizer_path

    def spec_of(condition: Condition) -> dict[str, Any]:
        return describe(run, condition, suite.describe(), digests, names=endpoint_models, tokenizer=prompts_by)

    specs = [spec_of(condition) for condition in conditions]
    open_jobs = []
    for condition, spec in zip(conditions, specs, strict=True):
        if JobStore(condition.out / RESPONSES, spec, JsonLines()).finished_manifest() is None:
            open_jobs.append((condition, spec))
        else:
            print(f"{condition.out} is there already", file=sys.stderr)
            write_summary(condition.out)  # a run may have been killed before it came to that
    if not open_jobs:
        return
    asked = dict.fromkeys(model for condition, _ in open_jobs for model in condition.models if model)
    tokenizer, tokenizer_path = load_shared_tokenizer(run.prompts, list(asked), tokenizer_path)
    relay = run.relay
    settings = replace(relay.teacher, breaker_threshold=NO_BREAKER, timeout_s=relay.rollout_timeout_s)
    models: dict[str, TeacherSettings] = {}
    for condition, _ in open_jobs:
        student, teacher = condition.models
        if teacher and teacher not in models:
            models[teacher] = model_at(teacher, settings, model=endpoint_models.get(teacher))
        if student and student not in models:
            alone = replace(
                settings, num_replicas=student_replicas, tensor_parallel_size=1, api_key_env="RELAY_STUDENT_API_KEY"
            )
            models[student] = as_student(alone, student, model=endpoint_models.get(student))
    writers = [
        vocabulary_of_writer(*condition.models, tokenizer, tokenizer_path, run.prompts) for condition, _ in open_jobs
    ]
    heads = {
        condition.student: read_engine_head(relay.defer, condition.student, tokenizer, run.prompts)
        for condition, _ in open_jobs
        if condition.defers and condition.student
    }
    for head in heads.values():
        with_head(run, head)  # what it says against the recipe is said before a model loads
    open_conditions = [condition for condition, _ in open_jobs]
    check(PlannedEvaluation(run, open_conditions, suite, models, tokenizer, tokenizer_path, writers))

    # after `describe`: it makes no response another one
    started = run.changed("actor_rollout_ref.rollout.enable_prefix_caching", False) if suite.is_deterministic else run

    async def answer_all() -> None:
        engines = await start_models(started, models, tokenizer, heads=heads)

        async def answer(condition: Condition, spec: Mapping[str, Any], vocabulary: Vocabulary) -> None:
            tell(condition)
            head = heads[condition.student] if condition.defers and condition.student else None
            deferral = None if head is None else head.deferral(relay.defer.num_tokens)
            job = _make_job(run, condition, spec, suite, engines, tokenizer, models, num_workers, vocabulary, deferral)
            await run_job(job, suite.queries(), suite.num_queries, condition.out / RESPONSES)
            write_summary(condition.out)
            if missing := tell_not_completed(condition.out):
                print(f"warning: {missing}", file=sys.stderr)

        for (condition, spec), vocabulary in zip(open_jobs, writers, strict=True):
            await answer(condition, spec, vocabulary)
        while (another := further()) is not None:
            await answer(another, spec_of(another), writers[-1])

    num_gpus = num_gpus_of(models.values())
    turns = [[models[name] for name in condition.models if name] for condition, _ in open_jobs]
    cluster = partial(ray_cluster, turns=turns, is_deterministic=suite.is_deterministic)
    with cluster(started, num_gpus) if num_gpus or num_workers else nullcontext():
        asyncio.run(answer_all())


def _make_job(
    run: RunConfig,
    condition: Condition,
    spec: Mapping[str, Any],
    suite: EvalSuite,
    engines: Mapping[str, TokenEngine],
    tokenizer: Any,
    models: Mapping[str, TeacherSettings],
    num_workers: int | None,
    vocabulary: Vocabulary | None = None,
    deferral: Deferral | None = None,
) -> Job:
    student, teacher = condition.models
    settings = run.relay
    rules = EvalSettings(
        condition=condition.name,
        policy=condition.policy,
        settings=settings,
        max_tokens=run.lengths.max_response,
        max_context=run.lengths.max_context,
        template=run.prompts.template,
        seed=suite.seed,
        deferral=deferral,
        max_teacher_tokens=condition.max_teacher_tokens,
        has_scores=condition.has_scores,
        num_refusals=condition.num_refusals,
    )
    writer = models[student or teacher or ""]
    # twice what an engine runs at a time, so that it never waits for work
    at_a_time = 1 if suite.is_deterministic else 2 * writer.max_num_seqs * writer.num_replicas
    make_worker = partial(
        EvalWorker,
        engines[student] if student else None,
        engines[teacher] if teacher else None,
        tokenizer,
        rules,
        suite.judge,
        vocabulary,
    )
    pool = Pool(make_worker, default_num_workers() if num_workers is None else num_workers, at_a_time)
    return Job(
        spec,
        JsonLines(),
        pool.process,
        to_records,
        max_concurrency=at_a_time,
        timeout_s=(1 + condition.num_refusals) * settings.rollout_timeout_s + GRADING_S,
        engines={role: engines[model] for role, model in (("student", student), ("teacher", teacher)) if model},
        count_tokens=count_tokens,
        max_failed_share=settings.max_failed_call_share,
        find_failure=missing_verdict,
        parts="verdicts of the judge",
        replace=partial(unanswered, condition.name, suite.judge is not None),
        summarize=lambda _: note_costs(run.relay.prices, *condition.models),
    )
