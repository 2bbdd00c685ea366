"""Names under which one pair is served, for clients that can send a model's name and no field of ours. Pure.

NAME                 as the student was trained (`relay.json`)
NAME:teacher-free    commands are banned
NAME:student         nothing answers commands
NAME:teacher         the teacher writes the whole response
NAME:fixed-20        every call asks for 20 tokens; any number of 1 or more
NAME:deferred        the student's defer head asks, at its own threshold (`--defer-head`)
NAME:deferred-0.9    the same at another threshold
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from relay_verl.errors import UserError, suggest
from relay_verl.policies import make_policy, needs_teacher, parse_policy
from relay_verl.policy_base import Policy
from relay_verl.serving.api_error import ApiError, refuse

_POLICIES = {"teacher-free": "teacher_free", "student": "student_alone", "teacher": "teacher_alone"}
_FIXED = re.compile(r"fixed-([1-9][0-9]{0,5})")
_DEFERRED = re.compile(r"deferred(?:-([0-9](?:\.[0-9]{1,9})?))?")
EXAMPLE = "fixed-20"
"""The one of its kind that is listed."""


def names_of(name: str, *, has_teacher: bool, has_head: bool = False) -> list[str]:
    """What `/v1/models` lists, the model itself first.

    >>> names_of("pair", has_teacher=True)
    ['pair', 'pair:teacher-free', 'pair:student', 'pair:teacher', 'pair:fixed-20']
    """
    suffixes = [suffix for suffix, policy in _POLICIES.items() if has_teacher or not needs_teacher(policy)]
    suffixes += [EXAMPLE] if has_teacher else []
    suffixes += ["deferred"] if has_teacher and has_head else []
    return [name, *(f"{name}:{suffix}" for suffix in suffixes)]


def policy_of_model(model: str | None, name: str, *, has_teacher: bool, has_head: bool = False) -> str | None:
    """The policy of a request's model; None for the model's own.

    Args:
        model: as the client named it; None for NAME.
        name: the pair's.
        has_teacher: whether anyone answers calls.
        has_head: whether the student has a defer head.

    Raises:
        ApiError: 404; lists what there is.
    """
    if model is None or model == name:
        return None
    suffix = model.removeprefix(f"{name}:") if model.startswith(f"{name}:") else ""
    policy = _POLICIES.get(suffix)
    if match := _FIXED.fullmatch(suffix):
        policy = f"fixed_{match[1]}"
    if has_head and (match := _DEFERRED.fullmatch(suffix)):
        policy = f"deferred_{match[1]}" if match[1] else "deferred"
    if policy is None or (needs_teacher(policy) and not has_teacher):
        known = names_of(name, has_teacher=has_teacher, has_head=has_head)
        message = f"model: {model[:128]!r} is not served; {', '.join(known)} are{suggest(model[:128], known)}"
        raise ApiError(404, message, param="model", code="model_not_found")
    return policy


def check_policy(policy: str, *, has_head: bool = False) -> str:
    """`policy` as a request may name it.

    Raises:
        ApiError: 400; there is none of that name, it is code, or it asks a defer head and the student has none.
    """
    # a name such as `pkg.module:Name` imports the module, which is not for a client to decide
    if ":" in policy:
        raise refuse("relay.policy", "expected the name of a policy, such as learned or fixed_20")
    try:
        parse_policy(policy)
        make_policy(policy)
    except UserError as error:
        raise refuse("relay.policy", str(error).removeprefix("policy: ")) from None
    if not has_head and any(_asks_head(each) for each in _alternatives(policy)):
        raise refuse("relay.policy", f"{policy!r} asks the student's defer head, and it is served without one")
    return policy


def may_ask_in_turns(policy: str) -> bool:
    """Whether a response may have several turns of one model: the student calls, or calls come by themselves."""
    return any(each.allows_calls or (type(each).needs_student and _plans(each)) for each in _alternatives(policy))


def check_calls(policy: str, max_calls: int | None, *, has_teacher: bool) -> None:
    """A policy whose calls come by themselves has a teacher, and no limit that it does not know.

    Raises:
        ApiError: 400.
    """
    planning = [each for each in _alternatives(policy) if _plans(each)]
    if planning and not has_teacher:
        raise refuse("relay.policy", f"{policy!r} needs a teacher, and none is served")
    if max_calls is not None and any(max_calls == 0 or type(each).needs_student for each in planning):
        reason = f"{policy!r} calls by itself, whatever max_calls says; limit it with relay.max_teacher_tokens"
        raise refuse("relay.max_calls", reason)


def _alternatives(policy: str) -> Sequence[Policy]:
    kind, number = parse_policy(policy)
    return kind.alternatives(number)


def _plans(policy: Policy) -> bool:
    """Whether calls come by themselves."""
    return policy.next_interruption() is not None or _asks_head(policy)


def _asks_head(policy: Policy) -> bool:
    return policy.defer_threshold(0.0) is not None
