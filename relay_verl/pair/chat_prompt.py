"""What a caller asks, as the token ids that the student was trained to continue. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from relay_verl.checkpoints.relay_file import RelayTemplate
from relay_verl.engines.boundary import describe
from relay_verl.errors import UserError, as_user_error
from relay_verl.tokenization import chat_ids

Chat = Sequence[Mapping[str, Any]]
Prompt = str | Chat | Sequence[int]
"""A question, the messages of a chat, or token ids."""


def prompts_of(prompts: Prompt | Sequence[Prompt]) -> list[Prompt]:
    """Several prompts, or one, as a list.

    >>> prompts_of("Why?"), prompts_of([1, 2]), prompts_of([{"role": "user"}]), prompts_of(["Why?", [1]])
    (['Why?'], [[1, 2]], [[{'role': 'user'}]], ['Why?', [1]])
    """
    is_one = isinstance(prompts, str) or (len(prompts) > 0 and isinstance(prompts[0], (int, Mapping)))
    return [prompts] if is_one else list(prompts)  # type: ignore[list-item, arg-type]


def prompt_ids(prompt: Prompt, tokenizer: Any, template: RelayTemplate) -> list[int]:
    """The ids of a prompt, [prompt_length]. A question is a chat of one message, as in training; where the tokenizer
    has no chat template, it is text to be continued.

    Args:
        prompt: what is asked.
        tokenizer: the student's.
        template: how a chat becomes a prompt, as in training.

    Raises:
        UserError: it is not a prompt, or the chat template does not take it.
    """
    has_template = bool(getattr(tokenizer, "chat_template", None))
    if isinstance(prompt, str) and not has_template:
        return _checked(list(tokenizer.encode(prompt)), prompt)
    if isinstance(prompt, str):
        prompt = [{"role": "user", "content": prompt}]
    if not isinstance(prompt, Sequence) or not prompt:
        raise UserError(f"prompt: expected a text, the messages of a chat or token ids, got {prompt!r:.80}")
    if all(isinstance(part, int) and not isinstance(part, bool) and part >= 0 for part in prompt):
        return list(prompt)  # type: ignore[arg-type]
    if not all(isinstance(part, Mapping) and "role" in part for part in prompt):
        raise UserError(f"prompt: expected messages with role and content, or token ids, got {prompt!r:.80}")
    messages: list[Mapping[str, Any]] = list(prompt)  # type: ignore[arg-type]
    if template.system is not None and messages[0]["role"] != "system":
        messages.insert(0, {"role": "system", "content": template.system})
    # a template is a program of others, and raises what it likes
    with as_user_error(Exception, lambda error: f"prompt: the chat template does not take it: {describe(error)}"):
        return _checked(chat_ids(tokenizer, messages, template.chat_template_kwargs), prompt)


def _checked(ids: list[int], prompt: Prompt) -> list[int]:
    if not ids:
        raise UserError(f"prompt: {prompt!r:.80} has no token")
    return ids
