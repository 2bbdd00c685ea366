"""The one client of OpenAI-compatible endpoints: the teacher's, a student's by URL, and the judge's.

It retries as openai's own client does (a moment's trouble, with `Retry-After` honoured), tells what is permanent from
what may pass, names the cause of a failure, leaves out parameters that the endpoint refuses, and bounds the size of an
answer.

Invariants: the key is in requests alone: no object, pickle, message or log of ours holds it, also where the endpoint
repeats it; every failure is an EngineError whose one-line message begins with the address.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncGenerator, Coroutine, Iterator, Mapping
from contextlib import AsyncExitStack, aclosing, asynccontextmanager, contextmanager
from typing import Any, TypeVar

from relay_verl.engines.address import check_address, proxy_of
from relay_verl.engines.address_hint import find_hint
from relay_verl.engines.deadlines import LONGEST_WAIT, DeadlineError, Pulse
from relay_verl.engines.failures import Refusal, RetriedError, explain_endpoint_error
from relay_verl.engines.parameters import RefusedParameters
from relay_verl.engines.tries import failures_of_tries, make_http_client
from relay_verl.errors import EngineError, PermanentError

logger = logging.getLogger(__name__)

Result = TypeVar("Result")

CONNECT_TIMEOUT_S = 30.0
"""Most seconds until a connection stands: a host that drops packets must not hold a request for as long as a whole
response may take."""
MAX_REASON_CHARS = 300
"""Longest reason in a message, with neither the address nor what to do about it."""
SHORTEST_KEY = 4
"""A key of fewer characters is not looked for in texts: words would lose their letters."""


class EndpointClient:
    """Asks one endpoint. Can be sent to another process, and used from one event loop after another.

    The key is read from the environment when the HTTP client is made, in the process that uses it.

    Args:
        base_url: such as http://127.0.0.1:8000/v1.
        api_key_env: environment variable that holds the key; endpoints without one ignore it.
        timeout_s: seconds of silence that the caller's pulse bears (`relay_verl.engines.deadlines`).
        num_retries: further tries after a failed one.
    """

    def __init__(self, base_url: str, *, api_key_env: str, timeout_s: float, num_retries: int):
        self.base_url = base_url
        self.api_key_env = api_key_env
        self.timeout_s = timeout_s
        self.num_retries = num_retries
        self.refused = RefusedParameters()
        self._hint: str | None = None
        self._openai_of_loop: tuple[Any, Any] = (None, None)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_openai_of_loop": (None, None)}

    @property
    def key(self) -> str:
        """The key, without the blanks and line ends that a file or a shell left around it."""
        return os.environ.get(self.api_key_env, "").strip()

    @property
    def headers(self) -> dict[str, str]:
        """What requests outside the OpenAI API carry."""
        return {"Authorization": f"Bearer {self.key}"} if self.key else {}

    @property
    def openai(self) -> Any:
        """openai's client for the running event loop: its connections belong to one loop.

        Raises:
            PermanentError: the key, or a proxy or certificate of the environment, cannot be used.
        """
        loop, client = self._openai_of_loop
        if loop is not asyncio.get_running_loop():
            client = self._make_openai()
            self._openai_of_loop = (asyncio.get_running_loop(), client)
        return client

    async def aclose(self) -> None:
        """Close the connections of the running event loop, if it has any; another request opens new ones."""
        loop, client = self._openai_of_loop
        if loop is asyncio.get_running_loop():
            self._openai_of_loop = (None, None)
            await client.close()

    def _make_openai(self) -> Any:
        from openai import AsyncOpenAI, Timeout

        key = self.key
        if not (key.isascii() and key.isprintable()):
            raise self._unusable(f"{self.api_key_env} holds characters that no key has")
        try:
            check_address(self.base_url, self.api_key_env)
        except ValueError as error:
            raise PermanentError(str(error), concerns_all=True) from None  # the address may hold a key
        # the client counts seconds without a byte, which a queue is full of: the caller's pulse bounds requests
        timeout = Timeout(LONGEST_WAIT * self.timeout_s, connect=min(self.timeout_s, CONNECT_TIMEOUT_S))
        try:
            return AsyncOpenAI(
                base_url=self.base_url,
                api_key=key or "none",
                timeout=timeout,
                max_retries=self.num_retries,
                http_client=make_http_client(timeout),
            )
        except Exception as error:  # a proxy that needs another package, certificates that are not there
            proxy = proxy_of(self.base_url)
            hint = f"; the environment names the proxy {proxy}" if proxy else ""
            raise self._unusable(f"{type(error).__name__}: {error}", hint) from None

    def _unusable(self, reason: str, hint: str = "") -> PermanentError:
        return PermanentError(self.line(reason, hint), concerns_all=True)

    async def ask(
        self, resource: str, required: Mapping[str, Any], parameters: Mapping[str, Any], *, max_bytes: int
    ) -> bytes:
        """The body of an answer. The arguments are those of `open`.

        Args:
            max_bytes: longest body that is read.

        Raises:
            EngineError: there is none; a PermanentError if asking again cannot help.
        """
        body = bytearray()
        # The body is read in pieces, so that an endpoint cannot fill the memory before its size is known.
        async with self.open(resource, required, parameters) as response:
            async for chunk in response.iter_bytes():
                body += chunk
                if len(body) > max_bytes:
                    raise EngineError(self.line(f"the reply is longer than {max_bytes} bytes"))
        return bytes(body)

    @asynccontextmanager
    async def open(
        self, resource: str, required: Mapping[str, Any], parameters: Mapping[str, Any]
    ) -> AsyncGenerator[Any, None]:
        """An answer whose body is read in the block; leaving the block ends the request. A parameter that the endpoint
        refuses is left out, and asked for no more.

        Args:
            resource: completions or chat.completions.
            required: arguments that the resource cannot do without, such as model and prompt.
            parameters: what else to send; None values are left out.

        Raises:
            EngineError: there is none, or it breaks off; a PermanentError if asking again cannot help.
        """
        import openai

        endpoint: Any = self.openai
        for name in resource.split("."):
            endpoint = getattr(endpoint, name)
        async with AsyncExitStack() as stack:
            try:
                response = None
                while response is None:
                    # Each round leaves out at least one more parameter, so this ends.
                    sent = self.refused.apply(parameters)
                    request = endpoint.with_streaming_response.create(**required, extra_body=dict(sent))
                    try:
                        response = await stack.enter_async_context(request)
                    except openai.APIStatusError as error:
                        refusal = Refusal.read(error.response.status_code, error.response.content)
                        if not self._learn(refusal, parameters, sent):
                            raise refusal.to_error(self.line(str(refusal), await self._find_hint(refusal))) from None
                yield response
            except EngineError:
                raise
            except openai.OpenAIError as error:  # the client has tried again by itself
                raise RetriedError(self.line(self.explain(error))) from None
            except Exception as error:  # the body broke off
                raise EngineError(self.line(self.explain(error))) from None

    def _learn(self, refusal: Refusal, parameters: Mapping[str, Any], sent: Mapping[str, Any]) -> bool:
        known = self.refused.names
        names = self.refused.learn(refusal, parameters, sent)
        if self.refused.names != known:
            logger.warning(
                "relay_verl: warning: %s; from now on it is not sent %s, and its own default counts",
                self.line(str(refusal)),
                ", ".join(names),
            )
        return bool(names)

    async def within(self, pulse: Pulse, timeout_s: float, work: Coroutine[Any, Any, Result], **options: Any) -> Result:
        """What `work`, a request through this client, returns, with the pulse's deadline (`Pulse.wait`).

        Raises:
            EngineError: the deadline has passed; the message says what the last try failed with.
        """
        # openai's client swallows the errors of its retries; they are collected for this request's message
        failures: list[str] = []
        token = failures_of_tries.set(failures)
        try:
            with self._timing_out(failures):
                return await pulse.wait(timeout_s, work, **options)
        finally:
            failures_of_tries.reset(token)

    async def pieces_within(
        self, pulse: Pulse, timeout_s: float, stream: AsyncGenerator[Result, None], **options: Any
    ) -> AsyncGenerator[Result, None]:
        """`within` for an answer in pieces (`Pulse.pieces`)."""
        failures: list[str] = []

        async def noted() -> AsyncGenerator[Result, None]:
            failures_of_tries.set(failures)  # in the context of the stream's own task
            async with aclosing(stream) as pieces:
                async for piece in pieces:
                    yield piece

        with self._timing_out(failures):
            async with aclosing(pulse.pieces(timeout_s, noted(), **options)) as pieces:
                async for piece in pieces:
                    yield piece

    @contextmanager
    def _timing_out(self, failures: list[str]) -> Iterator[None]:
        try:
            yield
        except DeadlineError as error:
            last = f"; the last try: {failures[-1]}" if failures else ""
            raise EngineError(self.line(f"Timeout: {error}{last}")) from None

    async def model_names(self) -> list[str]:
        """What the endpoint says that it serves. Raises as `model_lengths`."""
        return list(await self.model_lengths())

    async def model_lengths(self) -> dict[str, int | None]:
        """What the endpoint says that it serves: the tokens of each model's context by its name, None where it does
        not say them, which vLLM does.

        Raises:
            EngineError: it is down, or does not say what it serves.
        """
        import openai

        try:
            async with asyncio.timeout(self.timeout_s):
                page = await self.openai.models.list()
            lengths = {str(model.id): getattr(model, "max_model_len", None) for model in page.data}
            return {name: length if isinstance(length, int) else None for name, length in lengths.items()}
        except openai.APIStatusError as error:
            refusal = Refusal.read(error.response.status_code, error.response.content)
            raise refusal.to_error(self.line(f"/models: {refusal}", await self._find_hint(refusal))) from None
        except EngineError:
            raise
        except TimeoutError:
            raise RetriedError(self.line(f"/models: Timeout: no answer within {self.timeout_s:g} s")) from None
        except openai.OpenAIError as error:
            raise RetriedError(self.line(f"/models: {self.explain(error)}")) from None
        except Exception as error:  # a web page, or other JSON
            raise EngineError(self.line(f"/models: the answer is not a list of models: {error}")) from None

    def line(self, reason: str, hint: str = "") -> str:
        """A message about this endpoint: one short line without the key. `hint` is never cut."""
        return f"{self.base_url}: {' '.join(self.without_key(reason).split()):.{MAX_REASON_CHARS}}{hint}"

    def without_key(self, text: str) -> str:
        """`text` with *** for the key, as endpoints quote what they are sent; half a surrogate pair becomes a `?`."""
        key, text = self.key, text.encode(errors="replace").decode()
        return text.replace(key, "***") if len(key) >= SHORTEST_KEY else text

    def explain(self, error: BaseException) -> str:
        """Why a request to this endpoint failed; a key in the text is still in it."""
        return explain_endpoint_error(error, self.base_url, proxy_of(self.base_url))

    async def _find_hint(self, refusal: Refusal) -> str:
        """What to change in an address that answers 404, as the end of a sentence; empty if that is not known."""
        if refusal.status != 404:
            return ""
        if self._hint is None:
            self._hint = await find_hint(self.base_url, self.headers, self.timeout_s)
        return self._hint
