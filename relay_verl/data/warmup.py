"""Call warm-up data: commands put into the student's own responses (paper 3.1).

The student first has to write `<call>n</call>` at all. Its own sampled responses get commands at random positions, so
that supervised training on them changes nothing but the habit of calling.

Invariant: taking the inserted ids out again gives the original ids; nothing is decoded and encoded on the way.

    token_ids  [a, b, c, d, e]            a command before position 3, drawn length 20
    result     [a, b, c, <call>2</call>, d, e]     two ids are left there, so n = 2
"""

from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from itertools import product
from typing import Protocol

import numpy as np

from relay_verl.protocol import draw_num_tokens, format_call
from relay_verl.tokenization import encode_within


class TextEncoder(Protocol):
    """The part of a tokenizer that the warm-up needs."""

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]: ...


@dataclass(frozen=True)
class DrawnCall:
    """A command of the warm-up."""

    position: int
    """It stands before this one of the original ids."""
    num_drawn: int
    """d * 10^k as drawn, or the fixed number."""
    num_tokens: int
    """What it asks for: `num_drawn`, clipped to the original ids left after it; a fixed number is not clipped."""


def draw_calls(
    length: int,
    rng: np.random.Generator,
    *,
    num_calls: int,
    max_exponent: int = 3,
    written_length: int | None = None,
) -> list[DrawnCall]:
    """Draw `num_calls` commands for a text of `length` ids, in order: distinct uniform positions, lengths by the law.

    Where `written_length` is given, every command says that number and nothing else (paper 5.4: the command is
    hard-constrained to a fixed count); it is not clipped, because decoding does not clip it either.

    Raises:
        ValueError: more commands than positions, or a negative exponent.
    """
    if max_exponent < 0:
        raise ValueError(f"max_exponent must be 0 or more, got {max_exponent}")
    if not 0 <= num_calls <= length:
        raise ValueError(f"num_calls must be between 0 and the {length} positions of token_ids, got {num_calls}")
    positions = sorted(rng.choice(length, size=num_calls, replace=False).tolist()) if num_calls else []
    if written_length is not None:
        return [DrawnCall(position, written_length, written_length) for position in positions]
    drawn = [draw_num_tokens(rng, max_exponent) for _ in positions]
    return [DrawnCall(p, n, min(n, length - p)) for p, n in zip(positions, drawn, strict=True)]


def place_calls(token_ids: list[int], calls: Iterable[DrawnCall], tokenizer: TextEncoder) -> list[int]:
    """`token_ids` with the commands in it."""
    result: list[int] = []
    start = 0
    for call in calls:
        result += token_ids[start : call.position]
        result += encode_within(tokenizer, format_call(call.num_tokens))
        start = call.position
    return result + token_ids[start:]


def insert_calls(
    token_ids: list[int],
    tokenizer: TextEncoder,
    rng: np.random.Generator,
    *,
    num_calls: int,
    max_exponent: int = 3,
) -> list[int]:
    """Put `num_calls` commands into `token_ids`, at distinct uniform positions.

    A command at position p (0 <= p < len) stands before original id p, and asks for at most the len - p original ids
    that follow it.

    Raises:
        ValueError: more commands than positions, or a negative exponent.
    """
    calls = draw_calls(len(token_ids), rng, num_calls=num_calls, max_exponent=max_exponent)
    return place_calls(token_ids, calls, tokenizer)


def length_law(
    max_exponent: int = 3, num_left: int | None = None, written_length: int | None = None
) -> dict[int, Fraction]:
    """The exact distribution of what a command asks for, where `num_left` ids are left after it (None: unclipped), or
    where every command says `written_length`.

    >>> law = length_law(max_exponent=1, num_left=12)
    >>> law[9], law[10], law[12]
    (Fraction(1, 18), Fraction(1, 18), Fraction(4, 9))
    """
    if written_length is not None:
        return {written_length: Fraction(1)}
    law: dict[int, Fraction] = {}
    for digit, exponent in product(range(1, 10), range(max_exponent + 1)):
        number = digit * 10**exponent
        asked = number if num_left is None else min(number, num_left)
        law[asked] = law.get(asked, Fraction(0)) + Fraction(1, 9 * (max_exponent + 1))
    return law
