"""Call warm-up data: commands put into the student's own responses (paper 3.1).

The student first has to write `<call>n</call>` at all. Its own sampled responses get commands at random positions, so
that supervised training on them changes nothing but the habit of calling.

Invariant: taking the inserted ids out again gives the original ids; nothing is decoded and encoded on the way.

    token_ids  [a, b, c, d, e]            a command before position 3, drawn length 20
    result     [a, b, c, <call>2</call>, d, e]     two ids are left there, so n = 2
"""

from typing import Protocol

import numpy as np

from relay_verl.protocol import format_call


class TextEncoder(Protocol):
    """The part of a tokenizer that the warm-up needs."""

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]: ...


def draw_num_tokens(rng: np.random.Generator, max_exponent: int = 3) -> int:
    """Draw a delegation length d * 10^k, d uniform in 1..9 and k uniform in 0..max_exponent."""
    if max_exponent < 0:
        raise ValueError(f"max_exponent must be 0 or more, got {max_exponent}")
    digit = int(rng.integers(1, 10))
    exponent = int(rng.integers(0, max_exponent + 1))
    return digit * 10**exponent


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
    """
    if max_exponent < 0:
        raise ValueError(f"max_exponent must be 0 or more, got {max_exponent}")
    if not 0 <= num_calls <= len(token_ids):
        raise ValueError(
            f"num_calls must be between 0 and the {len(token_ids)} positions of token_ids, got {num_calls}"
        )
    positions = sorted(rng.choice(len(token_ids), size=num_calls, replace=False).tolist()) if num_calls else []
    result: list[int] = []
    start = 0
    for position in positions:
        num_tokens = min(draw_num_tokens(rng, max_exponent), len(token_ids) - position)
        result += token_ids[start:position]
        result += tokenizer.encode(format_call(num_tokens), add_special_tokens=False)
        start = position
    return result + token_ids[start:]
