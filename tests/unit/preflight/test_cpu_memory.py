"""The memory of a recipe on CPU: each term follows what the recipe says, and too little is refused with the figures."""

import json
from pathlib import Path

import pytest

from relay_verl.errors import UserError
from relay_verl.preflight.check import CheckWarning
from relay_verl.preflight.cpu_memory import GB, check_bucket, check_cpu_memory, cpu_terms
from relay_verl.recipes.compose import compose
from relay_verl.run_config import RunConfig

TERMS = {"the trained student": 8 * GB, "the teacher": 10 * GB, "caches": 2 * GB, "the reference": 0.0}


def test_too_little_memory_is_an_error_with_every_term() -> None:
    with pytest.raises(UserError) as caught:
        check_cpu_memory(TERMS, "Ray node 10.0.0.1", 12 * GB, 25 * GB)
    line = str(caught.value)
    assert "\n" not in line
    for part in ("10.0.0.1", "12.0 of 25.0 GB", "20.0", "the trained student 8.0", "the teacher 10.0", "lora_rank"):
        assert part in line
    assert "reference" not in line, "a term that is nothing"


def test_what_may_just_fit_is_a_doubt_and_what_fits_is_neither() -> None:
    assert isinstance(check_cpu_memory(TERMS, "node", 19 * GB, 25 * GB), CheckWarning)
    assert check_cpu_memory(TERMS, "node", 21 * GB, 25 * GB) is None


@pytest.fixture
def sized(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relay_verl.preflight.cpu_memory.count_parameters", lambda path: 1000 if path else 0)


@pytest.mark.usefixtures("sized")
def test_number_formats_replicas_and_the_reference_count() -> None:
    def terms(*overrides: str) -> dict[str, float]:
        return cpu_terms(RunConfig(compose("relay_tiny", overrides)))

    plain = terms()
    assert (plain["the trained student"], plain["the reference"]) == (16_000, 4_000)
    assert (plain["the student's engines"], plain["the teacher"]) == (4_000, 4_000)
    assert terms("relay.teacher.dtype=bfloat16")["the teacher"] == 2_000
    assert terms("relay.teacher.dtype=bfloat16", "relay.teacher.num_replicas=3")["the teacher"] == 6_000
    half = terms("actor_rollout_ref.rollout.dtype=bfloat16")
    assert (half["the student's engines"], half["the teacher"]) == (2_000, 2_000)
    assert terms("actor_rollout_ref.actor.use_kl_loss=false")["the reference"] == 0
    assert terms("relay.max_calls=0")["the teacher"] == 0
    assert terms("actor_rollout_ref.model.lora_rank=4")["the reference"] == 0
    assert plain["caches"] == 2 * 2**26
    ranks = terms("trainer.n_gpus_per_node=4", "actor_rollout_ref.rollout.tensor_model_parallel_size=2")
    assert (ranks["the student's engines"], ranks["caches"]) == (8_000, 3 * 2**26)


@pytest.mark.usefixtures("sized")
@pytest.mark.parametrize("is_in_the_recipe", [True, False])
def test_vllms_variable_comes_before_the_caches_of_the_recipe(
    is_in_the_recipe: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """vLLM's CPU platform overwrites the option with it, so that no recipe for CPU may set it."""
    overrides = []
    if is_in_the_recipe:
        overrides = ["+ray_kwargs.ray_init.runtime_env.env_vars.VLLM_CPU_KVCACHE_SPACE='3'"]
    else:
        monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "3")
    assert cpu_terms(RunConfig(compose("relay_tiny", overrides)))["caches"] == 2 * 3 * 2**30


@pytest.mark.parametrize(("recipe", "size"), [("relay_tiny", 2**26), ("opd_tiny", 2**26), ("relay_real", 2**28)])
def test_a_recipe_for_cpu_says_how_large_its_caches_are(recipe: str, size: int) -> None:
    config = compose(recipe, ["+relay=real_cpu"] if recipe == "relay_real" else [])
    assert "VLLM_CPU_KVCACHE_SPACE" not in config.ray_kwargs.ray_init.runtime_env.env_vars
    rollouts = [config.actor_rollout_ref.rollout]
    if config.distillation.enabled:
        rollouts.append(config.distillation.teacher_models.teacher_model.inference)
    assert [rollout.engine_kwargs.vllm.kv_cache_memory_bytes for rollout in rollouts] == [size] * len(rollouts)


def test_the_embedding_has_to_fit_into_the_pieces_that_weights_travel_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Qwen2.5's 151,936 rows are 519 MiB in 32 bits, which verl found out after all engines had started."""
    facts = {"num_attention_heads": 14, "num_key_value_heads": 2, "hidden_size": 896, "num_hidden_layers": 24}
    (tmp_path / "config.json").write_text(json.dumps({**facts, "intermediate_size": 4864, "vocab_size": 151936}))
    monkeypatch.setenv("VERL_PLATFORM", "cpu")
    key = "actor_rollout_ref.rollout.checkpoint_engine.update_weights_bucket_megabytes"
    model = f"actor_rollout_ref.model.path={tmp_path}"
    with pytest.raises(UserError, match=rf"{key}=64: .*519 MiB.*520"):
        check_bucket(compose("relay_tiny", [model]))
    assert check_bucket(compose("relay_tiny", [model, f"{key}=520"])) == "519 of 520 MiB"
    assert check_bucket(compose("relay_tiny", [model, f"{key}=260", "actor_rollout_ref.rollout.dtype=bfloat16"]))
