"""Whether a model's server answers: cheaply, and by a real completion.

Every look has a deadline. An answer that is not the server's own, such as a proxy's web page, counts as none.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from functools import cached_property

import httpx

from relay_verl.engines.address import root_of
from relay_verl.engines.client import EndpointClient
from relay_verl.engines.endpoint import EndpointEngine
from relay_verl.errors import EngineError

LOOK_TIMEOUT_S = 10.0
"""Seconds for an answer to a cheap look."""
FIRST_TIMEOUT_S = 120.0
"""Seconds for the first completion, during which an engine may still make what later ones use."""
_NO_SUCH_PATH = (404, 405)


@dataclass(frozen=True)
class ServedModel:
    """A model that has answered."""

    name: str
    """Its name at its server."""
    max_model_len: int | None
    """Tokens of its context; None if the server does not say."""


class HealthProbe:
    """Looks at one server.

    Args:
        base_url: such as http://127.0.0.1:8000/v1.
        model: the model's name there; the first one if None.
        api_key_env: environment variable with the key.
    """

    def __init__(self, base_url: str, model: str | None, api_key_env: str):
        self.base_url = base_url
        self._client = EndpointClient(base_url, api_key_env=api_key_env, timeout_s=LOOK_TIMEOUT_S, num_retries=0)
        self._engine = EndpointEngine(
            base_url, model, api_key_env=api_key_env, timeout_s=FIRST_TIMEOUT_S, num_retries=0
        )

    @cached_property
    def _http(self) -> httpx.AsyncClient:
        """One for all looks: to make one reads all certificates, which takes longer than the look."""
        return httpx.AsyncClient(timeout=LOOK_TIMEOUT_S)

    async def is_alive(self) -> bool:
        """Whether the server is up; of one without /health, whether it lists its models."""
        try:
            async with asyncio.timeout(LOOK_TIMEOUT_S):
                # with the key: a gateway in front of a server may ask for it on every path
                answer = await self._http.get(f"{root_of(self.base_url)}/health", headers=self._client.headers)
                status = answer.status_code
                if status in _NO_SUCH_PATH:
                    await self._client.model_names()
                    return True
                return status == 200
        except (httpx.HTTPError, httpx.InvalidURL, EngineError, TimeoutError):
            return False

    async def read_model(self, token_id: int) -> ServedModel:
        """What the server serves, after it has written a token behind `token_id`.

        Raises:
            EngineError: it writes none, or gives no token ids.
        """
        name = await self._engine.model()
        answer = await self._engine.generate([token_id], max_tokens=1)
        if not answer.token_ids:
            raise EngineError(f"{self.base_url}: asked for one token, it wrote none")
        return ServedModel(name, (await self._client.model_lengths()).get(name))

    async def aclose(self) -> None:
        """Close the connections of the running event loop; another look opens new ones."""
        await self._engine.aclose()
        await self._client.aclose()
        if (http := self.__dict__.pop("_http", None)) is not None:
            await http.aclose()
