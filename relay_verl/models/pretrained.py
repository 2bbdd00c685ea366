"""Files of a model as transformers and verl read them: the one place that decides whether a model's own code runs.

Invariant: code that comes with a model runs only if the recipe says so (`actor_rollout_ref.model.trust_remote_code`).
"""

from __future__ import annotations

from typing import Any

from relay_verl.run_config import PromptSettings


def trusts(prompts: PromptSettings | None) -> bool:
    """Whether models may bring code of their own; never without a recipe."""
    return prompts is not None and prompts.trust_remote_code


def load_config(path: str, is_trusted: bool) -> Any:
    """The configuration of the model at a folder or hub id. Raises what transformers raises: OSError, ValueError."""
    from transformers import AutoConfig

    return AutoConfig.from_pretrained(path, trust_remote_code=is_trusted)


def load_auto_tokenizer(path: str, is_trusted: bool) -> Any:
    """The tokenizer at a folder or hub id, as it is. Raises what transformers raises: OSError, ValueError."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(path, trust_remote_code=is_trusted)


def load_trainers_tokenizer(path: str, is_trusted: bool) -> Any:
    """The tokenizer at a folder or hub id, with what verl's trainer changes in it. Raises OSError and ValueError."""
    from verl.utils import hf_tokenizer

    return hf_tokenizer(path, trust_remote_code=is_trusted)
