"""Conditions in words: who was measured, under which policy, such as 'trained relay, fixed 20 tokens'."""

from __future__ import annotations

from relay_verl.policies import find_policy, policy_words
from relay_verl.recipes.paper import Row

ALONE = "student_alone"
TEACHER_ALONE = "teacher_alone"
TEACHER_FREE = "teacher_free"


def has_both(policy: str) -> bool:
    """Whether both models take part in responses under a policy; if not, the teacher that results name answers no
    call."""
    kind = find_policy(policy).kind
    return kind.needs_student and kind.needs_teacher


def serves_commands(policy: str) -> bool:
    """Whether the student's own commands are served under a policy."""
    kind = find_policy(policy).kind
    return has_both(policy) and kind.allows_calls and not kind.is_baseline


def natural_policies(method: str | None) -> tuple[str, ...]:
    """The policies under which a row is what its name says, the best one first."""
    if method in ("base", "grpo"):
        return (ALONE, "learned")
    if method == "opd":
        return (ALONE, "learned")
    if method == "teacher":
        return (TEACHER_ALONE, ALONE, "learned")
    if method in ("citer", "collm", "entropy"):
        return ("deferred",)
    if method and method.startswith("fixed_"):
        return (method,)
    return ("learned",)


def condition_words(row: Row | None, policy: str) -> str:
    """Who answered, and how commands were treated; `row` is None where the results do not say it."""
    words = policy_words(policy)
    # the teacher's own accuracy and a random router say nothing about how the student was trained
    if policy == TEACHER_ALONE:
        return words
    if row is None:
        return f"student {words}" if policy == ALONE else words
    if row.method == "base":
        if find_policy(policy).kind.is_baseline:
            return words
        return f"{row.words} {words}" if policy == ALONE else f"{row.words}, {words}"
    return row.words if policy == natural_policies(row.method)[0] else f"{row.words}, {words}"


def policy_order(row: Row | None, policy: str) -> tuple[bool, str, float]:
    """Sorts a row's policies: the one that its name means first, then by kind and number."""
    number = find_policy(policy).number
    is_natural = policy in natural_policies(row.method if row else None)[:1]
    return (not is_natural, policy.removesuffix(f"_{number}") if number else policy, float(number or 0))
