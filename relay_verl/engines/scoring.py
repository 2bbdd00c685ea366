"""Asks an engine what it thinks of a text, in one prefill where the engine says all of it at once, else in two."""

from __future__ import annotations

from dataclasses import replace

from relay_verl.engines.base import TokenEngine
from relay_verl.engines.boundary import ask_within
from relay_verl.engines.deadlines import pulse_of
from relay_verl.engines.prompt_scores import PARAMETER, PromptScores
from relay_verl.errors import EngineError, PermanentError


async def score_prompt(
    engine: TokenEngine, token_ids: list[int], *, wants_logprobs: bool, timeout_s: float, writer: str = "engine"
) -> PromptScores:
    """The engine's greedy tokens along a text, and the log-probabilities of its own tokens if they are wanted.

    Args:
        engine: of the model.
        token_ids: the text, [length], which has to leave room for one more token in the model's context.
        wants_logprobs: whether `PromptScores.logprobs` is needed; verl's server then reads the text twice.
        timeout_s: seconds without a sign of life of the engine after which it fails.
        writer: what a message calls the engine.

    Raises:
        PermanentError: the engine cannot say it, or refuses the text.
        EngineError: it failed, was late, or its answer is not of this text.
    """

    async def ask(num_asked: int) -> PromptScores:
        generation = await ask_within(
            timeout_s,
            lambda: engine.generate(token_ids, max_tokens=1, sampling={"temperature": 0.0, PARAMETER: num_asked}),
            pulse=pulse_of(engine),
            writer=writer,
        )
        if generation.prompt is None:
            raise PermanentError(
                f"the {writer}'s engine gives no {PARAMETER}; vLLM's do, and transformers' in this process",
                concerns_all=True,
            )
        for row in (generation.prompt.best_ids, generation.prompt.logprobs):
            if row is not None and len(row) != len(token_ids) - 1:
                raise EngineError(f"the {writer} answered {len(row)} scores for {len(token_ids)} tokens")
        return generation.prompt

    scores = await ask(1)
    if wants_logprobs and scores.logprobs is None:
        scores = replace(scores, logprobs=(await ask(0)).logprobs)
    return scores
