"""What the tries of a request failed with: openai's client retries by itself and keeps the last failure alone, and a
deadline that ends its retries has to say why they were needed."""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any

from relay_verl.engines.failures import Refusal, explain_endpoint_error

failures_of_tries: ContextVar[list[str] | None] = ContextVar("failures_of_tries", default=None)
"""Where the failures of the current request are collected, in order."""


def make_http_client(timeout: Any) -> Any:
    """openai's HTTP client, which also notes what a try fails with."""
    from openai import DefaultAsyncHttpxClient

    class NotingClient(DefaultAsyncHttpxClient):
        async def send(self, *args: Any, **kwargs: Any) -> Any:
            try:
                response = await super().send(*args, **kwargs)
                if response.status_code >= 400:
                    await response.aread()
                    _note(str(Refusal.read(response.status_code, response.content)))
                return response
            except Exception as error:
                _note(explain_endpoint_error(error, "", None))
                raise

    return NotingClient(timeout=timeout)


def _note(failure: str) -> None:
    failures = failures_of_tries.get()
    if failures is not None:
        failures.append(failure)
