"""How a chat API is given the part of a response that is written already. Pure.

    continue  the text is the last message, the assistant's, which the server continues: vLLM's continue_final_message
    flag      the same, and the message says `prefix: true`, as DeepSeek and Mistral want it
    explain   the text stands in the last user message, with the request to continue it: for APIs that refuse both

Invariant: without a text the three are one request, the chat as it is.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from enum import StrEnum
from typing import Any

MIN_ECHO_CHARS = 16
"""Shortest text that counts as repeated where an answer begins with it: a shorter one may come twice in a response."""

_EXPLANATION = """

The answer to the message above is being written. What there is of it so far stands between the tags:
<answer>{written}</answer>
Continue it from its last character on. Write the rest of the answer alone: no part of the text above, no tags and no \
remark, and a blank or a line break first if one comes next."""
_REFUSES_PREFIX = re.compile(
    r"continue_final_message|add_generation_prompt|prefill|\bprefix\b|(last|final) (message|role)|assistant message|"
    r"end with (a )?user|messages must alternate",
    re.IGNORECASE,
)


class ChatPrefix(StrEnum):
    """The form of the text that is written already."""

    CONTINUE = "continue"
    """The last message, which vLLM's `continue_final_message` continues."""
    FLAG = "flag"
    """The last message, with `prefix: true`."""
    EXPLAIN = "explain"
    """A part of the last user message, with an explanation."""

    def request(self, messages: Sequence[dict[str, Any]], written: str) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        """The messages to send, and further parameters of the request.

        Args:
            messages: the chat.
            written: the response so far.
        """
        if not written:
            return list(messages), {}
        if self is ChatPrefix.EXPLAIN:
            return _explain(messages, written), {}
        last = {"role": "assistant", "content": written}
        if self is ChatPrefix.FLAG:
            return [*messages, {**last, "prefix": True}], {}
        return [*messages, last], {"continue_final_message": True, "add_generation_prompt": False}


def _explain(messages: Sequence[dict[str, Any]], written: str) -> list[dict[str, Any]]:
    explanation = _EXPLANATION.format(written=written)
    *others, last = messages or [{"role": "user", "content": ""}]
    if last.get("role") != "user":  # many templates want the two to alternate, so a user's message takes the text
        return [*messages, {"role": "user", "content": explanation.lstrip()}]
    return [*others, {**last, "content": f"{last.get('content') or ''}{explanation}"}]


def refuses_prefix(message: str) -> bool:
    """Whether an API's refusal is about the form of the request's last message.

    >>> refuses_prefix("This model does not support assistant message prefill.")
    True
    >>> refuses_prefix("This model's maximum context length is 8192 tokens.")
    False
    """
    return _REFUSES_PREFIX.search(message) is not None


def without_echo(text: str, written: str) -> str:
    """An answer without the text that it was to continue, where it begins with all of that: some APIs give the whole
    message back.

    >>> without_echo("The product of 7 and 8 is 56.", "The product of 7 and 8 is")
    ' 56.'
    >>> without_echo("so so", "so")
    'so so'
    """
    is_echo = len(written) >= MIN_ECHO_CHARS and text.startswith(written)
    return text[len(written) :] if is_echo else text
