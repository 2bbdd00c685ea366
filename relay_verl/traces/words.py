"""Conditions in words: who was measured, under which policy, such as 'trained relay, fixed 20 tokens'."""

from __future__ import annotations

from relay_verl.recipes.paper import Row

ALONE = "student_alone"
TEACHER_ALONE = "teacher_alone"
TEACHER_FREE = "teacher_free"
_WORDS = {
    "learned": "commands served",
    ALONE: "alone",
    TEACHER_ALONE: "teacher alone",
    TEACHER_FREE: "without teacher",
}


def natural_policies(method: str | None) -> tuple[str, ...]:
    """The policies under which a row is what its name says, the best one first."""
    if method in ("base", "grpo"):
        return (ALONE, "learned")
    if method == "teacher":
        return (TEACHER_ALONE, ALONE, "learned")
    if method and method.startswith("fixed_"):
        return (method,)
    return ("learned",)


def policy_words(policy: str) -> str:
    """A policy in words.

    >>> [policy_words(policy) for policy in ("fixed_20", "random_0.02", "router_0.25")]
    ['fixed 20 tokens', 'random calls (2% of tokens)', 'random router (25%)']
    """
    kind, _, number = policy.partition("_")
    match kind:
        case "fixed":
            return f"fixed {number} tokens"
        case "random":
            return f"random calls ({100 * float(number):g}% of tokens)"
        case "router":
            return f"random router ({100 * float(number):g}%)"
        case _:
            return _WORDS.get(policy, policy.replace("_", " "))


def condition_words(row: Row | None, policy: str) -> str:
    """Who answered, and how commands were treated; `row` is None where the results do not say it."""
    words = policy_words(policy)
    # the teacher's own accuracy and a random router say nothing about how the student was trained
    if policy == TEACHER_ALONE:
        return words
    if row is None:
        return f"student {words}" if policy == ALONE else words
    if row.method == "base":
        if policy.startswith(("random_", "router_")):
            return words
        return f"{row.words} {words}" if policy == ALONE else f"{row.words}, {words}"
    return row.words if policy == natural_policies(row.method)[0] else f"{row.words}, {words}"


def policy_order(row: Row | None, policy: str) -> tuple[bool, str, float]:
    """Sorts a row's policies: the one that its name means first, then by kind and number."""
    kind, _, number = policy.partition("_")
    is_rated = kind in ("fixed", "random", "router")
    is_natural = policy in natural_policies(row.method if row else None)[:1]
    return (not is_natural, kind if is_rated else policy, float(number) if is_rated else 0.0)
