"""The one thing the decoder asks of a model: token ids in, token ids out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
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
class Billed:
    """What a server bills for one request, in tokens of its own tokenizer."""

    num_input: int
    """Tokens read, those of its cache included."""
    num_output: int
    """Tokens written, with those that no one is shown, such as reasoning."""


@dataclass(frozen=True)
class Generation:
    """What an engine wrote in one go."""

    token_ids: list[int]
    """Sampled ids, [length]; they end with the token that completes the stop string, or with the EOS."""
    logprobs: list[float] | None
    """Log-probability of each id, [length], if asked for."""
    finish_reason: FinishReason
    """'stop': a stop string; 'eos': an end-of-sequence token; 'length': `max_tokens` or the context is full."""
    num_cached: int | None = None
    """Tokens of the context that the engine's prefix cache held; None if it does not say."""
    billed: Billed | None = None
    """What it cost, where that is not the context and the tokens above: an engine that counts other tokens, or hidden
    ones."""

    @property
    def num_billed_tokens(self) -> int:
        """Tokens that count as written."""
        return len(self.token_ids) if self.billed is None else self.billed.num_output


class TokenEngine(Protocol):
    """A model that continues token ids.

    Three attributes are optional: `pulse` (`relay_verl.engines.deadlines.Pulse`), by which deadlines of all who ask
    follow the engine's load; `async load()` (`relay_verl.engines.load.EngineLoad` or None), which tells how far it is;
    and `open(messages, num_prompt_tokens)` of an engine that reads a chat and not its ids, see `open_engine`.
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


def open_engine(engine: Any, messages: Iterable[Mapping[str, Any]], num_prompt_tokens: int) -> TokenEngine:
    """Who writes one response: the engine itself, or what an engine that reads a chat opens for it.

    Args:
        engine: of all responses; a TokenEngine, or something else that `open` makes one of.
        messages: the chat that the response answers.
        num_prompt_tokens: how many ids of a context stand for that chat.
    """
    opening = getattr(engine, "open", None)
    opened: TokenEngine = engine if opening is None else opening(messages, num_prompt_tokens)
    return opened
