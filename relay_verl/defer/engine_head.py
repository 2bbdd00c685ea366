"""What a student's engine is told of its head, and the head as the engine asks it.

`EngineHead` is the same for every engine: to vLLM it travels in `hf_overrides`, which become attributes of the model's
configuration in each of its processes, and transformers' engine is given the object.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from relay_verl.defer.head_info import HeadInfo
from relay_verl.deferral import Deferral

if TYPE_CHECKING:
    from relay_verl.defer.heads import DeferHead

PROCESSOR = "relay_verl.defer.vllm_processor:DeferProcessor"
"""vLLM's name for what compares scores with thresholds (`--logits-processors`)."""
OFFSET = 64.0
"""What is taken from a score in its column, so that it weighs nothing in the log-probabilities that the engine reports;
float32 keeps five digits of the score."""
PREFIX = "Relay"
ARCHITECTURES = ("LlamaForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM")
"""Model classes that have one with a head, called `RelayLlamaForCausalLM` and so on (`vllm_models`)."""
FOLDER_KEY, ID_KEY, STARTS_KEY = "relay_defer_head", "relay_defer_id", "relay_defer_starts"
"""Attributes of the model's configuration."""


@dataclass(frozen=True)
class EngineHead:
    """A head, checked against its student (`relay_verl.models.deferring.read_engine_head`)."""

    folder: str
    """Of the head; absolute, and there on every node that runs a student."""
    architecture: str
    """The student's model class, one of `ARCHITECTURES`."""
    token_id: int
    """The reserved id."""
    info: HeadInfo
    """Its description."""
    step_ends: tuple[int, ...] | None = None
    """Ids behind which the head is asked; None asks it everywhere."""

    def deferral(self, num_tokens: int) -> Deferral:
        """What the decoder knows of it; `num_tokens` teacher tokens each time."""
        return Deferral(self.token_id, self.info.threshold, num_tokens)

    def overrides(self) -> dict[str, Any]:
        """vLLM's `hf_overrides`."""
        starts = {} if self.step_ends is None else {STARTS_KEY: list(self.step_ends)}
        return {"architectures": [PREFIX + self.architecture], FOLDER_KEY: self.folder, ID_KEY: self.token_id, **starts}

    def engine_options(self) -> dict[str, str]:
        """Options of a vLLM engine, as texts of its command line."""
        return {"hf_overrides": json.dumps(self.overrides()), "logits_processors": PROCESSOR}

    def arguments(self) -> tuple[str, ...]:
        """The same for the command line of `vllm serve`."""
        options = self.engine_options().items()
        return tuple(word for name, value in options for word in (f"--{name.replace('_', '-')}", value))

    def load(self) -> DeferHead:
        """The head itself, for inference."""
        from relay_verl.defer.head_folder import load_head

        return load_head(self.folder)[0].for_inference()


def begins_step(step_ends: frozenset[int] | None, prompt_ids: Sequence[int], output_ids: Sequence[int]) -> bool:
    """Whether the head is asked for the token behind these.

    >>> begins_step(frozenset({7}), [1, 7], []), begins_step(frozenset({7}), [1, 7], [2]), begins_step(None, [1], [])
    (True, False, True)
    """
    return step_ends is None or (output_ids or prompt_ids or [-1])[-1] in step_ends
