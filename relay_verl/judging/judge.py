"""A second opinion on answers: an LLM behind an OpenAI-compatible endpoint says Yes or No (paper 4.2, C.2).

The paper's judge is GPT-4o-mini at temperature 0.1, which is given the answer and the ground truth; the prompt is ours
(`relay_verl.judging.prompt`).

Invariant: `Judge.judge` returns a JudgeText within its deadline, which follows the load
(`relay_verl.engines.deadlines`), whatever the endpoint does, and the key is in none of our objects, texts and files.

Right and wrong answers are judged alike: nothing here knows the rule's verdict (the authors' release asks about wrong
ones only). An answer that says nothing, or a response without a box, is wrong without being asked about: a departure,
see `relay_verl.traces.verdicts`.
"""

from __future__ import annotations

import asyncio
import hashlib
from typing import Any

from pydantic import TypeAdapter, ValidationError
from typing_extensions import TypedDict

from relay_verl.config import check_endpoint
from relay_verl.engines.client import EndpointClient
from relay_verl.engines.deadlines import Pulse
from relay_verl.engines.resilience import Breaker, retrying
from relay_verl.errors import EngineError, UserError
from relay_verl.judging.answer_judge import AnswerJudge
from relay_verl.judging.prompt import MESSAGE, RULES, make_messages, read_verdict, says_something
from relay_verl.traces.records import UNCLEAR_REPLY, JudgeText

API_KEY_ENV = "RELAY_JUDGE_API_KEY"
"""Environment variable that holds the endpoint's key, if it wants one."""

MAX_REPLY_TOKENS = 2048
"""Most tokens a judge writes; one that thinks aloud needs more than a word."""
MAX_REPLY_CHARS = 4096
"""Longest end of a reply that is kept, in characters."""
MAX_BODY_BYTES = 1 << 18
"""Longest body of an HTTP answer that is read."""


class _Message(TypedDict):
    content: str | None


class _Choice(TypedDict):
    message: _Message


class _Completion(TypedDict):
    choices: list[_Choice]


_COMPLETION = TypeAdapter(_Completion)


class Judge(AnswerJudge):
    """Asks a model behind `/v1/chat/completions` whether answers are right.

    `relay_verl.engines.client` asks. The object can be sent to a Ray worker and holds no secret; it may be used from
    one event loop after another.

    Args:
        base_url: such as https://api.openai.com/v1.
        model: the model's name there, such as gpt-4o-mini.
        api_key_env: environment variable that holds the key.
        temperature: sampling temperature; the paper's.
        timeout_s: seconds of the endpoint's silence after which a verdict fails, retries included. An endpoint that
            answers other requests is not silent: one with a long queue is not late.
        num_retries: further tries after a failed one, with exponential backoff, or after what the endpoint asks for.
        breaker_threshold: verdicts in a row that fail for good, after which they fail at once ...
        breaker_reset_s: ... until this many seconds have passed and one is let through to try.
        first_wait_s: seconds before an answer that is not a reply is asked for again; doubles each time, with jitter.

    Raises:
        UserError: `base_url` is not an address.
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
        check_endpoint("judge", base_url, api_key_env)
        self.base_url = base_url
        self.model = model
        self._temperature = temperature
        self._timeout_s = timeout_s
        self._num_retries = num_retries
        self._first_wait_s = first_wait_s
        self._client = EndpointClient(base_url, api_key_env=api_key_env, timeout_s=timeout_s, num_retries=num_retries)
        self._breaker = Breaker(breaker_threshold, breaker_reset_s)
        self._pulse = Pulse()

    @property
    def spec(self) -> dict[str, Any]:
        """What decides its verdicts, as JSON, for a manifest."""
        prompt = hashlib.sha256(f"{RULES}\0{MESSAGE}".encode()).hexdigest()
        where = {"base_url": self.base_url, "model": self.model}
        return {**where, "temperature": self._temperature, "prompt_sha256": prompt}

    async def ask(self, question: str, answer: str | None, ground_truth: str) -> JudgeText:
        """Whether `answer` means the same as `ground_truth`. Never hangs.

        Args:
            question: as text.
            answer: the final answer without commands, of which MAX_ANSWER_CHARS are shown; None if there is none.
            ground_truth: the right answer.

        Raises:
            PermanentError: the endpoint refuses the question for good.
            EngineError: the endpoint gave no reply; the one-line message does not hold the key.
        """
        if answer is None or not says_something(answer):
            return nothing_to_judge()
        with self._breaker.calling():
            reply = await self._try(question, answer, ground_truth)
        verdict = read_verdict(reply)
        error = "" if verdict is not None else UNCLEAR_REPLY
        return {"is_correct": verdict, "reply": reply[-MAX_REPLY_CHARS:], "error": error}

    async def check(self) -> None:
        """Put two answers to the judge whose verdicts are known.

        Raises:
            UserError: the endpoint does not answer or does not serve the model, or a verdict is not the right one.
        """
        for answer, wanted in (("2", True), ("3", False)):
            try:
                reply = await self._try("What is 1 + 1?", answer, "2")
            except EngineError as error:
                raise UserError(f"judge {self.model!r}: {error}{await self._other_models()}") from None
            if read_verdict(reply) is not wanted:
                raise UserError(
                    f"judge {self.model!r} at {self.base_url}: to 1 + 1 = {answer} it replied {reply!r:.80}; "
                    f"a judge replies {'Yes' if wanted else 'No'}"
                )

    async def _try(self, question: str, answer: str, ground_truth: str) -> str:
        """The reply, within the deadline."""
        messages = make_messages(question, answer, ground_truth)
        tries = retrying(self._num_retries, self._first_wait_s)
        return await self._client.within(self._pulse, self._timeout_s, tries(self._request, messages))

    async def _request(self, messages: list[dict[str, str]]) -> str:
        """The reply to one request."""
        parameters = {
            "temperature": self._temperature,
            "top_p": 1.0,  # or the file of a model that vLLM serves decides; the API has no word for top_k
            "max_tokens": MAX_REPLY_TOKENS,
        }
        required = {"model": self.model, "messages": messages}
        body = await self._client.ask("chat.completions", required, parameters, max_bytes=MAX_BODY_BYTES)
        try:
            choices = _COMPLETION.validate_json(body)["choices"]
        except ValidationError as error:
            raise EngineError(self._client.line(f"no chat completion: {error.errors()[0]['msg']}")) from None
        if not choices:
            raise EngineError(self._client.line("no chat completion: it has no choice"))
        return self._client.without_key(choices[0]["message"]["content"] or "")

    async def _other_models(self) -> str:
        """What the endpoint serves, as the end of a sentence; empty if it serves the model or does not say."""
        try:
            async with asyncio.timeout(min(self._timeout_s, 10.0)):
                names = await self._client.model_names()
        except (EngineError, TimeoutError):  # this is about another error, which it must not hide
            return ""
        if not names or self.model in names:
            return ""
        return f"; it serves {self._client.without_key(', '.join(names)):.300}"


def nothing_to_judge() -> JudgeText:
    """The verdict on a response without an answer, for which no judge is asked: it is wrong."""
    return {"is_correct": False, "reply": "", "error": "no answer to judge"}


def make_judge(base_url: str | None, model: str | None) -> Judge | None:
    """The judge that a command line names; None if it names none.

    Raises:
        UserError: one is given without the other, or is not an address or a name.
    """
    if base_url is None and model is None:
        return None
    if base_url is None:
        raise UserError(f"judge: model {model!r} is given without an address, such as https://api.openai.com/v1")
    check_endpoint("judge", base_url, API_KEY_ENV)
    if model is None or not model.strip():
        raise UserError(f"judge: {base_url} is given without a model, such as gpt-4o-mini")
    return Judge(base_url, model.strip())
