"""Whether both models are there, and read the same token ids."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

from relay_verl.config import TeacherSettings
from relay_verl.errors import EngineError, UserError, as_user_error
from relay_verl.models.address import check_model, check_model_path, check_tokenizer_path
from relay_verl.models.launch import open_endpoint
from relay_verl.models.tokenizers import PROBE, compare_prompts, compare_tokenizers, read_tokenizer
from relay_verl.preflight.check import CheckWarning
from relay_verl.run_config import PromptSettings, RunConfig

ENDPOINT_DEADLINE_S = 6.0


def check_teacher(
    key: str,
    teacher: TeacherSettings,
    student_path: str,
    prompts: PromptSettings | None = None,
) -> str:
    """The teacher of the recipe's `key` is there and reads the student's token ids, or stands behind a text bridge; the
    text says what that costs, or where the prompt that it reads is not its own.

    Args:
        key: of the recipe.
        teacher: who answers calls.
        student_path: folder or hub id of the student.
        prompts: the recipe's; of a model with its tokenizer and template if None.
    """
    prompts = prompts or PromptSettings({})
    cost = ""
    field = "path" if teacher.path is not None else "base_url" if teacher.base_url is not None else "engine"
    name = f"{key}.{field}: {teacher.address}"
    students_key = f"actor_rollout_ref.model.{'path' if prompts.tokenizer_path is None else 'tokenizer_path'}"
    student = read_tokenizer(students_key, prompts.tokenizer_of(student_path), prompts)
    if teacher.path is not None:
        check_model_path(f"{key}.path", teacher.path)
    if teacher.own_tokenizer is not None:
        readers_path = teacher.own_tokenizer
        readers_key = f"{key}.tokenizer" if teacher.tokenizer else f"{key}.path"
        reader = read_tokenizer(readers_key, readers_path, prompts)
        cost = check_bridged_tokenizer(f"{key}.text_bridge: {readers_path}", student, reader)
    else:
        readers_path, reader = f"the student {student_path}", student
    difference = ""
    if teacher.path is not None and reader is student:
        teacher_tokenizer = read_tokenizer(f"{key}.path", teacher.path, prompts)
        student.chat_template = prompts.chat_template or student.chat_template
        difference = compare_tokenizers(student, teacher_tokenizer)
        if not difference and (other := compare_prompts(student, teacher_tokenizer, prompts.template)):
            cost = f"{name} and {readers_path}: {other}; a call reads the student's, `relay-verl filter` the teacher's"
    elif teacher.base_url is not None and teacher.reads_messages:
        cost = (
            f"{name} is a chat API: it reads text by its own template, lengths are counted in the student's tokens, "
            "and it bills its own"
        )
    elif teacher.base_url is not None:
        with as_user_error(
            (EngineError, TimeoutError), lambda error: f"{name} does not answer: {str(error) or 'no answer in time'}"
        ):
            ids = asyncio.run(_tokenize_at_endpoint(teacher))
        ours = reader.encode(PROBE, add_special_tokens=False)
        difference = "" if ids in (None, ours) else f"{PROBE!r} is {ours} and {ids}"
    if difference:
        advice = "" if teacher.text_bridge else f"; {key}.text_bridge=true passes text between them"
        raise UserError(f"{name} and {readers_path} differ in their tokenizers: {difference}{advice}")
    return cost


def check_bridged_tokenizer(name: str, student: Any, teacher: Any) -> str:
    """A text bridge can read and write by the teacher's tokenizer; says what it costs."""
    for what, is_there in (
        ("end-of-sequence token", teacher.eos_token_id is not None),
        ("chat template", bool(teacher.chat_template)),
    ):
        if not is_there:
            raise UserError(f"{name} has no {what} in its tokenizer, which a text bridge needs")
    if compare_tokenizers(student, teacher):
        cost = (
            "has another tokenizer than the student: its context is decoded and encoded again for each call, lengths "
            "are counted in the student's tokens, and its prefix cache holds less"
        )
    else:
        cost = "has the student's tokenizer: without the bridge it would read the same ids"
    return f"{name} {cost}"


def check_teacher_models(run: RunConfig) -> str:
    """Each teacher's model is there; an endpoint is asked with its tokenizer."""
    if not run.teachers:
        return "none is needed"
    for key, teacher in run.teachers.items():
        if teacher.tokenizer is not None:
            check_tokenizer_path(f"{key}.tokenizer", teacher.tokenizer)
    return "; ".join(_check_teacher_model(key, teacher) for key, teacher in run.teachers.items())


def _check_teacher_model(key: str, teacher: TeacherSettings) -> str:
    if teacher.path is not None:
        return check_model(f"{key}.path", teacher.path)
    return f"{teacher.address}, {'an endpoint' if teacher.base_url is not None else 'an engine'}"


def check_student_model(run: RunConfig) -> str:
    """The student is there, and so is its tokenizer where that lies elsewhere."""
    text = check_model("actor_rollout_ref.model.path", run.verl.actor_rollout_ref.model.path)
    if run.prompts.tokenizer_path:
        check_tokenizer_path("actor_rollout_ref.model.tokenizer_path", run.prompts.tokenizer_path)
    return text


def check_tokenizers(run: RunConfig) -> str | None:
    """`check_teacher` of each teacher of a composed config."""
    if not run.teachers:
        return "only the student's"
    warnings = [
        warning
        for key, teacher in run.teachers.items()
        if (
            warning := check_teacher(
                key,
                teacher,
                run.verl.actor_rollout_ref.model.path,
                run.prompts,
            )
        )
    ]
    return CheckWarning("; ".join(warnings)) if warnings else "the teacher reads the student's token ids"


async def _tokenize_at_endpoint(teacher: TeacherSettings) -> list[int] | None:
    endpoint = open_endpoint(replace(teacher, timeout_s=ENDPOINT_DEADLINE_S, num_retries=0))
    async with asyncio.timeout(ENDPOINT_DEADLINE_S):
        await endpoint.model()
        return await endpoint.tokenize(PROBE)
