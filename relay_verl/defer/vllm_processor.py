"""Compares the scores that `vllm_models` writes with each request's threshold, in vLLM's sampler.

Where the score is below the threshold, the reserved id is all that can be sampled; elsewhere, and in requests without a
threshold, it cannot be sampled. Works on the logits of one step, [batch, vocab_size], a row a request.

vLLM applies it behind allowed ids, bad words and grammars, and before penalties and temperature. What masks the column
before it would read as a score, so a request cannot have both. It forgoes vLLM's newer model runner, which has no such
processors.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from vllm import SamplingParams
from vllm.config import VllmConfig
from vllm.v1.sample.logits_processor import BatchUpdate, LogitsProcessor
from vllm.v1.sample.logits_processor.builtin import process_dict_updates

from relay_verl.defer.engine_head import ID_KEY, OFFSET, PROCESSOR, STARTS_KEY, begins_step
from relay_verl.deferral import MAX_THRESHOLD, THRESHOLD_ARG


class _Asked(NamedTuple):
    """A request that asks the head."""

    threshold: float
    prompt_ids: list[int]
    output_ids: list[int]
    """vLLM's own list, which grows."""


class DeferProcessor(LogitsProcessor):
    """vLLM makes one in each worker."""

    @classmethod
    def validate_params(cls, sampling_params: SamplingParams) -> None:
        """Refuse a threshold out of range, and what would mask the score. Raises ValueError: HTTP 400."""
        threshold = _threshold_of(sampling_params)
        if threshold is None:
            return
        if isinstance(threshold, bool) or not isinstance(threshold, (int, float)) or not 0 <= threshold < MAX_THRESHOLD:
            raise ValueError(
                f"{THRESHOLD_ARG}: {threshold!r}: expected a number of at least 0, below {MAX_THRESHOLD:g}"
            )
        masks = ("allowed_token_ids", "structured_outputs", "min_tokens")
        if masking := [name for name in masks if getattr(sampling_params, name, None)]:
            raise ValueError(f"{THRESHOLD_ARG}: not with {', '.join(masking)}")

    def __init__(self, vllm_config: VllmConfig, device: torch.device, is_pin_memory: bool):
        config = vllm_config.model_config.hf_config
        token_id = getattr(config, ID_KEY, None)
        if token_id is None:
            raise ValueError(f"{PROCESSOR}: the model's class has no defer head: hf_overrides has no {ID_KEY}")
        self._token_id: int = token_id
        starts = getattr(config, STARTS_KEY, None)
        self._step_ends = None if starts is None else frozenset(starts)
        self._device = device
        self._asked: dict[int, _Asked] = {}  # by row
        self._thresholds: torch.Tensor | None = None  # [batch]

    def is_argmax_invariant(self) -> bool:
        """It decides also what is greedy."""
        return False

    def update_state(self, batch_update: BatchUpdate | None) -> None:
        """See vLLM's."""
        if process_dict_updates(self._asked, batch_update, _read):
            self._thresholds = None

    def apply(self, logits: torch.Tensor) -> torch.Tensor:
        """Mask the reserved id, or all but it."""
        column = logits[:, self._token_id]
        if not self._asked:
            column.fill_(-torch.inf)
            return logits
        is_deferred = column < self._current_thresholds(len(logits))  # [batch]
        logits.masked_fill_(is_deferred.unsqueeze(1), -torch.inf)
        column.copy_(torch.where(is_deferred, 0.0, -torch.inf))
        return logits

    def _current_thresholds(self, num_rows: int) -> torch.Tensor:
        """Of each row; below every score where the head is not asked."""
        is_fixed = self._step_ends is None
        if self._thresholds is None or len(self._thresholds) != num_rows or not is_fixed:
            thresholds = [-torch.inf] * num_rows  # as the scores are in their column
            for row, asked in self._asked.items():
                if begins_step(self._step_ends, asked.prompt_ids, asked.output_ids):
                    thresholds[row] = asked.threshold - OFFSET
            self._thresholds = torch.tensor(thresholds, dtype=torch.float32).to(self._device, non_blocking=True)
        return self._thresholds


def _threshold_of(params: SamplingParams) -> Any:
    return (params.extra_args or {}).get(THRESHOLD_ARG)


def _read(params: SamplingParams, prompt_ids: list[int] | None, output_ids: list[int]) -> _Asked | None:
    """A new request as this processor keeps it; None if it asks no head."""
    threshold = _threshold_of(params)
    return None if threshold is None else _Asked(float(threshold), prompt_ids or [], output_ids)
