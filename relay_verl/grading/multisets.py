"""Sequences, multisets and sets of values. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from relay_verl.grading.values import Value

Same = Callable[[Value, Value], bool]
"""How two of the values are compared: `relay_verl.grading.compare.is_same`."""


def is_same_sequence(answer: Sequence[Value], truth: Sequence[Value], is_same: Same) -> bool:
    """Whether the items are the same in their order."""
    return len(answer) == len(truth) and all(map(is_same, answer, truth))


def is_same_multiset(answer: Sequence[Value], truth: Sequence[Value], is_same: Same) -> bool:
    """Whether the items are the same in any order, each as often as in the other."""
    if len(answer) != len(truth):
        return False
    rest = list(truth)
    for item in answer:
        position = next((n for n, other in enumerate(rest) if is_same(item, other)), None)
        if position is None:
            return False
        del rest[position]
    return True


def distinct(items: Sequence[Value], is_same: Same) -> list[Value]:
    """The items of a set, each once."""
    result: list[Value] = []
    for item in items:
        if not any(is_same(item, other) for other in result):
            result.append(item)
    return result
