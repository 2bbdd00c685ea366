"""A TokenEngine over an OpenAI-compatible endpoint that takes and returns token ids, as vLLM's server does."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping, Sequence
from typing import Any

from relay_verl.deadlines import LONGEST_WAIT, DeadlineError, Pulse
from relay_verl.engines.base import NEUTRAL_SAMPLING, EngineError, Generation
from relay_verl.engines.load import read_load

# Parameters of vLLM's server that the OpenAI API does not know travel in the request's extra body.
_OPENAI_PARAMETERS = {"temperature", "top_p", "seed", "presence_penalty", "frequency_penalty"}

CONNECT_TIMEOUT_S = 30.0
"""Most seconds until a connection stands: a host that drops packets must not hold a request for as long as a whole
response may take."""

# What reading an answer that is none raises: a web page, other JSON, a list without choices.
_NO_ANSWER = (AttributeError, IndexError, KeyError, TypeError, ValueError)


class EndpointEngine:
    """`/v1/completions` with token ids as the prompt and `return_token_ids`.

    The key is read from the environment when the client is made, in the process that uses it; the object itself can be
    sent to a Ray worker and holds no secret.

    Args:
        base_url: such as http://127.0.0.1:8000/v1.
        model: the model's name there; the endpoint's first one if None.
        api_key_env: environment variable that holds the key; endpoints without one ignore it.
        timeout_s: seconds of silence after which a request fails; an endpoint that answers other requests of this
            object, or whose token counter moves (vLLM's `/metrics`), is not silent. See `relay_verl.deadlines`.
    """

    def __init__(
        self,
        base_url: str,
        model: str | None = None,
        *,
        api_key_env: str = "RELAY_TEACHER_API_KEY",
        timeout_s: float = 300.0,
    ):
        self.base_url = base_url
        self._model = model
        self._api_key_env = api_key_env
        self._timeout_s = timeout_s
        self._client_of_loop: tuple[Any, Any] = (None, None)
        self.pulse = Pulse(self._count_tokens)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_client_of_loop": (None, None)}

    @property
    def _client(self) -> Any:
        """The client of the running event loop: its connections belong to one loop."""
        from openai import AsyncOpenAI, Timeout

        loop, client = self._client_of_loop
        if loop is not asyncio.get_running_loop():
            key = os.environ.get(self._api_key_env) or "none"
            # the client counts seconds without a byte, which a queue is full of: `pulse` bounds requests
            timeout = Timeout(LONGEST_WAIT * self._timeout_s, connect=min(self._timeout_s, CONNECT_TIMEOUT_S))
            client = AsyncOpenAI(base_url=self.base_url, api_key=key, timeout=timeout, max_retries=0)
            self._client_of_loop = (asyncio.get_running_loop(), client)
        return client

    async def model(self) -> str:
        """The model's name at the endpoint.

        Raises:
            EngineError: the endpoint is down, or serves no model or not the one asked for.
        """
        import openai

        try:
            names = [model.id for model in (await self._client.models.list(timeout=self._timeout_s)).data]
        except (openai.OpenAIError, *_NO_ANSWER) as error:
            raise EngineError(f"{self.base_url}/models: {type(error).__name__}: {error}") from error
        if self._model is None and names:
            self._model = names[0]
        if self._model is None or self._model not in names:
            raise EngineError(f"{self.base_url}: no model {self._model!r}; it serves {', '.join(names) or 'none'}")
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
        """See `TokenEngine.generate`."""
        import openai

        wants_logprobs = bool(sampling.get("logprobs"))
        complete = {**NEUTRAL_SAMPLING, **sampling}
        known = {key: value for key, value in complete.items() if key in _OPENAI_PARAMETERS}
        extra = {key: value for key, value in complete.items() if key not in {*_OPENAI_PARAMETERS, "logprobs"}}
        request = self._client.completions.create(
            model=self._model or await self.model(),
            prompt=prompt_ids,
            max_tokens=max_tokens,
            stop=list(stop) or None,
            logprobs=0 if wants_logprobs else None,
            extra_body={"return_token_ids": True, "include_stop_str_in_output": bool(stop), **extra},
            **known,
        )
        try:
            completion = await self.pulse.wait(self._timeout_s, request, num_tokens=max_tokens, measure=_num_tokens)
        except DeadlineError as error:
            raise EngineError(f"{self.base_url}: Timeout: {error}") from None
        except openai.OpenAIError as error:
            raise EngineError(f"{self.base_url}: {type(error).__name__}: {error}") from error
        try:
            details = completion.usage and completion.usage.prompt_tokens_details
            return self._read(completion.choices[0], wants_logprobs, details and details.cached_tokens)
        except _NO_ANSWER as error:
            raise EngineError(f"{self.base_url}: the answer is no completion: {error}") from error

    def _read(self, choice: Any, wants_logprobs: bool, cached: int | None) -> Generation:
        extra = choice.model_extra or {}
        token_ids = extra.get("token_ids")
        if not isinstance(token_ids, list):
            raise EngineError(f"{self.base_url}: the answer has no token_ids; the endpoint must know return_token_ids")
        logprobs = list(choice.logprobs.token_logprobs or []) if wants_logprobs and choice.logprobs else None
        if choice.finish_reason == "length":
            return Generation(token_ids, logprobs, "length", cached)
        return Generation(token_ids, logprobs, "stop" if isinstance(extra.get("stop_reason"), str) else "eos", cached)

    @property
    def _root(self) -> str:
        return self.base_url.rstrip("/").removesuffix("/v1")

    async def _count_tokens(self) -> int | None:
        load = await read_load([self._root], uses_proxy=True)
        return None if load is None else load.num_tokens

    async def tokenize(self, text: str) -> list[int] | None:
        """Token ids of `text` by the endpoint's tokenizer (vLLM's /tokenize); None if it offers none.

        Raises:
            EngineError: the endpoint is down.
        """
        import httpx

        root = self._root
        body = {"model": await self.model(), "prompt": text, "add_special_tokens": False}
        key = os.environ.get(self._api_key_env)
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        try:
            async with httpx.AsyncClient(timeout=self._timeout_s) as client:
                answer = await client.post(f"{root}/tokenize", json=body, headers=headers)
        except httpx.HTTPError as error:
            raise EngineError(f"{root}/tokenize: {error}") from error
        try:
            return answer.json().get("tokens") if answer.status_code == 200 else None
        except _NO_ANSWER as error:
            raise EngineError(f"{root}/tokenize: the answer is no JSON object: {error}") from error


def _num_tokens(completion: Any) -> int:
    """Tokens of an answer that has not been read yet; 1 if it does not say."""
    written = getattr(getattr(completion, "usage", None), "completion_tokens", None)
    return written if isinstance(written, int) else 1
