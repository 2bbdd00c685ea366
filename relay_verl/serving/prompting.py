"""Prompts of requests as token ids, as training writes them.

Invariant: a prompt that the tokenizer or its chat template does not take is the client's error, in one sentence; one
that is long is encoded in a thread, so that other responses are not held up.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from relay_verl.engines.boundary import describe
from relay_verl.serving.api_error import ApiError, refuse
from relay_verl.serving.request_fields import ChatFields, CompletionFields
from relay_verl.tokenization import chat_ids

Result = TypeVar("Result")

LONG_TEXT = 16_384
"""Characters from which a text is encoded in a thread: some milliseconds of work."""


class Prompter:
    """Turns prompts into token ids.

    Args:
        tokenizer: the student's.
        template: arguments of the chat template, as in training.
        system: system message of chats that have none; None for none.
        num_ids: ids at or above this are not the model's.
    """

    def __init__(self, tokenizer: Any, template: Mapping[str, Any], system: str | None, num_ids: int):
        self._tokenizer = tokenizer
        self._template = template
        self._system = system
        self._num_ids = num_ids

    async def chat(self, fields: ChatFields) -> list[int]:
        """The prompt of a chat, [prompt_length].

        Raises:
            ApiError: 400; the template refuses the chat.
        """
        messages = [self._message(message.model_dump()) for message in fields.messages]
        if self._system is not None and messages[0]["role"] != "system":
            messages.insert(0, {"role": "system", "content": self._system})
        template = {**self._template, **(fields.chat_template_kwargs or {})}
        if fields.continue_final_message:
            template |= {"continue_final_message": True, "add_generation_prompt": False}
        elif fields.add_generation_prompt is not None:
            template |= {"add_generation_prompt": fields.add_generation_prompt}
        num_characters = sum(len(str(message.get("content"))) for message in messages)
        try:
            return await _aside(num_characters, lambda: chat_ids(self._tokenizer, messages, template))
        except Exception as error:  # a template is a program of others, and raises what it likes
            raise refuse("messages", f"the chat template does not take them: {describe(error)}") from None

    async def completion(self, fields: CompletionFields) -> list[list[int]]:
        """The prompts of a completion, [num_prompts][prompt_length].

        Raises:
            ApiError: 400; a text or an id is not the model's.
        """
        prompt: Any = fields.prompt
        prompts = [prompt] if isinstance(prompt, str) or isinstance(prompt[0], int) else prompt
        has_special = fields.add_special_tokens is not False
        return [
            await self.encode(each, has_special=has_special) if isinstance(each, str) else self._checked(each)
            for each in prompts
        ]

    async def encode(self, text: str, *, has_special: bool) -> list[int]:
        """Ids of a text.

        Raises:
            ApiError: 400; it has none, or it is half of a character.
        """
        _check_text(text)

        def encode() -> list[int]:
            return list(self._tokenizer.encode(text, add_special_tokens=has_special))

        try:
            ids = await _aside(len(text), encode)
        except ValueError as error:
            raise refuse("prompt", f"the tokenizer does not take it: {describe(error)}") from None
        if not ids:
            raise refuse("prompt", "expected at least one token")
        return ids

    def known_ids(self, ids: list[int]) -> list[int]:
        """Those that are the model's; others have no text, and must not be remembered as if they had one."""
        return [token_id for token_id in ids if token_id < self._num_ids]

    def _checked(self, ids: list[int]) -> list[int]:
        if max(ids) >= self._num_ids:
            raise refuse("prompt", f"{max(ids)} is not a token id of this model; expected ids below {self._num_ids}")
        return ids

    def _message(self, message: dict[str, Any]) -> dict[str, Any]:
        content = message["content"]
        parts = content if isinstance(content, list) else []
        for part in parts:
            if part.get("type", "text") != "text" or not isinstance(part.get("text"), str):
                kind = part.get("type")
                raise refuse("messages", f"expected parts of type text, got {kind!r:.64}: both models read text alone")
            _check_text(part["text"])
        if content is None or content == []:
            raise refuse("messages", f"the {message['role']}'s content: expected a text, or a list of text parts")
        if isinstance(content, str):
            _check_text(content)
        return message | {"role": "system" if message["role"] == "developer" else message["role"]}


def _check_text(text: str) -> None:
    # JSON can write half of a surrogate pair, which is not a character and which tokenizers refuse with a type error
    if not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
        raise refuse("prompt", "not valid Unicode: it holds half of a surrogate pair")


async def _aside(num_characters: int, work: Callable[[], Result]) -> Result:
    return work() if num_characters < LONG_TEXT else await asyncio.to_thread(work)


def response_limits(prompts: list[list[int]], asked: int | None, default: int, max_model_len: int) -> list[int]:
    """Most tokens of a response to each prompt.

    Args:
        prompts: [num_prompts][prompt_length].
        asked: what the request says.
        default: most tokens where it says nothing.
        max_model_len: tokens of the context, prompt and response together.

    Raises:
        ApiError: 400; says both lengths.
    """
    limits = []
    for prompt in prompts:
        room = max_model_len - len(prompt)
        if room < 1 or (asked is not None and asked > room):
            wish = "" if asked is None else f" and max_tokens is {asked}"
            message = f"the context has {max_model_len} tokens; the prompt has {len(prompt)}{wish}"
            raise ApiError(400, message, param="max_tokens", code="context_length_exceeded")
        limits.append(asked or min(default, room))
    return limits
