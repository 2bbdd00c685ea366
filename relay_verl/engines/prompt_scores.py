"""What a model thinks of the tokens of a text that it reads: its greedy token at each place, and the log-probability of
the token that stands there. Pure; `relay_verl.engines.scoring` asks an engine for it.

vLLM's parameter `prompt_logprobs` asks for it: 1 for the greedy tokens, 0 for those that stand there. An endpoint of
vLLM's gives both with 1; verl's server keeps what was asked for alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

PARAMETER = "prompt_logprobs"
"""vLLM's name of the request."""


@dataclass(frozen=True)
class PromptScores:
    """One model's view of a text of `length` tokens; entry t is about token t + 1, the first one that has a context."""

    best_ids: list[int] | None
    """The model's greedy token, [length - 1]; None if it was not asked for."""
    logprobs: list[float] | None
    """Log-probability of the token that stands there, [length - 1]; None if the engine did not give all of them."""


def read_verl_scores(fields: Mapping[str, Any], num_asked: int) -> PromptScores | None:
    """From the extra fields of verl's `TokenOutput`: a row for each place, and one more that means nothing.

    Args:
        fields: may have `prompt_ids` and `prompt_logprobs`, each [length, max(num_asked, 1)].
        num_asked: the parameter.

    >>> read_verl_scores({"prompt_ids": [[7], [8], [0]], "prompt_logprobs": [[-0.1], [-0.2], [0.0]]}, 1)
    PromptScores(best_ids=[7, 8], logprobs=None)
    """
    if fields.get("prompt_ids") is None or fields.get("prompt_logprobs") is None:
        return None
    ids, logprobs = fields["prompt_ids"][:-1], fields["prompt_logprobs"][:-1]
    if num_asked:
        return PromptScores([int(row[0]) for row in ids], None)
    return PromptScores(None, [float(row[0]) for row in logprobs])


def read_endpoint_scores(
    places: Sequence[Mapping[str, Mapping[str, Any]] | None] | None, prompt_ids: Sequence[int], num_asked: int
) -> PromptScores | None:
    """From `prompt_logprobs` of an answer of vLLM's endpoint.

    Args:
        places: the tokens that it names at each place, by id, with `logprob` and `rank`; None at the first.
        prompt_ids: the text, [length].
        num_asked: the parameter.

    >>> places = [None, {"7": {"logprob": -0.1, "rank": 1}, "5": {"logprob": -3.0, "rank": 9}}]
    >>> read_endpoint_scores(places, [4, 5], 1)
    PromptScores(best_ids=[7], logprobs=[-3.0])
    """
    if not places:
        return None
    named = [{int(name): entry for name, entry in (place or {}).items()} for place in places[1:]]
    best = [min((entry["rank"], token_id) for token_id, entry in place.items())[1] for place in named if num_asked]
    own = [place.get(token_id) for place, token_id in zip(named, prompt_ids[1:], strict=True)]
    logprobs = None if None in own else [float(entry["logprob"]) for entry in own if entry is not None]
    return PromptScores(best if num_asked else None, logprobs)
