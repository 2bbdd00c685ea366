"""Measures a student with or without a teacher on benchmarks: one runner for every row of the paper's tables.

The engines are verl's replicas in Ray, as in training, or endpoints; each model is started once and serves every
condition. A condition is a long job of its own: its results folder appears when it is whole, and a run that was killed
continues where it ended. Greedy pass@1, or avg@k where a benchmark says so (paper 4.2).

A response may take `relay.rollout_timeout_s`, whoever writes it; `relay.teacher.timeout_s` bounds calls alone.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from relay_verl.benchmarks.registry import Benchmark, Questions
from relay_verl.config import TeacherSettings, check_endpoint, num_gpus_of
from relay_verl.engines.base import TokenEngine
from relay_verl.engines.deadlines import GRADING_S
from relay_verl.engines.factory import PREFIX, find_engine
from relay_verl.engines.resilience import NO_BREAKER
from relay_verl.errors import UserError
from relay_verl.evaluation.job_spec import describe
from relay_verl.evaluation.shared_tokenizer import load_shared_tokenizer, vocabulary_of_writer
from relay_verl.evaluation.worker import (
    EvalSettings,
    EvalWorker,
    count_tokens,
    missing_verdict,
    to_records,
    unanswered,
)
from relay_verl.jobs import Job, run_job
from relay_verl.jobs.formats import JsonLines, Row
from relay_verl.jobs.pool import Pool, default_num_workers
from relay_verl.jobs.queries import Queries
from relay_verl.jobs.store import JobStore
from relay_verl.judging.other_judge import AnswerJudge
from relay_verl.models.address import as_student, is_endpoint, is_engine, model_at, model_sha256
from relay_verl.models.launch import start_models
from relay_verl.models.ray_session import ray_cluster
from relay_verl.models.vocabulary import Vocabulary
from relay_verl.policies import make_policy, needs_student, needs_teacher
from relay_verl.report.summary import tell_not_completed, write_summary
from relay_verl.run_config import RunConfig
from relay_verl.traces.results import RESPONSES

_UNTRUNCATED: Mapping[str, Any] = {"top_p": 1.0, "top_k": -1}
"""Sampling from the whole distribution, said in full: what is not said an endpoint takes from the model's files."""


@dataclass(frozen=True)
class Condition:
    """Who answers, and under which policy."""

    name: str
    """What tables call it."""
    out: Path
    """Its results folder."""
    student: str | None
    """Folder, hub id or endpoint of the model that writes; None only if the policy never asks it."""
    teacher: str | None = None
    """The same of the model that answers calls."""
    policy: str = "learned"
    """See `relay_verl.policies`."""
    row: str | None = None
    """The row of the paper or of the tiny world that the student is (see `relay_verl.recipes.paper`)."""
    teacher_name: str | None = None
    """What tables call the teacher; the last part of its address if None."""

    def __post_init__(self) -> None:
        try:
            make_policy(self.policy)
        except UserError as error:
            raise UserError(f"--{error}") from None
        for role, model, is_needed in (
            ("student", self.student, needs_student(self.policy)),
            ("teacher", self.teacher, needs_teacher(self.policy)),
        ):
            if is_needed and model is None:
                raise UserError(f"--{role}: policy {self.policy} needs one")
            if model is not None and is_endpoint(model):
                check_endpoint(f"--{role}", model, f"RELAY_{role.upper()}_API_KEY")
            if model is not None and is_engine(model):
                find_engine(model.removeprefix(PREFIX))

    @property
    def models(self) -> tuple[str | None, str | None]:
        """The student and the teacher that take part; None for one that does not."""
        return (
            self.student if needs_student(self.policy) else None,
            self.teacher if needs_teacher(self.policy) else None,
        )


@dataclass(frozen=True)
class EvalSuite:
    """The questions and how they are asked: the same for every condition that is compared."""

    benchmarks: Mapping[str, tuple[Benchmark, Questions]]
    """By name."""
    num_samples: int | None = None
    """Responses a question; each benchmark's own number if None."""
    temperature: float | None = None
    """Sampling temperature, with neither top_p nor top_k; each benchmark's own sampling if None."""
    seed: int = 0
    """Of all that is drawn."""
    is_deterministic: bool = False
    """One response at a time and no prefix cache, so that greedy responses never depend on what else is under way."""
    judge: AnswerJudge | None = None
    """Gives a second verdict on every response."""

    def sampling(self, name: str) -> tuple[int, dict[str, Any]]:
        """Responses a question of this benchmark, and their sampling under vLLM's names."""
        benchmark = self.benchmarks[name][0]
        if self.temperature is None:
            sampling = dict(benchmark.sampling)
        else:  # greedy needs no more
            sampling = {"temperature": self.temperature, **(_UNTRUNCATED if self.temperature > 0 else {})}
        return self.num_samples or benchmark.num_samples, sampling

    def queries(self) -> Queries:
        """A key and the query for each response, in order."""
        return Queries(self._read_queries)

    def _read_queries(self) -> Iterator[tuple[str, Row]]:
        for name, (_, questions) in self.benchmarks.items():
            num_samples, sampling = self.sampling(name)
            for row in questions.rows:
                for sample in range(num_samples):
                    key = f"{name}/{row['extra_info']['id']}/{sample}"
                    yield key, {"row": row, "sample": sample, "sampling": sampling}

    @property
    def num_queries(self) -> int:
        """Responses in all."""
        return sum(len(q.rows) * self.sampling(name)[0] for name, (_, q) in self.benchmarks.items())

    def describe(self) -> dict[str, Any]:
        """What decides the responses, for a job's spec."""
        described = {}
        for name, (_, questions) in self.benchmarks.items():
            num_samples, sampling = self.sampling(name)
            described[name] = {
                "sha256": questions.sha256,
                "num_questions": len(questions.rows),
                "num_samples": num_samples,
                "sampling": sampling,
            }
        return {
            "benchmarks": described,
            "seed": self.seed,
            "is_deterministic": self.is_deterministic,
            "judge": self.judge and self.judge.spec,
        }


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

    Raises:
        UserError: a model cannot be used; before any model loads.
        JobError: a condition cannot go on; what is finished is saved.
    """
    addresses = dict.fromkeys(model for condition in conditions for model in condition.models if model)
    digests = {address: model_sha256(address) for address in addresses}  # once each: weights are large
    prompts_by = tokenizer_path or run.prompts.tokenizer_path
    specs = [
        describe(run, condition, suite.describe(), digests, names=endpoint_models, tokenizer=prompts_by)
        for condition in conditions
    ]
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
    trusts = run.prompts.trust_remote_code
    writers = [
        vocabulary_of_writer(*condition.models, tokenizer, tokenizer_path, trust_remote_code=trusts)
        for condition, _ in open_jobs
    ]
    open_conditions = [condition for condition, _ in open_jobs]
    check(PlannedEvaluation(run, open_conditions, suite, models, tokenizer, tokenizer_path, writers))

    # after `describe`: it makes no response another one
    started = run.changed("actor_rollout_ref.rollout.enable_prefix_caching", False) if suite.is_deterministic else run

    async def answer_all() -> None:
        engines = await start_models(started, models, tokenizer)
        for (condition, spec), vocabulary in zip(open_jobs, writers, strict=True):
            job = _make_job(run, condition, spec, suite, engines, tokenizer, models, num_workers, vocabulary)
            await run_job(job, suite.queries(), suite.num_queries, condition.out / RESPONSES)
            write_summary(condition.out)
            if missing := tell_not_completed(condition.out):
                print(f"warning: {missing}", file=sys.stderr)

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
        timeout_s=settings.rollout_timeout_s + GRADING_S,
        engines={role: engines[model] for role, model in (("student", student), ("teacher", teacher)) if model},
        count_tokens=count_tokens,
        max_failed_share=settings.max_failed_call_share,
        find_failure=missing_verdict,
        parts="verdicts of the judge",
        replace=partial(unanswered, condition.name, suite.judge is not None),
    )
