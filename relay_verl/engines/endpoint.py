"""A TokenEngine over an OpenAI-compatible endpoint that takes and returns token ids, as vLLM's server does."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from typing import Any

import msgspec

from relay_verl.engines.address import root_of
from relay_verl.engines.base import NEUTRAL_SAMPLING, Generation
from relay_verl.engines.client import EndpointClient
from relay_verl.engines.deadlines import Pulse
from relay_verl.engines.direct_http import DirectHttp
from relay_verl.engines.events import read_events
from relay_verl.engines.failures import Refusal, RetriedError
from relay_verl.engines.load import read_load
from relay_verl.engines.prompt_scores import PARAMETER, read_endpoint_scores
from relay_verl.errors import EngineError

MAX_BODY_BYTES = 1 << 26
"""Longest answer that is read: some tens of bytes a token, with log-probabilities, for the longest context there is."""

STREAMS: Mapping[str, Any] = {"stream": True, "stream_options": {"include_usage": True}}
"""Parameters of a stream, whose last event has the usage."""

NO_ANSWER = (AttributeError, IndexError, KeyError, TypeError, ValueError, RecursionError)
"""What reading an answer that is none raises: a web page, other JSON, a list without choices."""


class NoTokenIdsError(RetriedError):
    """The endpoint answers with text alone."""


class EndpointEngine:
    """`/v1/completions` with token ids as the prompt and `return_token_ids`.

    The key is read from the environment when the client is made, in the process that uses it; the object itself can be
    sent to a Ray worker and holds no secret.

    Args:
        base_url: such as http://127.0.0.1:8000/v1.
        model: the model's name there; the endpoint's first one if None.
        api_key_env: environment variable that holds the key; endpoints without one ignore it.
        timeout_s: seconds of silence after which a request fails; an endpoint that answers other requests of this
            object, or whose token counter moves (vLLM's `/metrics`), is not silent. See `relay_verl.engines.deadlines`.
        num_retries: further tries after a moment's trouble, by openai's own client.
    """

    def __init__(
        self,
        base_url: str,
        model: str | None = None,
        *,
        api_key_env: str = "RELAY_TEACHER_API_KEY",
        timeout_s: float = 300.0,
        num_retries: int = 2,
    ):
        self.base_url = base_url
        self._model = model
        self._timeout_s = self.stream_timeout_s = timeout_s
        self._client = EndpointClient(base_url, api_key_env=api_key_env, timeout_s=timeout_s, num_retries=num_retries)
        self._direct = DirectHttp(base_url, timeout_s)
        self._names: set[str] = set()
        """What else the endpoint calls what it serves."""
        self.pulse = Pulse(self._count_tokens)

    async def model(self) -> str:
        """The model's name at the endpoint.

        Raises:
            EngineError: the endpoint is down, or serves no model or not the one asked for.
        """
        names = await self._client.model_names()
        if self._model is None and names:
            self._model = names[0]
        if self._model is None or self._model not in names:
            raise EngineError(self._client.line(f"no model {self._model!r}; it serves {', '.join(names) or 'none'}"))
        return self._model

    async def generate(
        self,
        prompt_ids: list[int],
        *,
        max_tokens: int,
        stop: Sequence[str] = (),
        sampling: Mapping[str, Any] = {},
        request_id: str | None = None,
    ) -> Generation:
        """See `TokenEngine.generate`.

        Raises:
            PermanentError: the endpoint refuses the request, such as for a prompt that is too long for the model.
        """
        wants_logprobs = bool(sampling.get("logprobs"))
        return await self._client.within(
            self.pulse,
            self._timeout_s,
            self._complete(prompt_ids, _parameters(max_tokens, stop, sampling), wants_logprobs),
            num_tokens=max_tokens,
            measure=lambda generation: len(generation.token_ids),
        )

    async def stream(
        self,
        prompt_ids: list[int],
        *,
        max_tokens: int,
        stop: Sequence[str] = (),
        sampling: Mapping[str, Any] = {},
        request_id: str | None = None,
    ) -> AsyncGenerator[Generation, None]:
        """See `StreamingEngine.stream`; a piece is what the server sends in one event, as a rule a token.

        Raises:
            PermanentError: as `generate`.
        """
        wants_logprobs = bool(sampling.get("logprobs"))
        parameters = {**_parameters(max_tokens, stop, sampling), **STREAMS}
        answer = self._client.pieces_within(
            self.pulse,
            self._timeout_s,
            self._pieces(prompt_ids, parameters, wants_logprobs),
            num_tokens=max_tokens,
            measure=lambda piece: len(piece.token_ids),
            is_last=lambda piece: piece.finish_reason is not None,
        )
        async with aclosing(answer) as pieces:
            async for piece in pieces:
                yield piece

    async def _complete(self, prompt_ids: list[int], parameters: Mapping[str, Any], wants_logprobs: bool) -> Generation:
        """One answer, read."""
        required = {"model": self._model or await self.model(), "prompt": prompt_ids}
        body = await self._client.ask("completions", required, parameters, max_bytes=MAX_BODY_BYTES)
        try:
            completion = json.loads(body)
            await self._check_model(completion.get("model"), required["model"])
            choice = completion["choices"][0]
            piece = self._read(choice, wants_logprobs, _num_cached(completion))
            if (asked := parameters.get(PARAMETER)) is not None:
                scores = read_endpoint_scores(choice.get(PARAMETER), prompt_ids, asked)
                piece = replace(piece, prompt=scores)
        except NO_ANSWER as error:
            raise EngineError(self._client.line(f"the answer is not a completion: {error!r}")) from None
        if piece.finish_reason is None:
            raise EngineError(self._client.line("the request did not end: finish_reason is None"))
        return piece

    async def _check_model(self, answering: Any, asked: Any) -> None:
        """Raise EngineError where another model answers, as behind a balancer over servers that are not alike. One of
        several names of the model that was asked is right."""
        if not isinstance(answering, str) or answering == asked or answering in self._names:
            return
        self._names |= set(await self._client.model_names())
        if answering not in self._names:
            raise EngineError(self._client.line(f"it answers for model {answering!r}, not for {asked!r}"))

    async def _pieces(
        self, prompt_ids: list[int], parameters: Mapping[str, Any], wants_logprobs: bool
    ) -> AsyncGenerator[Generation, None]:
        """The pieces of one answer. The last one waits for the event behind it, which has the usage, and for the end of
        the body, so that the connection serves the next request."""
        required = {"model": self._model or await self.model(), "prompt": prompt_ids}
        last: Generation | None = None
        num_cached: int | None = None
        async with self._open(required, parameters) as response:
            async for event in read_events(response, MAX_BODY_BYTES):
                try:
                    chunk = _decode(event)
                    if "error" in chunk:
                        refusal = Refusal.read(_status_of(chunk["error"]), event)
                        raise refusal.to_error(self._client.line(f"the stream broke off: {refusal}"))
                    if chunk.get("model") != required["model"]:
                        await self._check_model(chunk.get("model"), required["model"])
                    num_cached = _num_cached(chunk) if num_cached is None else num_cached
                    if not chunk["choices"]:  # the event that has the usage
                        continue
                    piece = self._read(chunk["choices"][0], wants_logprobs, None)
                except NO_ANSWER as error:
                    raise EngineError(self._client.line(f"an event is not a completion's: {error!r}")) from None
                if piece.finish_reason is None:
                    yield piece
                else:
                    last = piece
        if last is None:
            raise EngineError(self._client.line("the stream ended before the answer did"))
        yield replace(last, num_cached=num_cached)

    @asynccontextmanager
    async def _open(self, required: Mapping[str, Any], parameters: Mapping[str, Any]) -> AsyncGenerator[Any, None]:
        """A stream's body, as `EndpointClient.open` gives it."""
        sent = {**required, **self._client.refused.apply(parameters)}
        async with self._direct.open("/completions", sent, self._client.headers) as response:
            if response is not None:
                try:
                    yield response
                except EngineError:
                    raise
                except Exception as error:  # the body broke off
                    raise EngineError(self._client.line(self._client.explain(error))) from None
                return
        async with self._client.open("completions", required, parameters) as response:
            yield response

    def _read(self, choice: Any, wants_logprobs: bool, num_cached: int | None) -> Generation:
        """The one choice of an answer, or of an event of its stream."""
        token_ids = choice.get("token_ids")
        if not isinstance(token_ids, list):
            # asked again it would answer the same
            raise NoTokenIdsError(
                self._client.line("the answer has no token_ids; the endpoint must know return_token_ids, as vLLM does")
            )
        scores = (choice.get("logprobs") or {}) if wants_logprobs else {}
        logprobs = list(scores.get("token_logprobs") or []) or None
        # 0 alternatives leave the sampled token alone in each place
        top = [sorted((place or {}).values(), reverse=True) for place in scores.get("top_logprobs") or ()] or None
        reason = choice.get("finish_reason")
        if reason is None or reason == "length":
            return Generation(token_ids, logprobs, reason, num_cached, top_logprobs=top)
        if reason != "stop":  # vLLM ends a request so that it gives up, and says 200
            raise EngineError(self._client.line(f"the request did not end: finish_reason is {reason!r}"))
        is_stop = isinstance(choice.get("stop_reason"), str)
        return Generation(token_ids, logprobs, "stop" if is_stop else "eos", num_cached, top_logprobs=top)

    async def aclose(self) -> None:
        """Close the connections of the running event loop; another request opens new ones."""
        await self._direct.aclose()
        await self._client.aclose()

    async def _count_tokens(self) -> int | None:
        load = await read_load([root_of(self.base_url)], uses_proxy=True)
        return None if load is None else load.num_tokens

    async def tokenize(self, text: str) -> list[int] | None:
        """Token ids of `text` by the endpoint's tokenizer (vLLM's /tokenize); None if it offers none.

        Raises:
            EngineError: the endpoint is down.
        """
        import httpx

        url = f"{root_of(self.base_url)}/tokenize"
        body = {"model": await self.model(), "prompt": text, "add_special_tokens": False}
        try:
            async with httpx.AsyncClient(timeout=self._timeout_s) as client:
                answer = await client.post(url, json=body, headers=self._client.headers)
        except httpx.HTTPError as error:
            raise EngineError(self._client.line(f"/tokenize: {self._client.explain(error)}")) from None
        try:
            return answer.json().get("tokens") if answer.status_code == 200 else None
        except NO_ANSWER as error:
            raise EngineError(self._client.line(f"/tokenize: the answer is not a JSON object: {error}")) from None


def _parameters(max_tokens: int, stop: Sequence[str], sampling: Mapping[str, Any]) -> dict[str, Any]:
    """What a request says but for its prompt."""
    num_top = sampling.get("logprobs")
    return {**NEUTRAL_SAMPLING, **sampling} | {
        "extra_args": None,
        "vllm_xargs": sampling.get("extra_args"),  # its name over HTTP
        "max_tokens": max_tokens,
        "stop": list(stop) or None,
        "logprobs": None if not num_top else 0 if num_top is True else num_top,
        # by their texts, which several ids may share, alternatives would overwrite each other
        "return_tokens_as_token_ids": True if num_top and num_top is not True else None,
        "return_token_ids": True,
        "include_stop_str_in_output": bool(stop),
    }


def _decode(event: bytes) -> Any:
    """An event's JSON; what strict JSON does not have, such as NaN, costs more."""
    try:
        return msgspec.json.decode(event)
    except msgspec.DecodeError:
        return json.loads(event)


def _status_of(error: Any) -> int:
    """The HTTP status that an error in a stream would have had; the answer's own was 200."""
    code = error.get("code")
    return code if isinstance(code, int) and code >= 400 else 500


def _num_cached(completion: Any) -> int | None:
    """Tokens of the prompt that the server's prefix cache held, if it says so."""
    details = (completion.get("usage") or {}).get("prompt_tokens_details") or {}
    cached: int | None = details.get("cached_tokens")
    return cached
