"""What a run does with models is done once before it: a real row through each chat template, a real completion of each
endpoint, with the parameters that will be sent.

Training, `filter`, `warmup-data`, `eval` and `bench` say what they will do as a `Trial`, and `TRIAL` is the list of
checks for all of them.

Invariants: a completion is asked through the engine that will serve, `relay_verl.models.launch.open_endpoint`, and is
over within `COMPLETION_DEADLINE_S`; nothing is tried that costs more than a few tokens.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from relay_verl.config import TeacherSettings
from relay_verl.engines.base import Generation, open_engine
from relay_verl.engines.boundary import ask_within
from relay_verl.engines.deadlines import DeadlineError, pulse_of, run_within
from relay_verl.engines.text_bridge import TextBridge
from relay_verl.errors import EngineError, PermanentError, UserError, as_user_error
from relay_verl.messages import text_of
from relay_verl.models.launch import open_endpoint
from relay_verl.preflight.check import Check, CheckWarning
from relay_verl.preflight.rows import TrialRow
from relay_verl.tokenization import chat_ids, encode_within

SILENCE_S = 6.0
"""Seconds without a sign of life after which an endpoint counts as one that does not answer."""
COMPLETION_DEADLINE_S = 10.0
"""Seconds after which a completion is no longer waited for, though its endpoint is alive."""
WRITTEN = "Let me work it out step by step."
"""What a chat API has to continue in a trial call."""
NUM_TOKENS = 16
"""Tokens of a trial completion."""
REFUSAL_S = 1.0
"""Seconds that an endpoint has to refuse the longest request that will be sent; it is cancelled then."""


@dataclass(frozen=True)
class Reader:
    """A chat template that will write prompts."""

    name: str
    """What messages call it, with the key that chose it."""
    tokenizer: Any
    """Has the template."""
    template: Mapping[str, Any] = field(default_factory=dict)
    """Further arguments of the template."""
    fix: str = "give a model whose template takes them"
    """What helps if the template refuses a row."""
    data_sources: tuple[str, ...] | None = None
    """Of the rows that it will be given; None for all."""
    end_ids: frozenset[int] = frozenset()
    """What else than its end-of-sequence token ends a text."""

    def reads(self, row: TrialRow) -> bool:
        """Whether it will be given this row."""
        return self.data_sources is None or row.data_source in self.data_sources


@dataclass(frozen=True)
class Wording:
    """Parameters of one kind of request."""

    sampling: Mapping[str, Any]
    """Under vLLM's names, with a seed if there will be one."""
    max_tokens: int
    """Most that such a request asks for."""
    stop: tuple[str, ...] = ()
    """Strings that end it."""
    is_call: bool = False
    """Whether a part of the response is written when it is sent."""

    def __str__(self) -> str:
        sent = {"max_tokens": self.max_tokens, **({"stop": list(self.stop)} if self.stop else {}), **self.sampling}
        return ", ".join(f"{name}={value}" for name, value in sent.items())


@dataclass(frozen=True)
class Request:
    """What an endpoint will be asked."""

    name: str
    """The endpoint, with the key that chose it."""
    settings: TeacherSettings
    """Its address, and how it is asked."""
    reader: Reader
    """Whose ids it is given, and gives back."""
    wordings: Sequence[Wording]
    """Every kind of request that will be sent."""
    vocab_size: int | None = None
    """Ids at or above this mean nothing to who reads the answer; None: not known."""
    bridge: Reader | None = None
    """The endpoint's own tokenizer, behind a text bridge."""


@dataclass(frozen=True)
class Trial:
    """What a run will do with models."""

    rows: Sequence[TrialRow]
    """Some of its rows; empty where they are not on this machine."""
    readers: Sequence[Reader] = ()
    """Every chat template that will be used."""
    requests: Sequence[Request] = ()
    """What endpoints will be asked; a model that is started here is asked when it is up."""


def check_prompts(trial: Trial) -> CheckWarning | str:
    """Each chat template takes the rows that it will be given, and writes the question.

    Raises:
        UserError: one does not; names the row and the template.
    """
    warnings, num_prompts = [], 0
    for reader in trial.readers:
        for row in filter(reader.reads, trial.rows):
            num_prompts += 1
            if not _holds_question(_write_prompt(reader, row), row):
                warnings.append(
                    f"{row.place}: the prompt that {reader.name} writes does not hold the question as it stands"
                )
    return (
        CheckWarning("; ".join(warnings))
        if warnings
        else f"{num_prompts} written by {len(trial.readers)} chat templates"
    )


def _write_prompt(reader: Reader, row: TrialRow) -> str:
    """The prompt as text.

    Raises:
        UserError: the template refuses the row, or writes nothing.
    """
    with as_user_error(
        Exception,  # a template is a program of the model's authors
        lambda error: (
            f"{row.place}: the chat template of {reader.name} does not take its roles "
            f"{', '.join(row.roles)}: {type(error).__name__}: {' '.join(str(error).split()):.200}; {reader.fix}"
        ),
    ):
        ids = chat_ids(reader.tokenizer, row.messages, reader.template)
        text = str(reader.tokenizer.decode(ids))
    if not ids:
        raise UserError(f"{row.place}: the chat template of {reader.name} writes an empty prompt; {reader.fix}")
    return text


def _holds_question(prompt: str, row: TrialRow) -> bool:
    """Whether the last message is in the prompt; blanks do not count."""
    return "".join(text_of(row.messages[-1]["content"]).split()) in "".join(prompt.split())


def check_completions(trial: Trial) -> CheckWarning | str:
    """Each endpoint completes a real prompt, with all parameters that will be sent, and its answer can be read.

    Raises:
        UserError: one does not; names the endpoint, what was sent, and what came.
    """
    if not trial.requests:
        return "no endpoint"
    warnings = asyncio.run(_complete_all(trial))
    names = ", ".join(request.name for request in trial.requests)
    return CheckWarning("; ".join(warnings)) if warnings else f"{names} answered"


async def _complete_all(trial: Trial) -> list[str]:
    """All requests side by side; gives the warnings.

    Raises:
        UserError: the first one that failed, in their order.
    """
    trials = [_complete(request, wording, trial) for request in trial.requests for wording in request.wordings]
    outcomes = await asyncio.gather(*trials, return_exceptions=True)
    for outcome in outcomes:
        if isinstance(outcome, BaseException):
            raise outcome
    return [outcome for outcome in outcomes if isinstance(outcome, str) and outcome]


async def _complete(request: Request, wording: Wording, trial: Trial) -> str:
    """One completion; gives a warning, or an empty text.

    Raises:
        UserError: it failed.
    """
    row = next(filter(request.reader.reads, trial.rows), _ANY_ROW)
    tokenizer = request.reader.tokenizer
    prompt_ids = chat_ids(tokenizer, row.messages, request.reader.template)
    # a chat API has to continue what is written, which it may refuse; to whoever reads ids a context is a context
    written = encode_within(tokenizer, WRITTEN) if request.settings.reads_messages and wording.is_call else []
    quick = replace(request.settings, timeout_s=min(request.settings.timeout_s, SILENCE_S), num_retries=0)
    engine = open_engine(open_endpoint(quick, tokenizer, request.reader.template), row.messages, len(prompt_ids))
    if request.bridge is not None:
        reader = request.bridge
        bridge = TextBridge(engine, reader.tokenizer, tokenizer, reader.template, reader.end_ids)
        engine = bridge.open(row.messages, len(prompt_ids))

    def ask(max_tokens: int) -> Awaitable[Generation]:
        return ask_within(
            quick.timeout_s,
            lambda: engine.generate(
                prompt_ids + written,
                max_tokens=max_tokens,
                stop=wording.stop,
                sampling=wording.sampling,
                request_id="trial",
            ),
            pulse=pulse_of(engine),
            max_tokens=max_tokens,
        )

    short = min(wording.max_tokens, NUM_TOKENS)
    # The longest request is sent too, and cancelled once the short one is answered: an endpoint whose context is too
    # small for it refuses it at once. A chat API may bill it as a whole.
    is_longer = short < wording.max_tokens and not request.settings.reads_messages
    longest = asyncio.ensure_future(ask(wording.max_tokens)) if is_longer else None
    try:
        answer = await run_within(COMPLETION_DEADLINE_S, _awaited(ask(short)))
        if longest is not None:
            await asyncio.wait({longest}, timeout=REFUSAL_S)
            if longest.done():
                longest.result()
    except DeadlineError:
        return (
            f"{request.name} is alive, but a completion of {short} tokens did not come within "
            f"{COMPLETION_DEADLINE_S:g} s: it has much to do, and calls will wait"
        )
    except EngineError as error:
        reason = " ".join(str(error).split())
        if _is_overloaded(error):
            return f"{request.name} refuses a completion for now, and calls will be tried again: {reason:.200}"
        if isinstance(error, PermanentError) and not error.concerns_all and row is not _ANY_ROW:
            # it may be this row alone, such as for its length: one query never keeps a job from beginning
            others = await _complete(request, wording, replace(trial, rows=()))
            refusal = f"{request.name} refuses {row.place}, which will have no answer: {reason:.200}"
            return f"{refusal}; {others}" if others else refusal
        raise UserError(
            f"{request.name}: a completion as it will be asked fails: {reason:.300}; sent: {wording}"
        ) from None
    finally:
        if longest is not None:
            longest.cancel()
            await asyncio.gather(longest, return_exceptions=True)
    _check_answer(request, wording, answer)
    if answer.billed is not None and answer.billed.num_output > short:
        return (
            f"{request.name} bills {answer.billed.num_output} tokens for an answer of at most {short}, such as for "
            "hidden reasoning: reports and the reward by price count what it bills"
        )
    return ""


def _is_overloaded(error: BaseException | None) -> bool:
    """Whether an endpoint says that it has too much to do, which passes; the status is on one of the causes."""
    while error is not None:
        if getattr(error, "status_code", None) in (429, 503):
            return True
        error = error.__cause__ or error.__context__
    return False


async def _awaited(answer: Awaitable[Generation]) -> Generation:
    return await answer


_ANY_ROW = TrialRow("a question of our own", [{"role": "user", "content": "What is 7*8?"}])


def _check_answer(request: Request, wording: Wording, answer: Generation) -> None:
    """The answer has tokens, and the reader's model has all of them.

    Raises:
        UserError: it has none, or one that is not of the vocabulary.
    """
    if not answer.token_ids and answer.finish_reason != "stop":
        raise UserError(f"{request.name}: a completion as it will be asked has no token; sent: {wording}")
    largest = max(answer.token_ids, default=0)
    if request.vocab_size is not None and largest >= request.vocab_size:
        raise UserError(
            f"{request.name}: answers token id {largest}, but the vocabulary of {request.reader.name} has "
            f"{request.vocab_size} ids: it serves a model of another vocabulary; text_bridge=true passes text between "
            "them"
        )


TRIAL = (
    Check("prompts", check_prompts),
    Check("endpoints' answers", check_completions, after=("prompts",)),
)
"""Of a `Trial`."""
