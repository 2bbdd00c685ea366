"""A second opinion on answers: an LLM behind an OpenAI-compatible endpoint says Yes or No (paper 4.2, C.2).

The paper's judge is GPT-4o-mini at temperature 0.1, which is given the answer and the ground truth; the prompt is ours
(`relay_verl.evaluation.judge_prompt`).

Invariant: `Judge.judge` returns a JudgeText within its deadline, which follows the load (`relay_verl.deadlines`),
whatever the endpoint does, and the key is in none of our objects, texts and files.

Right and wrong answers are judged alike: nothing here knows the rule's verdict (the authors' release asks about wrong
ones only). An answer that says nothing, or a response without a box, is wrong without being asked about: a departure,
see `relay_verl.evaluation.verdicts`.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
from collections.abc import Mapping
from typing import Any

from pydantic import TypeAdapter, ValidationError
from typing_extensions import TypedDict

from relay_verl.config import ConfigError
from relay_verl.deadlines import LONGEST_WAIT, DeadlineError, Pulse
from relay_verl.engines.base import EngineError, PermanentError
from relay_verl.engines.breaker import Breaker
from relay_verl.evaluation.judge_prompt import MESSAGE, RULES, as_utf8, make_messages, read_verdict, says_something
from relay_verl.evaluation.records import UNCLEAR_REPLY, JudgeText, refusal

API_KEY_ENV = "RELAY_JUDGE_API_KEY"
"""Environment variable that holds the endpoint's key, if it wants one."""

MAX_REPLY_TOKENS = 2048
"""Most tokens a judge writes; one that thinks aloud needs more than a word."""
MAX_REPLY_CHARS = 4096
"""Longest end of a reply that is kept, in characters."""
MAX_BODY_BYTES = 1 << 18
"""Longest body of an HTTP answer that is read."""
MAX_WAIT_S = 20.0
"""Longest wait between tries in seconds, unless the endpoint asks for a longer one."""


class _Message(TypedDict):
    content: str | None


class _Choice(TypedDict):
    message: _Message


class _Completion(TypedDict):
    choices: list[_Choice]


_COMPLETION = TypeAdapter(_Completion)


class _NoReplyError(EngineError):
    """The endpoint gave no reply; the message is one line without the key."""

    def __init__(self, reason: str, *, may_pass: bool = True, concerns_all: bool = False, wait_s: float = 0.0):
        super().__init__(reason)
        self.may_pass = may_pass
        self.concerns_all = concerns_all
        self.wait_s = wait_s


class Judge:
    """Asks a model behind `/v1/chat/completions` whether answers are right.

    The key is read from the environment when a client is made, in the process that uses it; the object itself can be
    sent to a Ray worker and holds no secret. It may be used from one event loop after another.

    Args:
        base_url: such as https://api.openai.com/v1.
        model: the model's name there, such as gpt-4o-mini.
        api_key_env: environment variable that holds the key.
        temperature: sampling temperature; the paper's.
        timeout_s: seconds of the endpoint's silence after which a verdict fails, retries included; one try fails after
            half of it. An endpoint that answers other requests is not silent: one with a long queue is not late.
        num_retries: further tries after a failed one, with exponential backoff, or after what the endpoint asks for.
        breaker_threshold: verdicts in a row that fail for good, after which they fail at once ...
        breaker_reset_s: ... until this many seconds have passed and one is let through to try.
        first_wait_s: seconds before the first retry; doubles each time, with jitter.

    Raises:
        ConfigError: `base_url` is no address.
    """

    def __init__(
        self,
        base_url: str,
        model: str,
        *,
        api_key_env: str = API_KEY_ENV,
        temperature: float = 0.1,
        timeout_s: float = 60.0,
        num_retries: int = 4,
        breaker_threshold: int = 8,
        breaker_reset_s: float = 30.0,
        first_wait_s: float = 0.5,
    ):
        _check_url(base_url)
        self.base_url = base_url
        self.model = model
        self._api_key_env = api_key_env
        self._temperature = temperature
        self._timeout_s = timeout_s
        self._num_retries = num_retries
        self._first_wait_s = first_wait_s
        self._breaker = Breaker(breaker_threshold, breaker_reset_s)
        self._pulse = Pulse()
        self._client_of_loop: tuple[Any, Any] = (None, None)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_client_of_loop": (None, None)}

    @property
    def spec(self) -> dict[str, Any]:
        """What decides its verdicts, as JSON, for a manifest."""
        prompt = hashlib.sha256(f"{RULES}\0{MESSAGE}".encode()).hexdigest()
        where = {"base_url": self.base_url, "model": self.model}
        return {**where, "temperature": self._temperature, "prompt_sha256": prompt}

    async def judge(self, question: str, answer: str | None, ground_truth: str) -> JudgeText:
        """Whether `answer` means the same as `ground_truth`. Never raises for what the endpoint does, and never hangs.

        Args:
            question: as text.
            answer: the final answer without commands, of which MAX_ANSWER_CHARS are shown; None if there is none.
            ground_truth: the right answer.
        """
        try:
            return await self.ask(question, answer, ground_truth)
        except PermanentError as error:
            return refusal(error)
        except EngineError as error:
            return {"is_correct": None, "reply": "", "error": str(error)}

    async def ask(self, question: str, answer: str | None, ground_truth: str) -> JudgeText:
        """As `judge`, for those who want to know failures from replies.

        Raises:
            PermanentError: the endpoint refuses the question for good.
            EngineError: the endpoint gave no reply; the message is one line without the key.
        """
        if answer is None or not says_something(answer):
            return {"is_correct": False, "reply": "", "error": "no answer to judge"}
        try:
            with self._breaker.calling():
                reply = await self._try(question, answer, ground_truth)
        except _NoReplyError as error:
            if error.may_pass:
                raise
            raise PermanentError(str(error), concerns_all=error.concerns_all) from None
        verdict = read_verdict(reply)
        error = "" if verdict is not None else UNCLEAR_REPLY
        return {"is_correct": verdict, "reply": reply[-MAX_REPLY_CHARS:], "error": error}

    async def check(self) -> None:
        """Put two answers to the judge whose verdicts are known.

        Raises:
            ConfigError: the endpoint does not answer or does not serve the model, or a verdict is not the right one.
        """
        for answer, wanted in (("2", True), ("3", False)):
            try:
                reply = await self._try("What is 1 + 1?", answer, "2")
            except EngineError as error:
                raise ConfigError(f"judge {self.model!r}: {error}{await self._other_models()}") from None
            if read_verdict(reply) is not wanted:
                raise ConfigError(
                    f"judge {self.model!r} at {self.base_url}: to 1 + 1 = {answer} it replied {reply!r:.80}; "
                    f"a judge replies {'Yes' if wanted else 'No'}"
                )

    async def _try(self, question: str, answer: str, ground_truth: str) -> str:
        """The reply, within the deadline."""
        from tenacity import (
            AsyncRetrying,
            retry_if_exception,
            wait_exception,
            wait_exponential_jitter,
        )

        backoff = wait_exponential_jitter(initial=self._first_wait_s, max=MAX_WAIT_S, jitter=self._first_wait_s)
        retrying = AsyncRetrying(
            stop=lambda state: state.attempt_number > self._num_retries or self._is_too_late(state),
            wait=backoff + wait_exception(lambda error: getattr(error, "wait_s", 0.0)),
            retry=retry_if_exception(lambda error: isinstance(error, _NoReplyError) and error.may_pass),
            reraise=True,
        )
        messages = make_messages(question, answer, ground_truth)
        try:
            return await self._pulse.wait(self._timeout_s, retrying(self._try_once, messages))
        except DeadlineError as error:
            raise self._no_reply(str(error)) from None

    def _is_too_late(self, state: Any) -> bool:
        """Whether the next try would begin past the deadline: then the last error says more than that would."""
        return self._pulse.silence_s(state.start_time) + float(state.upcoming_sleep) >= self._timeout_s

    async def _try_once(self, messages: list[dict[str, str]]) -> str:
        try:
            return await self._pulse.wait(self._timeout_s / 2, self._request(messages))
        except DeadlineError as error:
            raise self._no_reply(str(error)) from None

    async def _request(self, messages: list[dict[str, str]]) -> str:
        """One try."""
        import openai

        body = bytearray()
        try:
            async with self._client.chat.completions.with_streaming_response.create(
                model=self.model,
                messages=messages,
                temperature=self._temperature,
                top_p=1.0,  # or the file of a model that vLLM serves decides; the API has no word for top_k
                max_tokens=MAX_REPLY_TOKENS,
            ) as response:
                async for chunk in response.iter_bytes():
                    body += chunk
                    if len(body) > MAX_BODY_BYTES:
                        raise self._no_reply(f"the reply is longer than {MAX_BODY_BYTES} bytes")
            choices = _COMPLETION.validate_json(bytes(body))["choices"]
        except openai.APIStatusError as error:
            may_pass = error.status_code in (408, 409, 429) or error.status_code >= 500
            concerns_all = error.status_code in (401, 403, 404)
            wait_s = _retry_after(error.response.headers)
            raise self._no_reply(error.message, may_pass=may_pass, concerns_all=concerns_all, wait_s=wait_s) from None
        except ValidationError as error:
            raise self._no_reply(f"the answer is no chat completion: {error.errors()[0]['msg']}") from None
        except _NoReplyError:
            raise
        except Exception as error:  # the client wraps its HTTP library's errors only in part
            cause = error.__cause__ or error
            raise self._no_reply(f"{type(cause).__name__}: {cause}".rstrip(": ")) from None
        if not choices:
            raise self._no_reply("the answer is no chat completion: it has no choice")
        return self._without_key(choices[0]["message"]["content"] or "")

    @property
    def _client(self) -> Any:
        """The client of the running event loop: its connections belong to one loop."""
        from openai import AsyncOpenAI, Timeout

        loop, client = self._client_of_loop
        if loop is not asyncio.get_running_loop():
            key = self._key
            if not (key.isascii() and key.isprintable()):
                raise self._no_reply(
                    f"{self._api_key_env} holds characters that no key has", may_pass=False, concerns_all=True
                )
            # the client counts seconds without a byte, which a queue is full of: `_pulse` bounds tries
            timeout = Timeout(LONGEST_WAIT * self._timeout_s, connect=self._timeout_s / 2)
            client = AsyncOpenAI(base_url=self.base_url, api_key=key or "none", timeout=timeout, max_retries=0)
            self._client_of_loop = (asyncio.get_running_loop(), client)
        return client

    @property
    def _key(self) -> str:
        return os.environ.get(self._api_key_env, "").strip()

    def _without_key(self, text: str) -> str:
        """Endpoints quote what they are sent, the key too."""
        return as_utf8(text).replace(self._key, "***") if self._key else as_utf8(text)

    def _no_reply(self, reason: str, **options: Any) -> _NoReplyError:
        """The error, as one short line."""
        text = " ".join(self._without_key(reason).split())
        return _NoReplyError(f"{self.base_url}: {text:.300}", **options)

    async def _other_models(self) -> str:
        """What the endpoint serves, as the end of a sentence; empty if it serves the model or does not say."""
        try:
            async with asyncio.timeout(min(self._timeout_s, 10.0)):
                names = [str(model.id) for model in (await self._client.models.list()).data]
        except Exception:  # this is about another error, which it must not hide
            return ""
        if not names or self.model in names:
            return ""
        return f"; it serves {self._without_key(', '.join(names)):.300}"


def make_judge(base_url: str | None, model: str | None) -> Judge | None:
    """The judge that a command line names; None if it names none.

    Raises:
        ConfigError: one is given without the other, or is no address or no name.
    """
    if base_url is None and model is None:
        return None
    if base_url is None:
        raise ConfigError(f"judge: model {model!r} is given without an address, such as https://api.openai.com/v1")
    _check_url(base_url)
    if model is None or not model.strip():
        raise ConfigError(f"judge: {base_url} is given without a model, such as gpt-4o-mini")
    return Judge(base_url, model.strip())


def _retry_after(headers: Mapping[str, str]) -> float:
    """Seconds to wait that the endpoint asks for; 0.0 if it does not, or not in seconds."""
    value = headers.get("retry-after", "").strip()
    return float(value) if re.fullmatch(r"[0-9]{1,6}", value) else 0.0


def _check_url(url: str) -> None:
    import httpx

    if "@" in url or "?" in url:
        raise ConfigError(f"judge: the address holds a key or a query; a key goes in {API_KEY_ENV}")
    try:
        parts = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise ConfigError(f"judge: {url!r} is no address: {error}") from None
    if parts.scheme not in ("http", "https") or not parts.host or not 0 < (parts.port or 80) < 1 << 16:
        raise ConfigError(
            f"judge: {url!r} is no address that begins with http:// or https:// and names a host and a port that can be"
        )
