"""The prompt of one row as token ids, for whoever asks a model outside training: filter, warm-up data, evaluation.

Invariant: a row that the chat template does not take fails alone, as a request that no engine would answer
(`relay_verl.errors.PermanentError`), and the message quotes the template's own words.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from relay_verl.engines.boundary import describe
from relay_verl.errors import PermanentError
from relay_verl.tokenization import chat_ids


def prompt_ids_of(tokenizer: Any, row: Mapping[str, Any], template: Mapping[str, Any]) -> list[int]:
    """`row["prompt"]` by the chat template, [prompt_length].

    Args:
        tokenizer: has the template.
        row: in verl's schema.
        template: further arguments of the template.

    Raises:
        PermanentError: the template refuses the chat (a role, two turns of one author), or the tokenizer its text.
    """
    try:
        return chat_ids(tokenizer, row["prompt"], template)
    except Exception as error:  # a template is a program of others, and raises what it likes
        raise PermanentError(f"the chat template does not take the prompt: {describe(error)}") from error
