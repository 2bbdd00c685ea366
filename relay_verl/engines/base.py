"""The one thing the decoder asks of a model: token ids in, token ids out."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

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


class TokenEngine(Protocol):
    """A model that continues token ids.

    Three attributes are optional: `stream` (see `StreamingEngine`), `pulse` (`relay_verl.engines.deadlines.Pulse`), by
    which deadlines of all who ask follow the engine's load, and `async load()` (`relay_verl.engines.load.EngineLoad` or
    None), which tells how far it is.
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
                NEUTRAL_SAMPLING's.
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
