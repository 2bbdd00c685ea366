"""Constrained decoding of a command whose number is fixed (paper 5.4: "the call command is hard-constrained to a fixed
token count during both training and inference"). Pure.

The student samples freely until it completes `<call>`. From there on only one continuation is allowed, `N</call>`, so
it is written without asking the model: sampling under the constraint would give the same tokens with probability 1.

Invariant: the text of the kept tokens and the forced ones is the student's text up to `<call>`, then `N</call>`.

A worked example for N = 20, with a tokenizer that has tokens for `>.` and `>2`::

    sampled  | So | < | call | >  |      kept: all 4      forced: | 20 | </ | call | > |
    sampled  | So | < | call | >2 |      kept: all 4      forced: | 0 | </ | call | > |        '2' begins '20</call>'
    sampled  | So | < | call | >. |      kept: 3          forced: | > | 20 | </ | call | > |   '.' is not allowed here
"""

from __future__ import annotations

from collections.abc import Sequence

from relay_verl.protocol import OPEN, format_call
from relay_verl.tokenization import TokenBytes


def force_command(
    turn: bytes, token_ids: Sequence[int], num_tokens: int, tokens: TokenBytes
) -> tuple[int, list[int]] | None:
    """What becomes of sampled tokens that complete `<call>`.

    Args:
        turn: what the student wrote before them since the teacher last did.
        token_ids: what it sampled next, [length].
        num_tokens: N, what each command has to say.
        tokens: the tokenizer's view of its ids as bytes.

    Returns:
        How many of `token_ids` are kept, and the token ids to write after them; None if no `<call>` is completed.
    """
    opening = OPEN.encode()
    required = format_call(num_tokens).removeprefix(OPEN).encode()
    # a beginning of <call> may stand at the end of the turn so far, but a whole one there is not ours to complete
    start = max(0, len(turn) - len(opening) + 1)
    text = bytearray(turn)
    for num_kept, token_id in enumerate(token_ids):
        piece = tokens.to_bytes(token_id)
        text += piece
        position = text.find(opening, start)
        if position < 0:
            continue
        residue = bytes(text[position + len(opening) :])  # what the completing token holds behind <call>
        if required.startswith(residue):
            return num_kept + 1, tokens.encode(required[len(residue) :])
        # the constraint does not allow this token: write the part of it that belongs to <call>, and what must follow
        return num_kept, tokens.encode(piece[: len(piece) - len(residue)] + required)
    return None
