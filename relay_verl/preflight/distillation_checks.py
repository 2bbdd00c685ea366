"""Whether a run that distils can: one teacher that verl starts, that gives log-probabilities, and a loss that can leave
out the commands.
"""

from __future__ import annotations

from typing import Any

from omegaconf import OmegaConf

from relay_verl.config import TeacherSettings
from relay_verl.distillation import CALL_FREE, DistillationSettings
from relay_verl.errors import UserError
from relay_verl.models.tokenizers import read_tokenizer
from relay_verl.models.vocabulary import read_vocabulary
from relay_verl.recipes.grammar import shown
from relay_verl.run_config import RunConfig

MODELS = "distillation.teacher_models"
MODEL = f"{MODELS}.teacher_model"
LOSS = "distillation.distillation_loss"
FUSED = "actor_rollout_ref.model.use_fused_kernels"
STRATEGY = "actor_rollout_ref.actor.strategy"
STRATEGIES = ("fsdp", "fsdp2")
"""Engines of verl's that `CALL_FREE` is there for."""


def check_distillation(run: RunConfig) -> str:
    """The teacher and the loss fit each other, and what verl is told of the teacher is what `relay` says of it.

    Raises:
        UserError: they do not; names the key.
    """
    settings = run.distillation
    if settings is None:
        return "off"
    teachers = run.relay.active_teachers
    if len(teachers) > 1:
        raise UserError(
            f"relay.teachers: {', '.join(teacher.label for teacher in teachers.values())}: with "
            "distillation.enabled=true the teacher that answers calls is the one that scores: name one"
        )
    [(key, teacher)] = teachers.items()
    _check_teacher(key, teacher)
    _check_pool(run, key, teacher)
    _check_loss(run, settings)
    return f"{settings.loss} by {teacher.label}, which verl starts"


def _check_teacher(key: str, teacher: TeacherSettings) -> None:
    """It is a model of ours that reads the student's token ids, and verl may choose its node."""
    for name, value, allowed in (
        ("api", teacher.api, "completions"),
        ("base_url", teacher.base_url, None),
        ("engine", teacher.engine, None),
        ("text_bridge", teacher.text_bridge, False),
        ("node_resource", teacher.node_resource, None),
    ):
        if value != allowed:
            reason = (
                "verl places the teacher"
                if name == "node_resource"
                else "verl starts the teacher, which gives log-probabilities of the student's token ids"
            )
            raise UserError(
                f"{key}.{name}={shown(value)}: with distillation.enabled=true {reason}: set {key}.path and "
                f"{key}.{name}={shown(allowed)}, or distillation.enabled=false"
            )
    if teacher.path is None:
        raise UserError(f"{key}.path=null: with distillation.enabled=true it names the teacher: set a folder or hub id")


def _check_pool(run: RunConfig, key: str, teacher: TeacherSettings) -> None:
    """verl starts the teacher of `relay`, once for each of its replicas."""
    models = OmegaConf.select(run.verl, MODELS) or {}
    if (others := sorted(set(map(str, models)) - {"teacher_model"})) or "teacher_model" not in models:
        raise UserError(f"{MODELS}: {', '.join(others) or 'empty'}: expected teacher_model alone")
    tensor_parallel, num_gpus = teacher.tensor_parallel_size, teacher.num_replicas * teacher.tensor_parallel_size
    dtype = f"{MODEL}.inference.dtype"
    expected: dict[str, tuple[Any, str]] = {
        f"{MODEL}.model_path": (teacher.path, f"{key}.path"),
        f"{MODEL}.inference.tensor_model_parallel_size": (tensor_parallel, f"{key}.tensor_parallel_size"),
        dtype: (teacher.dtype or OmegaConf.select(run.verl, dtype), f"{key}.dtype"),
    }
    for name, (value, source) in expected.items():
        if (set_value := OmegaConf.select(run.verl, name)) != value:
            raise UserError(f"{name}={shown(set_value)}: expected {shown(value)}, as {source} says")
    per_node, nodes = (OmegaConf.select(run.verl, f"distillation.{name}") for name in ("n_gpus_per_node", "nnodes"))
    if (per_node or 0) * (nodes or 0) != num_gpus:
        raise UserError(
            f"distillation.nnodes={nodes} x distillation.n_gpus_per_node={per_node}: expected the {num_gpus} GPUs of "
            f"{key}.num_replicas={teacher.num_replicas} x {key}.tensor_parallel_size={tensor_parallel}"
        )
    prompt, response = (OmegaConf.select(run.verl, f"data.max_{part}_length") for part in ("prompt", "response"))
    context = OmegaConf.select(run.verl, f"{MODEL}.inference.max_model_len")
    if None not in (prompt, response, context) and context <= prompt + response:
        raise UserError(
            f"{MODEL}.inference.max_model_len={context}: the teacher reads a prompt, its response and one token more: "
            f"set at least {prompt + response + 1}"
        )


def _check_loss(run: RunConfig, settings: DistillationSettings) -> None:
    """It can be computed here, and leaves out what the teacher has no say in."""
    has_calls = run.relay.needs_teacher
    if has_calls and not settings.is_topk:
        raise UserError(
            f"{LOSS}.loss_mode={settings.loss}: it would also be taken over commands, which the teacher never writes: "
            f"set {CALL_FREE}, or relay.max_calls=0"
        )
    if not settings.is_topk:
        return
    if settings.loss == CALL_FREE and (strategy := OmegaConf.select(run.verl, STRATEGY)) not in STRATEGIES:
        raise UserError(
            f"{LOSS}.loss_mode={CALL_FREE}: {STRATEGY}={strategy}: expected {', '.join(STRATEGIES)}, whose logits are "
            "whole"
        )
    if settings.topk is None or settings.topk < 1:
        raise UserError(f"{LOSS}.topk={shown(settings.topk)}: expected 1 or more of the teacher's likeliest tokens")
    if has_calls and settings.log_prob_min_clamp is not None:
        raise UserError(
            f"{LOSS}.log_prob_min_clamp={settings.log_prob_min_clamp:g}: it would give commands a share in the loss: "
            "set it to null, or relay.max_calls=0"
        )
    # verl#6810: the FSDP engine's fused kernels make no logits, and the loss is then missing
    if OmegaConf.select(run.verl, FUSED):
        raise UserError(f"{FUSED}=true: {settings.loss} is computed from whole logits: set it to false")


def check_topk(run: RunConfig) -> str:
    """The teacher's likeliest tokens are fewer than there are.

    Raises:
        UserError: they are more than the vocabulary of either model.
    """
    settings = run.distillation
    if settings is None or not settings.is_topk:
        return "not needed"
    [(key, teacher)] = run.relay.active_teachers.items()
    topk, sizes = settings.topk or 0, []
    for name, path in (("actor_rollout_ref.model.path", run.student_path), (f"{key}.path", teacher.path)):
        assert path is not None
        address = run.prompts.tokenizer_of(path) if name.startswith("actor") else path
        size = read_vocabulary(path, read_tokenizer(name, address, run.prompts), run.prompts).size
        if size is not None and topk > size:
            raise UserError(f"{LOSS}.topk={topk}: {name}={path} has a vocabulary of {size} tokens: set at most {size}")
        sizes += [] if size is None else [size]
    return f"{topk} of {min(sizes, default=0)} tokens" if sizes else f"{topk} tokens"
