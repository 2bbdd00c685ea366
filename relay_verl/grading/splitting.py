"""Tokens split where a sign stands outside all brackets. Pure; each function takes time linear in its tokens."""

from __future__ import annotations

import itertools
from collections.abc import Collection

from relay_verl.grading.latex import Token, UnreadableError, bracket_step, matching

_OPENING = frozenset(["(", "[", r"\{", r"\langle"])
_CLOSING = frozenset([")", "]", r"\}", r"\rangle"])


def at_top(tokens: list[Token], signs: Collection[str]) -> list[int]:
    """Where one of the signs stands outside all brackets. Raises UnreadableError if they do not balance."""
    positions, level = [], 0
    for index, token in enumerate(tokens):
        step = bracket_step(token)
        level += min(step, 0)
        if level < 0:
            raise UnreadableError("a bracket that was not opened")
        if level == 0 and token.kind != "text" and token.text in signs:
            positions.append(index)
        level += max(step, 0)
    if level:
        raise UnreadableError("a bracket that does not close")
    return positions


def split(tokens: list[Token], signs: Collection[str]) -> tuple[list[list[Token]], list[str]]:
    """The parts between the signs, some of them perhaps empty, and the signs."""
    positions = at_top(tokens, signs)
    bounds = [-1, *positions, len(tokens)]
    parts = [tokens[start + 1 : end] for start, end in itertools.pairwise(bounds)]
    return parts, [tokens[position].text for position in positions]


def without_group(tokens: list[Token]) -> list[Token]:
    """The tokens without braces around all of them."""
    while len(tokens) > 1 and tokens[0].text == "{" and matching(tokens, 0) == len(tokens) - 1:
        tokens = tokens[1:-1]
    return tokens


def is_wrapped(tokens: list[Token]) -> bool:
    """Whether one pair of brackets is around all of the tokens."""
    is_bracket = len(tokens) > 1 and tokens[0].text in _OPENING and tokens[-1].text in _CLOSING
    return is_bracket and matching(tokens, 0) == len(tokens) - 1
