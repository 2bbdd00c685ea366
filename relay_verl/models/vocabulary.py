"""The vocabulary of a model, which is not that of its tokenizer: how many ids it reads and writes, and which of them
end a response. Imports neither torch nor verl.

A model pads its embedding: Qwen2.5's tokenizer has 151,665 tokens, its models of up to 3B have 151,936 rows and the
larger ones 152,064. A padding row has no text, but a model that samples may write it, and whoever shares the embedding
can read it. So the bound on an id is the model's, not `len(tokenizer)`.

A response ends with the tokenizer's end-of-sequence token or with any other id that the model's generation config lists
at `eos_token_id`, as in vLLM: Qwen2.5's chat models list `<|im_end|>` and `<|endoftext|>`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from relay_verl.models.pretrained import load_config, trusts
from relay_verl.run_config import PromptSettings
from relay_verl.tokenization import end_ids_of


@dataclass(frozen=True)
class Vocabulary:
    """What of a model's vocabulary bounds a response."""

    size: int | None
    """Rows of the embedding; ids at or above it mean nothing to the model. None if unknown."""
    end_ids: frozenset[int]
    """Ids that end a response."""


def vocabulary_of(hf_config: Any, generation_config: Any, tokenizer: Any) -> Vocabulary:
    """The vocabulary of a model that is loaded.

    Args:
        hf_config: the model's, as transformers reads it; None if unknown.
        generation_config: the model's; None without one.
        tokenizer: has `eos_token_id`.
    """
    text_config = hf_config.get_text_config() if hasattr(hf_config, "get_text_config") else hf_config
    size = getattr(text_config, "vocab_size", None)
    listed = _listed(getattr(generation_config, "eos_token_id", None))
    return Vocabulary(size if isinstance(size, int) else None, end_ids_of(tokenizer, listed))


def read_vocabulary(path: str | None, tokenizer: Any, prompts: PromptSettings | None = None) -> Vocabulary:
    """The vocabulary of the model at a folder or hub id; None, an endpoint's URL or a folder that holds only a
    tokenizer leaves the size unknown.

    Args:
        path: folder or hub id.
        tokenizer: the model's.
        prompts: the recipe's, which says whether the model's own code may read its configuration; None: it may not.
    """
    if path is None or "://" in path:
        return Vocabulary(None, end_ids_of(tokenizer))
    size, listed = _read(path, trusts(prompts))
    return Vocabulary(size, end_ids_of(tokenizer, listed))


@lru_cache(maxsize=64)
def _read(path: str, is_trusted: bool) -> tuple[int | None, tuple[int, ...]]:
    """Size and listed ends of the model at `path`."""
    from transformers import GenerationConfig

    try:
        config = load_config(path, is_trusted)
    except (OSError, ValueError):  # whoever loads the model says what is wrong with it
        config = None
    try:
        generation_config = GenerationConfig.from_pretrained(path)
    except (OSError, ValueError):  # vLLM, too, falls back to what the model's configuration says
        generation_config = config
    size = getattr(config.get_text_config(), "vocab_size", None) if config is not None else None
    return size, _listed(getattr(generation_config, "eos_token_id", None))


def _listed(eos_token_id: Any) -> tuple[int, ...]:
    """`eos_token_id` of a configuration as a tuple: it is an id, a list of ids, or None."""
    if eos_token_id is None:
        return ()
    return (eos_token_id,) if isinstance(eos_token_id, int) else tuple(eos_token_id)
