"""One of the two models of a response: asked within a deadline, its answer validated, cut and ended where it has to be.

Invariant: what `Writer.write` returns is text of the response as it stands: ids that the student has an embedding for,
at most as many as asked for, nothing behind a token that ends a response.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from relay_verl.engines.base import FinishReason, Generation, TokenEngine
from relay_verl.engines.deadlines import Pulse
from relay_verl.engines.resilience import ask_within


@dataclass(frozen=True)
class Writer:
    """A model as one response sees it."""

    name: Literal["student", "teacher"]
    """Which of the two it is, as a message calls it."""
    engine: TokenEngine
    """Whom to ask."""
    pulse: Pulse
    """The engine's signs of life, shared by all who ask it in this process."""
    timeout_s: float
    """Seconds of silence after which it fails (`relay_verl.engines.deadlines`)."""
    sampling: Mapping[str, Any]
    """Its sampling parameters under vLLM's names."""
    request_id: str
    """Names the trajectory to the engine, so that all its turns reach one replica's prefix cache."""
    end_ids: frozenset[int]
    """Ids that end a response."""
    vocab_size: int | None
    """Rows of the student's embedding; None does not check."""

    async def write(
        self, context: list[int], max_tokens: int, *, num_written: int, stop: Sequence[str] = ()
    ) -> Generation:
        """Continue `context`.

        Args:
            context: what it sees, [length].
            max_tokens: most tokens to write.
            num_written: tokens of the response so far.
            stop: strings that end its turn.

        Raises:
            EngineError: it failed, was late, or answered rubbish.
        """
        piece = await ask_within(
            self.timeout_s,
            lambda: self.engine.generate(
                context,
                max_tokens=max_tokens,
                stop=stop,
                sampling=self._seeded(num_written),
                request_id=self.request_id,
            ),
            pulse=self.pulse,
            max_tokens=max_tokens,
            writer=self.name,
            vocab_size=self.vocab_size,
        )
        # an engine that does not know all of the model's ends writes past one, or says that it was stopped
        ends = (count for count, token_id in enumerate(piece.token_ids, start=1) if token_id in self.end_ids)
        num_tokens = next(ends, None)
        if num_tokens is not None and num_tokens <= max_tokens:
            return cut(piece, num_tokens, "eos")
        # one that wrote more than it was asked for did not end where it is cut, whatever it says
        is_too_long = len(piece.token_ids) > max_tokens
        return cut(piece, max_tokens, "length") if is_too_long else piece

    def _seeded(self, num_written: int) -> Mapping[str, Any]:
        """A seed, if there is one, differs from turn to turn, or each turn would repeat the draws of the first."""
        if "seed" not in self.sampling:
            return self.sampling
        return {**self.sampling, "seed": self.sampling["seed"] + num_written}


def cut(piece: Generation, num_tokens: int, finish_reason: FinishReason) -> Generation:
    """The first `num_tokens` of `piece`."""
    logprobs = None if piece.logprobs is None else piece.logprobs[:num_tokens]
    return replace(piece, token_ids=piece.token_ids[:num_tokens], logprobs=logprobs, finish_reason=finish_reason)
