"""A pair behind a running server, which may be `relay-verl serve` or any that speaks OpenAI's API."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import httpx
import openai

from relay_verl.config.reading import check_endpoint
from relay_verl.engines.address import root_of
from relay_verl.engines.client import EndpointClient
from relay_verl.engines.failures import Refusal, RetriedError
from relay_verl.errors import EngineError
from relay_verl.pair.talk import Piece, PieceKind, Question, Reply

NUM_RETRIES = 2
"""Further tries after a failed one: a server that is full or starts says when to come back."""
TIMEOUT_S = 30.0
"""Seconds until the list of models is there; a stream may be silent for `relay_verl.engines.deadlines.LONGEST_WAIT`
times as long, since the request may wait in the server's queue."""


class ServedPair:
    """Asks a server.

    Args:
        url: its address, with /v1 or without.
        api_key_env: environment variable with the key.

    Raises:
        UserError: `url` is not an address, or holds a key.
    """

    def __init__(self, url: str, *, api_key_env: str):
        base_url = f"{root_of(url)}/v1"
        check_endpoint("--url", base_url, api_key_env)
        self.client = EndpointClient(base_url, api_key_env=api_key_env, timeout_s=TIMEOUT_S, num_retries=NUM_RETRIES)

    async def model_names(self) -> list[str]:
        """What the server lists.

        Raises:
            EngineError: it is down, or does not say.
        """
        return await self.client.model_names()

    def ask(self, question: Question) -> Reply:
        """The reply to a question, not yet begun."""
        return ServedReply(question, client=self.client)

    async def aclose(self) -> None:
        """Close the connections."""
        await self.client.aclose()


@dataclass(kw_only=True)
class ServedReply(Reply):
    """A reply that a server streams."""

    client: EndpointClient
    """Asks it."""

    async def _read(self) -> AsyncIterator[Piece]:
        try:
            stream = await self.client.openai.chat.completions.create(
                model=self.question.model,
                messages=list(self.question.messages),
                stream=True,
                stream_options={"include_usage": True},
                extra_body={"relay": self.question.relay, **self._options()},
            )
            async with stream:
                async for chunk in stream:
                    if chunk.usage:
                        self.usage = chunk.usage.model_dump(exclude_none=True)
                    for choice in chunk.choices:
                        self.finish_reason = choice.finish_reason or self.finish_reason
                        if choice.delta.content:
                            yield Piece(_kind_of(choice.delta), choice.delta.content)
        except openai.APIStatusError as error:
            refusal = Refusal.read(error.response.status_code, error.response.content)
            raise refusal.to_error(self.client.line(str(refusal))) from None
        except openai.APIConnectionError as error:
            raise RetriedError(self.client.line(self.client.explain(error))) from None
        except openai.APIError as error:  # an event of the stream
            raise EngineError(self.client.line(error.message)) from None
        except httpx.HTTPError as error:  # the stream broke off, which openai's client does not explain
            raise EngineError(self.client.line(self.client.explain(error))) from None

    def _options(self) -> dict[str, Any]:
        question = self.question
        options = {
            "max_completion_tokens": question.max_tokens,
            "temperature": question.temperature,
            "seed": question.seed,
        }
        return {name: value for name, value in options.items() if value is not None}


def _kind_of(delta: Any) -> PieceKind:
    relay = (delta.model_extra or {}).get("relay") or {}
    if relay.get("kind") == "command":
        return PieceKind.COMMAND
    return PieceKind.TEACHER if relay.get("source") == "teacher" else PieceKind.STUDENT
