"""What decides the responses of one condition: the spec of its job, by which a run that was killed continues only as
the same one, and a finished folder is never taken for another model's.

Invariant: what a recipe or a command leaves to the model is None, so that a file of an earlier version, which has no
such key, stays the same job.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from omegaconf import OmegaConf

from relay_verl.config import DeferSettings, PriceSettings, TeacherSettings
from relay_verl.defer.head_folder import head_sha256
from relay_verl.errors import UserError
from relay_verl.models.address import count_parameters, is_endpoint
from relay_verl.policies import make_policy
from relay_verl.run_config import RunConfig

if TYPE_CHECKING:
    from relay_verl.evaluation.suite import Condition


def note_costs(prices: PriceSettings, student: str | None, teacher: str | None) -> dict[str, Any]:
    """What a condition's responses are counted at: prices, and parameters for FLOPs. It decides no response, so it
    stands in the manifest outside of the job.

    Args:
        prices: `relay.prices`.
        student, teacher: the addresses of the models; None for one that takes no part.
    """
    price_list = prices.price_list()
    models = {"student": (student, prices.student), "teacher": (teacher, prices.teacher)}
    return {
        "prices": None if price_list is None else price_list.to_dict(),
        "num_parameters": {
            role: address and (model.num_parameters or count_parameters(address))
            for role, (address, model) in models.items()
        },
    }


def _api_of(teacher: TeacherSettings) -> str | None:
    """How a chat API is asked; None for an endpoint of token ids."""
    return f"chat, {teacher.chat_prefix}" if teacher.reads_messages else None


def _describe_head(defer: DeferSettings) -> dict[str, Any]:
    """The head of a condition that defers.

    Raises:
        UserError: there is none.
    """
    if defer.head is None:
        raise UserError("relay.defer.head: null: the policy deferred asks the student's defer head; name its folder")
    return {**asdict(defer), "head_sha256": head_sha256(defer.head)}


def describe(
    run: RunConfig,
    condition: Condition,
    suite: Mapping[str, Any],
    digests: Mapping[str, str | None],
    *,
    names: Mapping[str, str],
    tokenizer: str | None,
) -> dict[str, Any]:
    """All that decides a condition's responses.

    Args:
        run: a composed recipe.
        condition: who answers.
        suite: what is asked, described.
        digests: the models' hashes, by address.
        names: the models' names at endpoints, by address: one endpoint may serve several.
        tokenizer: whose tokenizer was asked for; None takes the models' own.
    """
    student, teacher = condition.models
    settings = run.relay
    rollout = OmegaConf.to_container(run.verl.actor_rollout_ref.rollout, resolve=True)
    name = condition.teacher_name or (teacher and teacher.rstrip("/").rsplit("/", 1)[-1])
    return {
        "kind": "eval",
        "condition": condition.name,
        "row": condition.row,
        "training_seed": condition.training_seed,
        "policy": condition.policy,
        "student": student,
        "student_sha256": student and digests[student],
        "student_model": student and names.get(student),
        "teacher": teacher,
        "teacher_name": name,
        "teacher_sha256": teacher and digests[teacher],
        "teacher_model": teacher and names.get(teacher),
        "teacher_api": _api_of(settings.teacher) if teacher and is_endpoint(teacher) else None,
        **suite,
        "limits": {
            "max_tokens": run.lengths.max_response,
            "max_calls": settings.max_calls,
            "max_tokens_per_call": settings.max_tokens_per_call,
        },
        "max_teacher_tokens": condition.max_teacher_tokens,
        **({"num_refusals": condition.num_refusals} if condition.num_refusals else {}),
        # under another policy it decides nothing
        "fixed_command": settings.fixed_command if make_policy(condition.policy).fixed_length() is not None else None,
        **({"defer": _describe_head(settings.defer)} if condition.defers else {}),
        # of calls, unless the student is greedy; who writes whole responses has the benchmark's
        "teacher_sampling": dict(settings.decoder_config(1, greedy=False, vocab_size=None).teacher_sampling),
        "template": dict(run.prompts.template),
        **run.prompts.spec(tokenizer),
        "rollout_sha256": hashlib.sha256(json.dumps(rollout, sort_keys=True, default=str).encode()).hexdigest(),
    }
