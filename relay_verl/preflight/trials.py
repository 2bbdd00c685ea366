"""What each kind of run will do with models, as a `Trial`: of a composed config, a generator's plan, an evaluation.

Invariant: rows, templates and parameters come from where the run itself takes them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from omegaconf import OmegaConf

from relay_verl.config import RelaySettings, TeacherSettings
from relay_verl.data.generate import Plan
from relay_verl.data.source import Source
from relay_verl.errors import UserError, as_user_error
from relay_verl.evaluation.runner import PlannedEvaluation
from relay_verl.evaluation.suite import Condition, EvalSuite
from relay_verl.models.address import is_endpoint
from relay_verl.models.launch import load_tokenizer
from relay_verl.models.tokenizers import tokenizer_at
from relay_verl.models.vocabulary import read_vocabulary
from relay_verl.policies import parse_policy
from relay_verl.policy_base import Policy
from relay_verl.preflight.check import CheckWarning
from relay_verl.preflight.data_checks import local_files
from relay_verl.preflight.rows import TrialRow, first_of_each_shape, trial_rows
from relay_verl.preflight.trial import Reader, Request, Trial, Wording, check_completions, check_prompts
from relay_verl.protocol import CLOSE, OPEN
from relay_verl.run_config import DataSettings, RunConfig
from relay_verl.seeds import sample_seed

STUDENT_FIX = (
    "take these messages out of the rows, or set actor_rollout_ref.model.custom_chat_template to a template that takes "
    "them"
)
TEACHER_FIX = "take these messages out of the rows, or give a teacher whose template takes them"


def training_trial(run: RunConfig) -> Trial:
    """Of a composed GRPO config: the student's template, those behind text bridges, and the teachers' endpoints.

    Raises:
        UserError: the student's tokenizer has no chat template or no end.
    """
    path = run.verl.actor_rollout_ref.model.path
    key = "actor_rollout_ref.model.path"
    with as_user_error(
        UserError, lambda error: f"{key}: {error}; actor_rollout_ref.model.custom_chat_template gives it a template"
    ):
        tokenizer = tokenizer_at(run.prompts, run.prompts.tokenizer_of(path))
    template = run.prompts.template
    student = Reader(f"{key}: {path}", tokenizer, template, STUDENT_FIX)
    size = read_vocabulary(path, tokenizer, run.prompts).size
    readers, requests = [student], []
    for teacher_key, teacher in run.teachers.items():
        asked = Reader(student.name, tokenizer, template, STUDENT_FIX, teacher.data_sources)
        bridge = None
        if teacher.own_tokenizer is not None:
            teacher_tokenizer = load_tokenizer(teacher, tokenizer, run.prompts)
            address = teacher.path or teacher.own_tokenizer
            ends = read_vocabulary(address, teacher_tokenizer, run.prompts).end_ids
            name = f"{teacher_key}.text_bridge: {teacher.own_tokenizer}"
            bridge = Reader(name, teacher_tokenizer, template, TEACHER_FIX, teacher.data_sources, ends)
            readers.append(bridge)
        if teacher.base_url is not None:
            wordings = _call_wordings(run, teacher)
            requests.append(
                Request(f"{teacher_key}.base_url: {teacher.base_url}", teacher, asked, wordings, size, bridge)
            )
    return Trial(_rows_of(run.data), readers, requests)


def check_training_prompts(run: RunConfig) -> CheckWarning | str:
    """`check_prompts` of a composed GRPO config."""
    return check_prompts(training_trial(run))


def check_training_completions(run: RunConfig) -> CheckWarning | str:
    """`check_completions` of a composed GRPO config; without an endpoint no tokenizer is loaded for it."""
    settings = run.relay
    has_endpoint = any(teacher.base_url is not None for teacher in settings.active_teachers.values())
    if not (settings.needs_teacher and has_endpoint):
        return "no endpoint"
    return check_completions(training_trial(run))


def _rows_of(data: DataSettings) -> list[TrialRow]:
    """Some rows of the training and the validation files, as far as they are on this machine."""
    rows: list[TrialRow] = []
    for key in ("train_files", "val_files"):
        for name in local_files(data, key):
            rows += trial_rows(name, f"data.{key}: {name}", data.prompt_key)
    return rows


def _call_wordings(run: RunConfig, teacher: TeacherSettings) -> list[Wording]:
    """How calls will be asked in training, and in greedy validation if there will be one."""
    config, settings = run.verl, run.relay
    rollout = config.actor_rollout_ref.rollout
    seed = sample_seed(0, "trial") if rollout.get("full_determinism") else {}
    max_tokens = min(settings.max_tokens_per_call, run.lengths.max_response)
    validates = (OmegaConf.select(config, "trainer.test_freq") or 0) > 0 or bool(
        OmegaConf.select(config, "trainer.val_before_train")
    )
    is_greedy = validates and not OmegaConf.select(config, "actor_rollout_ref.rollout.val_kwargs.do_sample")
    kinds = (False, True) if is_greedy else (False,)
    return _different(
        Wording({**teacher.sampling(greedy=greedy), **seed}, max_tokens, is_call=True) for greedy in kinds
    )


def generator_trial(plan: Plan, source: Source, tokenizer: Any) -> Trial:
    """Of `filter` or `warmup-data`.

    Args:
        plan: what it will do.
        source: with which rows.
        tokenizer: that of the plan's model.
    """
    rows = first_of_each_shape(
        TrialRow(f"{source.path}: id {id!r}", row["prompt"], row.get("data_source")) for id, row in source.queries()
    )
    spec = plan.spec
    reader = Reader(
        plan.tokenizer_path, tokenizer, spec["template"], TEACHER_FIX if plan.author == "teacher" else STUDENT_FIX
    )
    if plan.model.base_url is None:
        return Trial(rows, [reader])
    first = next(id for id, _ in source.queries())
    wording = Wording({**spec["sampling"], **sample_seed(spec["seed"], first, 0)}, spec["max_tokens"])
    size = read_vocabulary(plan.tokenizer_path, tokenizer).size
    return Trial(rows, [reader], [Request(plan.model.base_url, plan.model, reader, [wording], size)])


def evaluation_trial(planned: PlannedEvaluation) -> Trial:
    """Of `eval` and `bench eval`."""
    rows = first_of_each_shape(
        TrialRow(f"{name}: id {row['extra_info']['id']!r}", row["prompt"], row.get("data_source"))
        for name, (_, questions) in planned.suite.benchmarks.items()
        for row in questions.rows
    )
    reader = Reader(planned.tokenizer_path, planned.tokenizer, planned.run.prompts.template, STUDENT_FIX)
    wordings: dict[tuple[str, int | None], list[Wording]] = {}
    for condition, vocabulary in zip(planned.conditions, planned.vocabularies, strict=True):
        for address, wording in _answer_wordings(planned.run, condition, planned.suite):
            wordings.setdefault((address, vocabulary.size), []).append(wording)
    requests = [
        Request(address, planned.models[address], reader, _different(asked), size)
        for (address, size), asked in wordings.items()
    ]
    return Trial(rows, [reader], requests)


def _answer_wordings(run: RunConfig, condition: Condition, suite: EvalSuite) -> Iterable[tuple[str, Wording]]:
    """Each endpoint of a condition with the ways in which it will be asked, as `relay_verl.decoder` asks."""
    student, teacher = condition.models
    settings, max_tokens = run.relay, run.lengths.max_response
    parsed = parse_policy(condition.policy)
    policies = parsed.kind.alternatives(parsed.number)
    for name in suite.benchmarks:
        _, sampling = suite.sampling(name)
        is_greedy = sampling.get("temperature") == 0
        seed = {} if is_greedy else sample_seed(suite.seed, "trial")
        for policy in policies:
            writes_alone = not policy.needs_student
            if student and is_endpoint(student) and not writes_alone:
                asked = {**sampling, **seed, **policy.student_sampling()}
                yield student, Wording(asked, max_tokens, _stop_of(policy, settings, teacher))
            if teacher and is_endpoint(teacher) and writes_alone:
                yield teacher, Wording({**sampling, **seed}, max_tokens)
            elif teacher and is_endpoint(teacher) and policy.needs_teacher:
                asked = {**settings.teacher.sampling(greedy=is_greedy), **seed}
                yield teacher, Wording(asked, min(max_tokens, settings.max_tokens_per_call), is_call=True)


def _stop_of(policy: Policy, settings: RelaySettings, teacher: str | None) -> tuple[str, ...]:
    """Where the student's first turn stops."""
    if teacher is None or not policy.allows_calls or settings.max_calls == 0:
        return ()
    is_fixed = settings.fixed_command == "text" and policy.fixed_length() is not None
    return (OPEN,) if is_fixed else (CLOSE,)


def _different(wordings: Iterable[Wording]) -> list[Wording]:
    """The same without repetitions; a mapping cannot be hashed."""
    return list({str(wording): wording for wording in wordings}.values())
