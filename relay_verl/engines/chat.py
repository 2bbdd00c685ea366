"""A chat API as the teacher: it reads messages and gives text, not token ids.

Each response opens it with its chat. A call sends the chat and what is written of the response
(`relay_verl.engines.chat_prefix`), n as `max_tokens`, and encodes the answer once, by the student's tokenizer.

Invariants: the student's ids are never encoded again; the bytes of the ids that come back are the answer's, so that the
response reads as prefix and answer joined, whatever the tokenizer does at the beginning of a text; no text becomes a
special token; at most n ids come back. The API's end of the message becomes the student's end of sequence.

What an API without ids cannot give:
1. n counts its tokens and the student's: the API writes at most n of its own, which are cut after n of the student's.
2. Log-probabilities, streams, and replicas that keep a trajectory's cache.
3. Whether a server that takes an assistant prefix without a word really continues it.

What it bills (`usage`) counts as read and written, hidden reasoning and what is cut off included.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from relay_verl.engines.base import NEUTRAL_SAMPLING, Billed, FinishReason, Generation
from relay_verl.engines.chat_prefix import ChatPrefix, refuses_prefix, without_echo
from relay_verl.engines.endpoint import MAX_BODY_BYTES, NO_ANSWER, EndpointEngine
from relay_verl.engines.text_bridge import cut_text
from relay_verl.errors import EngineError, PermanentError
from relay_verl.messages import plain_messages
from relay_verl.tokenization import TokenBytes

logger = logging.getLogger(__name__)

_REPLACEMENT = "\ufffd"
"""What stands for the beginning of a character that `max_tokens` cuts."""


class ChatEngine(EndpointEngine):
    """`/v1/chat/completions` of an OpenAI-compatible API. Can be sent to a Ray worker, and holds no key.

    Args:
        base_url: such as https://api.example.com/v1.
        model: the model's name there; the endpoint's first one if None.
        tokenizer: the student's.
        prefix: how the response so far is sent.
        falls_back: explain the response so far from then on, if the API refuses `prefix`.
        template: arguments of the chat template, which vLLM takes as chat_template_kwargs.
        options: the other arguments of `EndpointEngine`.
    """

    stream = None  # type: ignore[assignment]
    """An answer is encoded as a whole."""

    def __init__(
        self,
        base_url: str,
        model: str | None,
        tokenizer: Any,
        *,
        prefix: ChatPrefix = ChatPrefix.CONTINUE,
        falls_back: bool = False,
        template: Mapping[str, Any] = {},
        **options: Any,
    ):
        super().__init__(base_url, model, **options)
        self.prefix = prefix
        self._falls_back = falls_back
        self._template = dict(template)
        self._eos_token_id: int = tokenizer.eos_token_id
        self.tokens = TokenBytes(tokenizer)
        self._has_warned = False

    def open(self, messages: Iterable[Mapping[str, Any]], num_prompt_tokens: int) -> ChatTeacher:
        """The teacher for one response.

        Args:
            messages: the chat that the response answers.
            num_prompt_tokens: how many of the student's ids stand for it in a context.

        Raises:
            PermanentError: the chat holds something other than text.
        """
        try:
            return ChatTeacher(self, plain_messages(messages), num_prompt_tokens)
        except ValueError as error:
            raise PermanentError(str(error)) from None

    async def generate(self, prompt_ids: list[int], **arguments: Any) -> Generation:
        """Raise PermanentError: token ids alone do not say which chat they stand for."""
        raise PermanentError(self._client.line("a chat API reads messages: open it for a response"), concerns_all=True)

    async def continue_text(
        self,
        messages: list[dict[str, Any]],
        written: str,
        max_tokens: int,
        stop: Sequence[str],
        sampling: Mapping[str, Any],
    ) -> Generation:
        """What the API writes after `written`, as the student's ids.

        Raises:
            PermanentError: the API refuses the request, or the form of `written`.
            EngineError: the API does not answer, or with a text that the student's tokenizer cannot write.
        """
        own = {key: value for key, value in sampling.items() if key not in ("logprobs", "bad_words")}
        parameters = {**NEUTRAL_SAMPLING, **own} | {
            "max_tokens": max_tokens,
            "stop": list(stop) or None,
            "include_stop_str_in_output": True if stop else None,
            "chat_template_kwargs": self._template or None,
        }
        return await self._client.within(
            self.pulse,
            self._timeout_s,
            self._ask(messages, written, parameters),
            num_tokens=max_tokens,
            measure=lambda generation: len(generation.token_ids),
        )

    async def _ask(self, messages: list[dict[str, Any]], written: str, parameters: Mapping[str, Any]) -> Generation:
        """One answer, read; a second request where the API refuses the first one's form and may be asked in another."""
        model = self._model or await self.model()
        form = self.prefix
        sent, further = form.request(messages, written)
        try:
            body = await self._client.ask(
                "chat.completions",
                {"model": model, "messages": sent},
                {**parameters, **further},
                max_bytes=MAX_BODY_BYTES,
            )
        except PermanentError as error:
            reason = str(error).removeprefix(f"{self.base_url}: ")
            is_about_prefix = written and form is not ChatPrefix.EXPLAIN and refuses_prefix(reason)
            if error.concerns_all or not is_about_prefix:
                raise
            self._leave(form, reason)
            return await self._ask(messages, written, parameters)
        try:
            return self._read_chat(json.loads(body), written, parameters)
        except NO_ANSWER as error:
            raise EngineError(self._client.line(f"the answer is not a chat completion: {error!r}")) from None

    def _leave(self, form: ChatPrefix, reason: str) -> None:
        """Explain the text from now on.

        Raises:
            PermanentError: that is not allowed.
        """
        refusal = f"it refuses an assistant prefix (chat_prefix={form}); "
        if not self._falls_back:
            fix = f"set relay.teacher.chat_prefix={ChatPrefix.EXPLAIN}, or relay.teacher.chat_fallback=true"
            raise PermanentError(self._client.line(f"{refusal}{fix}: {reason}"), concerns_all=True)
        if self.prefix is form:  # of many requests at a time the first one says it
            self.prefix = ChatPrefix.EXPLAIN
            message = self._client.line(f"{refusal}from now on chat_prefix={ChatPrefix.EXPLAIN}: {reason}")
            logger.warning("relay_verl: warning: %s", message)

    def _read_chat(self, completion: Any, written: str, parameters: Mapping[str, Any]) -> Generation:
        choice = completion["choices"][0]
        reason = choice.get("finish_reason")
        if reason not in ("stop", "length"):
            raise EngineError(self._client.line(f"the request did not end: finish_reason is {reason!r}"))
        text = choice["message"].get("content") or ""
        if not isinstance(text, str):
            raise EngineError(self._client.line(f"the answer's content is not a text: {text!r:.80}"))
        max_tokens = parameters["max_tokens"]
        billed, num_cached = self._read_usage(completion.get("usage") or {}, max_tokens)
        text = without_echo(text, written)
        text = text.rstrip(_REPLACEMENT) if reason == "length" else text
        try:
            token_ids = self.tokens.encode(text.encode())
        except ValueError as error:
            raise EngineError(self._client.line(f"the student's tokenizer cannot write the answer: {error}")) from None
        ended: FinishReason = "length"
        if reason == "stop":
            ended = "stop" if isinstance(choice.get("stop_reason"), str) else "eos"
        if ended == "eos":
            token_ids.append(self._eos_token_id)
        return cut_text(token_ids, max_tokens, ended, billed, num_cached)

    def _read_usage(self, usage: Any, max_tokens: int) -> tuple[Billed | None, int | None]:
        """What is billed, and the cached part of what was read; None where the API does not say."""
        num_input, num_output = usage.get("prompt_tokens"), usage.get("completion_tokens")
        if not isinstance(num_input, int) or not isinstance(num_output, int):
            return None, None
        if num_output > max_tokens and not self._has_warned:
            self._has_warned = True
            logger.warning(
                "relay_verl: warning: %s",
                self._client.line(
                    f"it bills {num_output} tokens of an answer that may have {max_tokens}, and counts as what it bills"
                ),
            )
        details = usage.get("prompt_tokens_details") or {}
        cached = details.get("cached_tokens", usage.get("prompt_cache_hit_tokens"))
        return Billed(num_input, num_output), cached if isinstance(cached, int) else None


class ChatTeacher:
    """A TokenEngine over the student's ids, for one response; the API behind it reads the chat."""

    def __init__(self, api: ChatEngine, messages: list[dict[str, Any]], num_prompt_tokens: int):
        self._api = api
        self.pulse = api.pulse  # one API answers all responses
        self._messages = messages
        self._num_prompt_tokens = num_prompt_tokens

    async def generate(
        self,
        prompt_ids: list[int],
        *,
        max_tokens: int,
        stop: Sequence[str] = (),
        sampling: Mapping[str, Any] = {},
        request_id: str | None = None,
    ) -> Generation:
        """See `TokenEngine.generate`."""
        written = self._api.tokens.text(prompt_ids[self._num_prompt_tokens :])
        return await self._api.continue_text(self._messages, written, max_tokens, stop, sampling)
