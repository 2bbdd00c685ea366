"""What `relay-verl defer-data` will do, before any model is there: iteration 1 over a dataset, later ones over the
labels of the one before.

Invariant: the spec has all that decides a label, so that a command that was stopped continues only as the same job.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from relay_verl.config import DeferSettings, TeacherSettings
from relay_verl.data.source import Source
from relay_verl.defer.head_folder import head_sha256, read_info
from relay_verl.defer_training.labelled_query import COLUMN, LabelledQuery, check_labelled, labelled_schema
from relay_verl.defer_training.labeller import Labeller
from relay_verl.defer_training.relabeller import Relabeller
from relay_verl.defer_training.threshold_search import policy_at
from relay_verl.engines.base import TokenEngine
from relay_verl.errors import UserError
from relay_verl.jobs.pool import Worker
from relay_verl.models.address import as_student, model_sha256
from relay_verl.models.deferring import read_engine_head
from relay_verl.models.vocabulary import read_vocabulary
from relay_verl.relay_config import RelayConfig
from relay_verl.run_config import PromptSettings, RunConfig


@dataclass(frozen=True)
class LabelPlan:
    """The job of one iteration."""

    iteration: int
    """From 1."""
    student: TeacherSettings
    """How the student's engine runs."""
    teacher: TeacherSettings
    """How the teacher's engine runs."""
    defer: DeferSettings | None
    """The head that the student runs with; None in iteration 1."""
    spec: Mapping[str, Any]
    """See `relay_verl.jobs.job.Job.spec`."""
    schema: pa.Schema
    """Columns of the output."""
    make_worker: Callable[[TokenEngine, TokenEngine, Any], Worker]
    """From both engines and the tokenizer."""


def plan_labels(run: RunConfig, source: Source, *, wants_logprobs: bool = True) -> LabelPlan:
    """Iteration 1: references and labels of the dataset's queries.

    Args:
        run: a composed recipe; the student is its `actor_rollout_ref.model.path`.
        source: the dataset.
        wants_logprobs: whether the file has log-probabilities, which `collm` trains on.

    Raises:
        UserError: the dataset has labels already, or the recipe has no student or no single teacher.
    """
    if COLUMN in source.schema.names:
        raise UserError(f"--data: {source.path} has labels already; --head labels again, by the head of an iteration")
    settings, defer = run.relay, run.relay.defer_training
    student, teacher = _models(run)
    arguments: dict[str, Any] = {
        "num_tries": defer.num_tries,
        "rollout_tokens": defer.rollout_tokens,
        "wants_logprobs": wants_logprobs,
        "max_tokens": run.lengths.max_response,
        "max_context": run.lengths.max_context,
        "sampling": dict(teacher.sampling()),
        "seed": defer.seed,
        "template": dict(run.prompts.template),
    }
    spec = {"kind": "defer-data", "iteration": 1, **_inputs(run, source, student, teacher), **arguments}
    make_worker = partial(Labeller, **arguments, timeout_s=settings.rollout_timeout_s)
    return LabelPlan(1, student, teacher, None, spec, labelled_schema(source.schema), make_worker)


def plan_new_labels(run: RunConfig, source: Source, head: Path) -> LabelPlan:
    """A later iteration: new labels at the places that rollouts decide, by the student under `head`.

    Args:
        run: a composed recipe, as for `plan_labels`.
        source: the labels of the iteration before.
        head: the head that was trained on them.

    Raises:
        UserError: the source has no labels, the head is not whole, or the recipe has no student or no single teacher.
    """
    check_labelled(source.path, source.schema)
    student, teacher = _models(run)
    read_info(head)
    iteration = 1 + max(LabelledQuery.of(row).iteration for _, row in source.queries())
    defer = run.relay.defer_training
    engine = replace(run.relay.defer, head=str(head))
    config = run.relay.decoder_config(defer.routed_rollout_tokens, greedy=True, vocab_size=None)
    arguments: dict[str, Any] = {
        "policy": policy_at(defer.routed_threshold),
        "iteration": iteration,
        "max_context": run.lengths.max_context,
    }
    spec = {
        "kind": "defer-data",
        **_inputs(run, source, student, teacher),
        **arguments,
        "limits": {**asdict(config), "end_ids": sorted(config.end_ids)},
        "num_tokens": engine.num_tokens,
        "head_sha256": head_sha256(head),
    }
    make_worker = partial(
        _make_relabeller, engine=engine, prompts=run.prompts, path=str(student.address), config=config, **arguments
    )
    return LabelPlan(iteration, student, teacher, engine, spec, labelled_schema(source.schema), make_worker)


def _make_relabeller(
    student: TokenEngine,
    teacher: TokenEngine,
    tokenizer: Any,
    *,
    engine: DeferSettings,
    prompts: PromptSettings,
    path: str,
    config: RelayConfig,
    **arguments: Any,
) -> Relabeller:
    """The worker, with what the student's files and its tokenizer tell together: its vocabulary, and how its engine
    asks."""
    vocabulary = read_vocabulary(path, tokenizer, prompts)
    deferral = read_engine_head(engine, path, tokenizer, prompts).deferral(engine.num_tokens)
    bounded = replace(config, vocab_size=vocabulary.size, end_ids=vocabulary.end_ids, deferral=deferral)
    return Relabeller(student, teacher, tokenizer, config=bounded, **arguments)


def student_of(run: RunConfig) -> str:
    """The student that a head is for.

    Raises:
        UserError: the recipe names none.
    """
    if run.student is None:
        raise UserError("actor_rollout_ref.model.path: no student is given; set it, or RELAY_STUDENT")
    return run.student


def _models(run: RunConfig) -> tuple[TeacherSettings, TeacherSettings]:
    """How student and teacher run; a request of theirs is a whole response."""
    teacher = replace(run.relay.only_teacher, timeout_s=run.relay.rollout_timeout_s)
    if teacher.address is None:
        raise UserError("relay.teacher.path: defer-data needs a teacher, whose right responses are the references")
    if teacher.reads_messages:
        raise UserError("relay.teacher.api: a chat API gives no probabilities of a text; defer-data needs token ids")
    return replace(as_student(teacher, student_of(run)), num_replicas=1, tensor_parallel_size=1), teacher


def _inputs(run: RunConfig, source: Source, student: TeacherSettings, teacher: TeacherSettings) -> dict[str, Any]:
    """Data and models, for the spec."""
    described: dict[str, str | None] = {}
    for role, model in (("student", student), ("teacher", teacher)):
        described[role] = str(model.address)
        described[f"{role}_sha256"] = model_sha256(str(model.address))
    return {"data": source.sha256, **described, **run.prompts.spec(run.prompts.tokenizer_path)}
