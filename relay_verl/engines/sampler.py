"""Draws tokens from a model's logits as vLLM would under the same parameters, with transformers' own processors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from relay_verl.errors import PermanentError

_KNOWN = frozenset(
    {
        *("temperature", "top_p", "top_k", "min_p", "repetition_penalty", "bad_words", "seed"),
        *("presence_penalty", "frequency_penalty", "logprobs", "ignore_eos", "stop_token_ids"),
    }
)
_OFF = {"presence_penalty": 0.0, "frequency_penalty": 0.0}
"""Known, and only with the value that changes nothing."""


class Sampler:
    """The draws of one turn.

    Args:
        tokenizer: encodes the words that are banned.
        sampling: parameters under vLLM's names, all of NEUTRAL_SAMPLING among them.
        prompt_ids: what a repetition penalty counts, too, [prompt_length].
        device: of the logits.

    Raises:
        PermanentError: a parameter, or a value, that is not known here.
    """

    def __init__(self, tokenizer: Any, sampling: Mapping[str, Any], prompt_ids: list[int], device: Any):
        import torch
        from transformers import (
            LogitsProcessorList,
            MinPLogitsWarper,
            NoBadWordsLogitsProcessor,
            RepetitionPenaltyLogitsProcessor,
            TemperatureLogitsWarper,
            TopKLogitsWarper,
            TopPLogitsWarper,
        )

        unknown = [name for name, value in sampling.items() if name not in _KNOWN and value is not None]
        unknown += [name for name, value in _OFF.items() if sampling[name] != value]
        if unknown:
            raise PermanentError(f"sampling: {', '.join(unknown)}: not known to transformers' engine; vLLM has it")
        self._context = torch.tensor([prompt_ids], device=device)  # [1, context_length]
        self._is_greedy = sampling["temperature"] == 0
        self._generator: Any = None
        if sampling.get("seed") is not None:
            self._generator = torch.Generator(device).manual_seed(sampling["seed"])
        # in vLLM's order: what bans and penalises, the temperature, then what cuts the tail off
        self._processors = LogitsProcessorList()
        if words := sampling.get("bad_words"):
            banned = {
                tuple(tokenizer.encode(front + word, add_special_tokens=False)) for word in words for front in ("", " ")
            }
            self._processors.append(NoBadWordsLogitsProcessor([list(ids) for ids in sorted(banned)]))
        if sampling["repetition_penalty"] != 1:
            self._processors.append(RepetitionPenaltyLogitsProcessor(float(sampling["repetition_penalty"])))
        if self._is_greedy:
            return
        if sampling["temperature"] != 1:
            self._processors.append(TemperatureLogitsWarper(float(sampling["temperature"])))
        if sampling["top_k"] > 0:
            self._processors.append(TopKLogitsWarper(sampling["top_k"]))
        if sampling["top_p"] < 1:
            self._processors.append(TopPLogitsWarper(float(sampling["top_p"])))
        if sampling["min_p"] > 0:
            self._processors.append(MinPLogitsWarper(float(sampling["min_p"])))

    def draw(self, logits: Any) -> tuple[int, float]:
        """A token, and its log-probability under the model itself, as vLLM reports it.

        Args:
            logits: of the next token, [1, vocab_size].
        """
        import torch

        raw = torch.log_softmax(logits.float(), dim=-1)
        scores = self._processors(self._context, logits.float())
        if self._is_greedy:
            drawn = scores.argmax(dim=-1, keepdim=True)
        else:
            drawn = torch.multinomial(torch.softmax(scores, dim=-1), 1, generator=self._generator)  # [1, 1]
        self._context = torch.cat([self._context, drawn], dim=1)
        token_id = int(drawn)
        return token_id, float(raw[0, token_id])
