"""The one thing the decoder asks of a model: token ids in, token ids out."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from relay_verl.engines.prompt_scores import PromptScores
from relay_verl.errors import UserError

FinishReason = Literal["stop", "length", "eos"]


NEUTRAL_SAMPLING: Mapping[str, Any] = {
    "temperature": 1.0,
    "top_p": 1.0,
    "top_k": -1,
    "min_p": 0.0,
    "repetition_penalty": 1.0,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
}
"""Plain sampling from the model's distribution, under vLLM's names. An adapter sends all of these with every request,
so that a server's own defaults (a model's generation_config, a rollout's repetition_penalty) never decide."""


@dataclass(frozen=True)
class Billed:
    """What a server bills for one request, in tokens of its own tokenizer."""

    num_input: int
    """Tokens read, those of its cache included."""
    num_output: int
    """Tokens written, with those that no one is shown, such as reasoning."""


@dataclass(frozen=True)
class Generation:
    """What an engine wrote: a whole answer, or a piece of one that it streams."""

    token_ids: list[int]
    """Sampled ids, [length]; they end with the token that completes the stop string, or with the EOS."""
    logprobs: list[float] | None
    """Log-probability of each id, [length], if asked for."""
    finish_reason: FinishReason | None
    """'stop': a stop string; 'eos': an end-of-sequence token; 'length': `max_tokens` or the context is full; None: more
    pieces follow."""
    num_cached: int | None = None
    """Tokens of the context that the engine's prefix cache held; None if it does not say."""
    cache_block: int | None = None
    """Tokens of a block of that cache, which holds whole blocks alone; None if it does not say."""
    billed: Billed | None = None
    """What it cost, where that is not the context and the tokens above: an engine that counts other tokens, or hidden
    ones. The last piece of a stream has it."""
    prompt: PromptScores | None = None
    """What the model thinks of the context's tokens, if `prompt_logprobs` of the sampling asks for it and the engine
    can say it."""
    top_logprobs: list[list[float]] | None = None
    """Log-probabilities of the k likeliest tokens at each place, the largest first, and of the sampled one if it is not
    among them, [length, k or k + 1], for `logprobs: k` in the sampling; None where the engine has none. Endpoints do.
    """

    @property
    def num_billed_tokens(self) -> int:
        """Tokens that count as written."""
        return len(self.token_ids) if self.billed is None else self.billed.num_output


class TokenEngine(Protocol):
    """A model that continues token ids.

    Five attributes are optional: `stream` (see `StreamingEngine`); `pulse` (`relay_verl.engines.deadlines.Pulse`), by
    which deadlines of all who ask follow the engine's load; `stream_timeout_s`, the seconds of silence that streams
    bear which keep the deadline of that pulse by themselves; `async load()` (`relay_verl.engines.load.EngineLoad` or
    None), which tells how far it is; and `open(messages, num_prompt_tokens)` of an engine that reads a chat and not its
    ids, see `open_engine`.
    """

    async def generate(
        self,
        prompt_ids: list[int],
        *,
        max_tokens: int,
        stop: Sequence[str] = (),
        sampling: Mapping[str, Any] = {},
        request_id: str | None = None,
    ) -> Generation:
        """Continue `prompt_ids`.

        Args:
            prompt_ids: the context, [prompt_length].
            max_tokens: most tokens to write, at least 1.
            stop: strings that end the generation once written.
            sampling: parameters under vLLM's names (temperature, top_p, bad_words, logprobs ...); what it leaves out is
                NEUTRAL_SAMPLING's. `logprobs` is True, or the number of likeliest tokens at each place.
            request_id: equal for all turns of one trajectory, so that a replica's prefix cache serves them.

        Raises:
            EngineError: the engine could not answer.
        """
        ...


class StreamingEngine(TokenEngine, Protocol):
    """An engine that can also give an answer while it is being written."""

    def stream(
        self,
        prompt_ids: list[int],
        *,
        max_tokens: int,
        stop: Sequence[str] = (),
        sampling: Mapping[str, Any] = {},
        request_id: str | None = None,
    ) -> AsyncGenerator[Generation, None]:
        """`generate`, piece by piece: the pieces joined are the answer, and the last one alone has a `finish_reason`.

        An async generator: closing it (`aclose`) ends the request.

        Raises:
            EngineError: the engine could not answer; pieces may have come before.
        """
        ...


def stream_of(engine: Any) -> Callable[..., AsyncGenerator[Generation, None]] | None:
    """The engine's `stream`; None if it cannot stream."""
    stream = getattr(engine, "stream", None)
    return stream if callable(stream) else None


def open_engine(engine: Any, messages: Iterable[Mapping[str, Any]], num_prompt_tokens: int) -> TokenEngine:
    """Who writes one response: the engine itself, or what an engine that reads a chat opens for it.

    Args:
        engine: of all responses; a TokenEngine, or something else that `open` makes one of.
        messages: the chat that the response answers.
        num_prompt_tokens: how many ids of a context stand for that chat.
    """
    opened: TokenEngine = engine.open(messages, num_prompt_tokens) if reads_chat(engine) else engine
    return opened


def reads_chat(engine: Any) -> bool:
    """Whether each response opens it with its chat (`open_engine`)."""
    return callable(getattr(engine, "open", None))


def check_reads_ids(role: str, engine: TokenEngine | None) -> None:
    """A model that is served, or written with in Python, reads token ids.

    Raises:
        UserError: the engine reads a chat.
    """
    if reads_chat(engine):
        raise UserError(
            f"{role}: {type(engine).__name__} reads a chat and not token ids; a chat API can be the teacher in "
            "training, filter and eval (relay.teacher.api=chat) alone"
        )
