"""An engine that says what it is told: for tests, examples and benchmarks without a model."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from typing import Any

from relay_verl.engines.base import Generation
from relay_verl.errors import EngineError
from relay_verl.tokenization import TokenBytes, encode_within

Script = str | list[int] | Exception


class ScriptedEngine:
    """Writes a fixed script, continuing where the last call stopped, or answers by a function of the context.

    `script` is a sequence of texts, id lists and exceptions: each call to `generate` continues the current item up to
    `max_tokens`, a stop string or its end, as a real engine does, and goes to the next item once one is used up.
    An exception is raised when its turn comes. Past the end of the script it writes the EOS. `requests` keeps every
    context it was given.

    Args:
        script: what it writes.
        logprob: of each token; None gives no log-probabilities.
        delay_s: seconds until an answer begins.
        chunk: tokens of each piece of a stream; None streams an answer as one piece.
        chunk_delay_s: seconds before each piece of a stream but the first.
    """

    def __init__(
        self,
        tokenizer: Any,
        script: Iterable[Script] | Callable[[list[int]], Script] = (),
        *,
        logprob: float | None = -0.5,
        delay_s: float = 0.0,
        chunk: int | None = None,
        chunk_delay_s: float = 0.0,
    ):
        self._tokens = TokenBytes(tokenizer)
        self._tokenizer = tokenizer
        self._answer = script if callable(script) else None
        self._items = [] if callable(script) else list(script)
        self._rest: list[int] = []
        self._logprob = logprob
        self._delay_s = delay_s
        self._chunk = chunk
        self._chunk_delay_s = chunk_delay_s
        self.requests: list[list[int]] = []

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
        self.requests.append(list(prompt_ids))
        await asyncio.sleep(self._delay_s)
        ids = self._ids(self._answer(list(prompt_ids))) if self._answer else self._next_ids()
        eos = self._tokenizer.eos_token_id
        written: list[int] = []
        text = b""
        for position, token_id in enumerate(ids[:max_tokens]):
            written.append(token_id)
            text += self._tokens.to_bytes(token_id)
            if token_id == eos:
                return self._generation(written, "eos", [])
            if any(string.encode() in text for string in stop):
                return self._generation(written, "stop", ids[position + 1 :])
        # The rest of the script is continued by the next call, as an engine continues its context.
        if len(ids) >= max_tokens:
            return self._generation(written, "length", ids[max_tokens:])
        if not self._answer and self._items:
            return self._generation(written, "stop", [])
        return self._generation([*written, eos], "eos", [])

    async def stream(
        self,
        prompt_ids: list[int],
        *,
        max_tokens: int,
        stop: Sequence[str] = (),
        sampling: Mapping[str, Any] = {},
        request_id: str | None = None,
    ) -> AsyncGenerator[Generation, None]:
        """See `StreamingEngine.stream`; what a reader who leaves has not taken is written by the next call."""
        whole = await self.generate(prompt_ids, max_tokens=max_tokens, stop=stop)
        ids = whole.token_ids
        chunk = self._chunk or max(1, len(ids))
        end = 0
        try:
            for start in range(0, max(1, len(ids)), chunk):
                # also a piece that is there at once lets others run, as one of a real engine does
                await asyncio.sleep(self._chunk_delay_s if start else 0)
                end = start + chunk
                logprobs = None if whole.logprobs is None else whole.logprobs[start:end]
                yield Generation(ids[start:end], logprobs, whole.finish_reason if end >= len(ids) else None)
        finally:
            self._rest = ids[end:] + self._rest

    def _generation(self, written: list[int], reason: Any, rest: list[int]) -> Generation:
        self._rest = rest
        return Generation(written, None if self._logprob is None else [self._logprob] * len(written), reason)

    def _next_ids(self) -> list[int]:
        if self._rest:
            return self._rest
        return self._ids(self._items.pop(0)) if self._items else [self._tokenizer.eos_token_id]

    def _ids(self, item: Script) -> list[int]:
        if isinstance(item, Exception):
            raise item if isinstance(item, EngineError) else EngineError(str(item)) from item
        return list(item) if isinstance(item, list) else encode_within(self._tokenizer, item)
