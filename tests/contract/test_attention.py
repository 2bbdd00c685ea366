"""Packed sequences under sdpa are what flash-attn's are: each sees itself alone. And the recipes that train on GPUs
resolve to an attention that is installed."""

from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from transformers import AutoModelForCausalLM, LlamaConfig, Qwen3Config

from relay_verl.models.attention import installed_attention
from relay_verl.recipes.compose import compose_overrides

SIZES = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
HEADS = {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 64}


@pytest.mark.parametrize("kind", [Qwen3Config, LlamaConfig])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("lengths", [[5], [5, 3, 9], [1, 1, 2]])
def test_packed_sequences_do_not_see_each_other(kind: Any, attention: str, lengths: list[int]) -> None:
    """verl's FSDP engine gives a model with `use_remove_padding` one row, position ids, and no mask."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(kind(**SIZES, **HEADS), attn_implementation=attention).eval()
    sequences = [torch.randint(0, 64, (length,)) for length in lengths]
    with torch.no_grad():
        alone = [model(sequence[None], use_cache=False).logits[0] for sequence in sequences]
        packed = model(
            input_ids=torch.cat(sequences)[None],
            attention_mask=None,
            position_ids=torch.cat([torch.arange(length) for length in lengths])[None],
            use_cache=False,
        ).logits[0]
    torch.testing.assert_close(packed, torch.cat(alone), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("recipe", "config_name", "model"),
    [
        ("relay_1.7b", "ppo_trainer", "actor_rollout_ref.model"),
        ("grpo_0.6b", "ppo_trainer", "actor_rollout_ref.model"),
        ("warmup_1.7b", "sft_trainer_engine", "model"),
    ],
)
def test_a_recipe_for_gpus_asks_for_an_attention_that_is_installed(recipe: str, config_name: str, model: str) -> None:
    config = compose_overrides([f"+recipe={recipe}"], config_name)
    node = OmegaConf.select(config, model)
    assert node.override_config.attn_implementation == installed_attention()
    assert node.use_remove_padding is True
    changed = compose_overrides(
        [f"+recipe={recipe}", f"{model}.override_config.attn_implementation=eager"], config_name
    )
    assert OmegaConf.select(changed, f"{model}.override_config.attn_implementation") == "eager"
