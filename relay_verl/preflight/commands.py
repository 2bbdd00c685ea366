"""The checks of training that apply to our own commands, before a model loads: `filter`, `warmup-data`, `eval`, `judge`
and `bench`.

Each is the function that training and `relay-verl doctor` run, on what the command will do.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from relay_verl.config import RelaySettings
from relay_verl.data.generate import Plan
from relay_verl.data.source import Source
from relay_verl.engines.deadlines import DeadlineError, run_within
from relay_verl.errors import UserError, as_user_error
from relay_verl.evaluation.runner import PlannedEvaluation
from relay_verl.grading import Grader
from relay_verl.judging.answer_judge import AnswerJudge
from relay_verl.models.address import check_model, check_tokenizer_path, is_elsewhere
from relay_verl.preflight.check import demand
from relay_verl.preflight.rows import TrialRow, first_of_each_shape, grade_against_itself
from relay_verl.preflight.trial import TRIAL, Reader, Trial
from relay_verl.preflight.trials import evaluation_trial, generator_trial
from relay_verl.run_config import PromptSettings
from relay_verl.tokenization import chat_ids

JUDGE_DEADLINE_S = 12.0
"""Seconds a judge has for two verdicts."""


def check_asked_model(key: str, address: str) -> None:
    """A model is there: a folder, the hub's cache or the hub. An endpoint is asked later, with a real prompt.

    Raises:
        UserError: it is not.
    """
    if not is_elsewhere(address):
        check_model(key, address)


def check_filters_models(settings: RelaySettings) -> None:
    """The models of `filter`: the teacher, and the tokenizer that is named for it.

    Raises:
        UserError: one is not there, or several teachers are given.
    """
    teacher = settings.only_teacher
    if teacher.path is not None:
        check_asked_model("relay.teacher.path", teacher.path)
    if teacher.tokenizer is not None:
        check_tokenizer_path("relay.teacher.tokenizer", teacher.tokenizer)


def check_students_tokenizer(prompts: PromptSettings) -> None:
    """The tokenizer of `actor_rollout_ref.model.tokenizer_path` is there, if one is named.

    Raises:
        UserError: it is not.
    """
    if prompts.tokenizer_path:
        check_tokenizer_path("actor_rollout_ref.model.tokenizer_path", prompts.tokenizer_path)


def check_generator(plan: Plan, source: Source, tokenizer: Any) -> None:
    """Rows of `source` through the plan's chat template, graded against themselves where the plan grades, and through
    its endpoint.

    Raises:
        UserError: the first thing that is wrong.
    """
    if plan.author == "teacher":
        with Grader() as grader:
            warning = grade_against_itself(str(source.path), (row for _, row in source.queries()), grader)
        _warn(warning)
    demand(TRIAL, generator_trial(plan, source, tokenizer))


def check_evaluation(planned: PlannedEvaluation) -> None:
    """Questions of each benchmark through the chat template, graded against themselves, and through each endpoint, as
    each condition will ask it.

    Raises:
        UserError: the first thing that is wrong.
    """
    check_thinking(planned.run.prompts, planned.tokenizer, planned.tokenizer_path)
    with Grader() as grader:
        for name, (_, questions) in planned.suite.benchmarks.items():
            _warn(grade_against_itself(name, questions.rows, grader))
    demand(TRIAL, evaluation_trial(planned))


def check_thinking(prompts: PromptSettings, tokenizer: Any, tokenizer_path: str) -> None:
    """A chat template that is asked for its thinking mode has one: it writes another prompt than without.

    Raises:
        UserError: it writes the same; names the template.
    """
    name = "enable_thinking"
    if not prompts.template.get(name):
        return
    messages = [{"role": "user", "content": "What is 7*8?"}]
    with_it, without = (chat_ids(tokenizer, messages, {**prompts.template, name: thinks}) for thinks in (True, False))
    if with_it == without:
        raise UserError(
            f"--thinking (data.apply_chat_template_kwargs.{name}): true, but the chat template of {tokenizer_path} has "
            "no thinking mode: it writes the same prompt with and without; leave it out"
        )


def check_bench(
    rows: Sequence[Mapping[str, Any]], tokenizer: Any, tokenizer_path: str, template: Mapping[str, Any]
) -> None:
    """Rows of a benchmark of ours through the chat template.

    Raises:
        UserError: it does not take one.
    """
    trial = [TrialRow(f"row {number}", row["prompt"]) for number, row in enumerate(rows, start=1)]
    demand(TRIAL, Trial(first_of_each_shape(trial), [Reader(tokenizer_path, tokenizer, template)]))


def check_judge(judge: AnswerJudge) -> None:
    """The judge gives two verdicts that are known, in time.

    Raises:
        UserError: it does not.
    """
    with as_user_error(
        DeadlineError,
        lambda _: (
            f"judge {judge.model!r}: {judge.base_url} gave no verdict within {JUDGE_DEADLINE_S:g} s: is it up, "
            "and does it serve this model?"
        ),
    ):
        asyncio.run(run_within(JUDGE_DEADLINE_S, judge.check()))


def _warn(warning: str | None) -> None:
    if warning is not None:
        print(f"relay_verl: {warning}", file=sys.stderr)
