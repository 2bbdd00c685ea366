"""The reserved id: a row of the student's embedding that no text of its tokenizer has, by which its engine asks for the
teacher. Pure.

A model pads its embedding (Qwen3: 151,936 rows for 151,669 tokens), and the last padding row is taken. Where every row
has a token, it is a special token that stands for none: Llama 3's `<|reserved_special_token_N|>`, or a padding token
that ends no response.
"""

from __future__ import annotations

import re
from typing import Any

from relay_verl.errors import UserError

KEY = "relay.defer.reserved_id"
_SPARE = re.compile(r"reserved|unused", re.IGNORECASE)


def find_reserved_id(tokenizer: Any, num_rows: int, end_ids: frozenset[int], chosen: int | None = None) -> int:
    """The reserved id of a student.

    Args:
        tokenizer: the student's.
        num_rows: rows of its embedding.
        end_ids: ids that end a response.
        chosen: the one that the user names; checked.

    Raises:
        UserError: the tokenizer uses every row, or the chosen one.
    """
    tokens = {token_id: token for token, token_id in tokenizer.get_vocab().items()}
    special = set(getattr(tokenizer, "all_special_ids", ()))
    special |= {i for i, token in getattr(tokenizer, "added_tokens_decoder", {}).items() if token.special}
    taken = {*end_ids, *_prompt_ids(tokenizer)}

    def is_spare(token_id: int) -> bool:
        """Whether no text is written with it."""
        if token_id in taken:
            return False
        if token_id not in tokens:
            return True
        is_padding = token_id == tokenizer.pad_token_id
        return token_id in special and (is_padding or _SPARE.search(tokens[token_id]) is not None)

    if chosen is not None:
        if not 0 <= chosen < num_rows:
            raise UserError(f"{KEY}: {chosen}: expected a row of the student's embedding, 0 to {num_rows - 1}")
        if not is_spare(chosen):
            raise UserError(
                f"{KEY}: {chosen}: the tokenizer uses it for {tokens.get(chosen)!r}; expected a padding row of the "
                "embedding, or a reserved or padding special token that ends no response"
            )
        return chosen
    padding = (token_id for token_id in range(num_rows - 1, -1, -1) if token_id not in tokens)
    others = (token_id for token_id in range(num_rows - 1, -1, -1) if token_id in tokens)
    for token_id in (*padding, *others):
        if is_spare(token_id):
            return token_id
    raise UserError(
        f"relay.defer.head: the tokenizer uses all {num_rows} rows of the student's embedding, and a defer head needs "
        "one that no text has: add a token to the student with transformers' resize_token_embeddings"
    )


def find_step_ends(tokens: Any, num_rows: int, step_end: str) -> frozenset[int]:
    """The ids whose text ends with `step_end`: a step begins behind each.

    Args:
        tokens: `relay_verl.tokenization.TokenBytes` of the student's tokenizer.
        num_rows: rows of its embedding.
        step_end: the text.

    Raises:
        UserError: no token ends so.
    """
    ids = frozenset(i for i in range(num_rows) if tokens.to_bytes(i).endswith(step_end.encode()))
    if not ids:
        raise UserError(f"defer head: step_end: {step_end!r}: no token of the student's tokenizer ends with it")
    return ids


def _prompt_ids(tokenizer: Any) -> set[int]:
    """Ids that a chat is written with."""
    if not getattr(tokenizer, "chat_template", None):
        return set()
    messages = [{"role": "user", "content": "What is 7*8?"}]
    ids = tokenizer.apply_chat_template(messages, tokenize=True, return_dict=False, add_generation_prompt=True)
    return set(ids)
