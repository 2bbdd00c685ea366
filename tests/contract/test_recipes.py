"""Every recipe composes from any directory under both kinds of install; a misspelt one never ends in plain PPO."""

import configparser
import copy
import functools
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_module
from hydra.errors import MissingConfigException
from omegaconf import OmegaConf, open_dict

from relay_verl.config import read_settings
from relay_verl.errors import UserError
from relay_verl.preflight.config_checks import check_micro_batch_sizes
from relay_verl.preflight.distillation_checks import check_distillation
from relay_verl.preflight.training import check_config
from relay_verl.recipes.composed import SECTIONS, compose_all, compose_quickly, differences
from relay_verl.recipes.layers import own_keys
from relay_verl.recipes.listing import rows_of
from relay_verl.recipes.recipe import find_recipe, flat, recipe_folders, recipe_names
from relay_verl.run_config import RunConfig, read_all
from tests.helpers.warm_python import WarmPython

ROOT = Path(__file__).parents[2]
RECIPES = sorted(path.stem for path in (ROOT / "recipes" / "recipe").glob("*.yaml"))
WARMUPS = [name for name in RECIPES if name.startswith("warmup")]
GRPO = [name for name in RECIPES if name not in WARMUPS]
DISTILS = [name for name in RECIPES if "opd" in name]
CALLLESS = ("grpo", "opd")
"""What the names of recipes without calls begin with."""
PAPER = [name for name in GRPO if "tiny" not in name and "real" not in name]


def composed(name: str, *overrides: str) -> Any:
    return copy.deepcopy(compose_once(name, *overrides))


@functools.cache
def compose_once(name: str, *overrides: str) -> Any:
    config_name = "sft_trainer_engine" if name in WARMUPS else "ppo_trainer"
    with initialize_config_module("verl.trainer.config", version_base=None):
        return compose(config_name, overrides=[f"+recipe={name}", *overrides])


def has_policy_loss(name: str) -> bool:
    """verl leaves the policy's loss out, with the KL in it, where the teacher's scores are all there is."""
    return not name.startswith("opd")


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RELAY_STUDENT", raising=False)


def test_the_recipes_promised_are_there() -> None:
    wanted = {"relay_tiny", "relay_tiny_simple", "grpo_tiny"}
    wanted |= {f"{kind}_{size}" for kind in ("relay", "grpo") for size in ("0.6b", "1.7b")}
    wanted |= {f"relay_{size}_simple" for size in ("0.6b", "1.7b")}
    wanted |= {"relay_real", "relay_real_simple", "grpo_real"}
    wanted |= {f"{kind}_{size}" for kind in ("warmup", "citer") for size in ("tiny", "0.6b", "1.7b")} | {"warmup_real"}
    released = ("no_filter", "no_independence", "no_exploration", "teacher_tokens", "batch_scenarios", "two_calls")
    wanted |= {f"relay_{size}_{kind}" for size in ("1.7b", "tiny") for kind in released}
    wanted |= {f"{kind}_{size}" for kind in ("opd", "relay_opd") for size in ("0.6b", "1.7b", "tiny")}
    wanted |= {f"relay_1.7b_fixed_{n}" for n in (20, 100, 500)} | {"relay_1.7b_price", "relay_tiny_price"}
    assert wanted <= set(RECIPES)
    assert recipe_names() == RECIPES


@pytest.mark.parametrize("name", GRPO)
def test_it_composes_into_settings_that_verl_accepts(name: str) -> None:
    from verl.utils.config import omega_conf_to_dataclass

    config = composed(name)
    settings = read_settings(config.relay)
    assert config.reward.reward_manager.name == "relay"
    assert settings.needs_teacher == (not name.startswith(CALLLESS))
    is_priced = name.endswith("_price")
    plain = "simple" if "simple" in name or name.startswith(CALLLESS) else "difficulty_aware"
    assert settings.reward.kind == ("price" if is_priced else plain)
    assert (settings.prices.price_list() is not None) == is_priced, "the paper has no prices"
    rollout = omega_conf_to_dataclass(config.actor_rollout_ref.rollout)
    assert rollout.max_model_len >= config.data.max_prompt_length + config.data.max_response_length
    actor = omega_conf_to_dataclass(config.actor_rollout_ref.actor)
    actor.validate(config.trainer.n_gpus_per_node, config.data.train_batch_size, config.actor_rollout_ref.model)
    OmegaConf.to_container(config, resolve=True)


@pytest.mark.parametrize("name", [name for name in RECIPES if "real" in name])
def test_the_real_pair_runs_on_two_cores_with_the_cpu_part(name: str) -> None:
    """One GPU without it, and never more; with it neither a GPU nor an endpoint."""
    assert composed(name).trainer.n_gpus_per_node == 1
    config = composed(name, "+relay=warmup_cpu" if name.startswith("warmup") else "+relay=real_cpu")
    assert config.trainer.device == "cpu"
    OmegaConf.to_container(config, resolve=True)
    if not name.startswith("warmup"):
        teacher = read_settings(config.relay).teacher
        assert (teacher.base_url, Path(teacher.path or "").name) == (None, "qwen2.5-coder-1.5b-instruct")
        assert config.actor_rollout_ref.model.lora_rank > 0
        assert config.actor_rollout_ref.actor.fsdp_config.mixed_precision.param_dtype == "bf16"


GRADED = {
    **dict.fromkeys(("data.max_response_length", "relay.defer_training.rollout_tokens"), 112),
    "relay.defer_training.routed_rollout_tokens": 112,
    "actor_rollout_ref.rollout.max_model_len": 160,
    "relay.max_tokens_per_call": 30,
    "relay.warmup.call_weights": [0.62, 0.23, 0.1, 0.05],
    "relay.defer_training.target_ratio": 0.1,
}


@pytest.mark.parametrize("name", [name for name in GRPO if "tiny" in name])
def test_the_graded_world_changes_what_it_needs_of_a_tiny_recipe_alone(name: str) -> None:
    plain, graded = composed(name), composed(name, "+relay=graded")
    changed = {difference.key for difference in differences(plain, graded)}
    assert changed == (set() if "fixed" in name else set(GRADED))
    assert {key: OmegaConf.select(graded, key) for key in GRADED} == GRADED
    settings = read_settings(graded.relay)
    assert settings.max_tokens_per_call == 30
    rollout = graded.actor_rollout_ref.rollout
    assert rollout.max_model_len >= graded.data.max_prompt_length + graded.data.max_response_length
    OmegaConf.to_container(graded, resolve=True)


def test_the_graded_world_needs_no_more_of_the_warm_up() -> None:
    """Its longest response, a prompt and three commands are 122 tokens."""
    plain, graded = composed("warmup_tiny"), composed("warmup_tiny", "+relay=graded")
    assert graded.data.max_length == plain.data.max_length >= 122
    OmegaConf.to_container(graded, resolve=True)


@pytest.mark.parametrize("name", WARMUPS)
def test_a_warm_up_composes_into_settings_that_verl_accepts(name: str) -> None:
    """The released command's numbers: lr 2e-5 with 3% warm-up, one epoch, sequences of 4096, batches of 32; and what it
    leaves as its trainer has it: linear schedule, no weight decay, AdamW's betas, gradients clipped at 1."""
    from verl.utils.config import omega_conf_to_dataclass

    config = composed(name)
    for part in ("engine", "optim", "checkpoint"):
        omega_conf_to_dataclass(config[part])
    assert "hf_model" in config.checkpoint.save_contents, "vLLM and the GRPO recipes load what it leaves"
    assert config.data.custom_cls.name == "WarmupDataset"
    assert config.trainer.total_epochs == 1
    assert (config.optim.lr_scheduler_type, config.optim.weight_decay) == ("linear", 0.0)
    assert (list(config.optim.betas), config.optim.clip_grad) == ([0.9, 0.999], 1.0)
    if name.endswith("b"):
        assert (config.optim.lr, config.data.max_length, config.data.train_batch_size) == (2e-5, 4096, 32)
        assert config.optim.lr_warmup_steps_ratio == 0.03
        assert config.model.path == f"Qwen/Qwen3-{name.removeprefix('warmup_').upper()}"
    OmegaConf.to_container(config, resolve=True)


@pytest.mark.parametrize("name", GRPO)
def test_the_filter_keeps_what_the_recipe_says(name: str) -> None:
    """GRPO trains on the full dataset (4.1), and so does the ablation without the filter (5.2)."""
    config = composed(name)
    assert config.data.custom_cls.name == "TeacherSolvableDataset"
    assert config.data.min_pass_rate == config.relay.filter.min_pass_rate
    assert config.data.min_pass_rate == (0.0 if "no_filter" in name or name.startswith(CALLLESS) else 0.5)


@pytest.mark.parametrize("name", PAPER)
def test_the_papers_hyperparameters(name: str) -> None:
    """App. E, and the rollout batch of the released config."""
    config = composed(name)
    actor, rollout = config.actor_rollout_ref.actor, config.actor_rollout_ref.rollout
    assert (actor.optim.lr, actor.optim.weight_decay) == (1e-6, 1e-2)
    assert (config.data.train_batch_size, actor.ppo_mini_batch_size) == (128, 32)
    assert (config.data.max_prompt_length, config.data.max_response_length) == (4096, 8192)
    assert (rollout.n, rollout.temperature) == (8, 1.0)
    assert (actor.use_kl_loss, actor.kl_loss_coef, actor.kl_loss_type) == (has_policy_loss(name), 0.01, "low_var_kl")
    assert config.algorithm.adv_estimator == "grpo"
    assert config.trainer.total_epochs == 1
    assert config.data.apply_chat_template_kwargs.enable_thinking is False
    size = "1.7B" if "1.7b" in name else "0.6B"
    needs_student = not name.startswith((*CALLLESS, "citer"))
    assert config.actor_rollout_ref.model.path == (None if needs_student else f"Qwen/Qwen3-{size}"), "RELAY_STUDENT"
    assert config.relay.warmup.base_model == f"Qwen/Qwen3-{size}"
    assert config.relay.teacher.path == (None if name.startswith("grpo") else "Qwen/Qwen3-8B")
    assert config.actor_rollout_ref.model.get("trust_remote_code", False) is False


@pytest.mark.parametrize("name", GRPO)
def test_the_algorithm_is_the_papers(name: str) -> None:
    """App. E, and what it leaves to EasyR1's defaults (4.3), whatever the models' size: also in the tiny world."""
    config = composed(name)
    actor, rollout = config.actor_rollout_ref.actor, config.actor_rollout_ref.rollout
    assert (actor.clip_ratio_low, actor.clip_ratio_high, actor.clip_ratio_c) == (0.2, 0.3, 3.0)
    assert (actor.loss_agg_mode, actor.ppo_epochs, actor.entropy_coeff) == ("token-mean", 1, 0.0)
    assert (actor.use_kl_loss, actor.kl_loss_coef, actor.kl_loss_type) == (has_policy_loss(name), 0.01, "low_var_kl")
    assert (config.algorithm.adv_estimator, config.algorithm.norm_adv_by_std_in_grpo) == ("grpo", True)
    assert config.algorithm.use_kl_in_reward is False
    assert (actor.optim.optimizer, list(actor.optim.betas), actor.optim.weight_decay) == ("AdamW", [0.9, 0.999], 0.01)
    assert (actor.optim.lr_scheduler_type, actor.optim.lr_warmup_steps_ratio) == ("constant", 0.0)
    assert actor.grad_clip == actor.optim.clip_grad == 1.0
    assert (rollout.temperature, rollout.top_p, rollout.top_k) == (1.0, 1.0, -1)
    assert (rollout.val_kwargs.temperature, rollout.val_kwargs.do_sample) == (0.0, False), "greedy pass@1 (4.2)"


@pytest.mark.parametrize("name", GRPO)
def test_calls_have_no_limit_but_the_budget(name: str) -> None:
    """2.2 names none. The release's two in training are a recipe, its four in evaluation an override; 0 is GRPO."""
    expected = 0 if name.startswith(CALLLESS) else 2 if name.endswith("two_calls") else None
    assert read_settings(composed(name).relay).max_calls == expected


def test_the_releases_four_calls_of_the_evaluation_and_none_at_all_by_override() -> None:
    for value in (4, 0):
        assert read_settings(composed("relay_1.7b", f"relay.max_calls={value}").relay).max_calls == value
    assert read_settings(composed("relay_1.7b_two_calls", "relay.max_calls=null").relay).max_calls is None


@pytest.mark.parametrize("name", [name for name in GRPO if "fixed" in name])
def test_a_fixed_length_is_written_and_warmed_up(name: str) -> None:
    """5.4: the command itself is constrained. `relay-verl warmup-data` and training read the same recipe."""
    settings = read_settings(composed(name).relay)
    assert settings.written_length == int(name.rpartition("_")[2])
    limits = settings.decoder_config(100, greedy=False, vocab_size=None)
    assert limits.fixed_command == settings.fixed_command == "text"
    released = read_settings(composed(name, "relay.fixed_command=delivered").relay)
    assert released.written_length is None
    assert released.decoder_config(100, greedy=False, vocab_size=None).fixed_command == "delivered"


@pytest.mark.parametrize("name", DISTILS)
def test_verl_takes_the_distillation_and_its_teacher_is_relays(name: str) -> None:
    from verl.utils.config import omega_conf_to_dataclass

    config = composed(name)
    relay, distillation = read_settings(config.relay), omega_conf_to_dataclass(config.distillation)
    [teacher] = distillation.teacher_models.values()
    assert (teacher.model_path, teacher.num_replicas) == (relay.teacher.path, relay.teacher.num_replicas)
    assert teacher.world_size == distillation.n_gpus_per_node * distillation.nnodes
    loss = distillation.distillation_loss
    assert (loss.loss_settings.use_topk, loss.use_policy_gradient) == (True, False)
    assert loss.use_task_rewards == relay.needs_teacher, "calls are learned from rewards alone"
    assert teacher.inference.engine_kwargs["vllm"]["max_logprobs"] == loss.topk
    wanted_loss = "call_free_kl_topk" if relay.needs_teacher else "forward_kl_topk"
    assert check_distillation(RunConfig(config)).startswith(wanted_loss)


@pytest.mark.parametrize("name", [name for name in GRPO if not name.startswith("grpo")])
def test_the_teacher_is_sampled_as_the_released_service_samples(name: str) -> None:
    teacher = read_settings(composed(name).relay).teacher
    assert teacher.sampling() == {"temperature": 0.7, "top_p": 1.0, "top_k": -1}
    assert teacher.sampling(greedy=True) == {"temperature": 0.0, "top_p": 1.0, "top_k": -1}


STUDENT = "actor_rollout_ref.model.path"
DISTILLED = {
    "actor_rollout_ref.model.use_fused_kernels",
    *(f"distillation.{key}" for key in ("enabled", "nnodes", "n_gpus_per_node", "distillation_loss.loss_mode")),
    "distillation.teacher_models.teacher_model.model_path",
    *(
        f"distillation.teacher_models.teacher_model.inference.{key}"
        for key in (
            "engine_kwargs",
            *("tensor_model_parallel_size", "gpu_memory_utilization", "max_num_seqs", "max_num_batched_tokens"),
            *("max_model_len", "enforce_eager", "full_determinism", "free_cache_engine", "enable_sleep_mode"),
            "disable_log_stats",
        )
    ),
}
TINY_DISTILLED = DISTILLED - {"actor_rollout_ref.model.use_fused_kernels"} | {"distillation.distillation_loss.topk"}
"""On CPU no kernel is fused."""
NO_REWARDS = {
    *("distillation.distillation_loss.use_task_rewards", "actor_rollout_ref.actor.use_kl_loss"),
    "relay.teacher.path",
}
TEACHER_TOKENS = {"relay.train_on_teacher_tokens", "actor_rollout_ref.rollout.calculate_log_probs"}
NO_TEACHER = {STUDENT, "relay.max_calls", "relay.filter.min_pass_rate", "relay.teacher.path"}
HEAD = {STUDENT, "relay.defer_training.kind", "relay.defer_training.target_ratio"}
TINY_HEAD = {f"relay.defer_training.{key}" for key in ("learning_rate", "max_epochs")} | {
    f"relay.defer_training.{key}" for key in ("rollout_tokens", "routed_rollout_tokens")
}
STUDENTS = ("1.7b", "tiny", "real")
VARIANTS: dict[str | None, dict[str, set[str]]] = {
    # parent: variants and the keys they differ in, the experiment's name apart
    None: {name: set() for name in ("relay_1.7b", "relay_tiny", "relay_real", *(f"warmup_{of}" for of in STUDENTS))},
    "warmup_1.7b": {"warmup_0.6b": {"model.path"}},
    "relay_1.7b": {
        "relay_0.6b": {"relay.warmup.base_model"},
        "relay_1.7b_simple": {"relay.reward.kind"},
        "relay_1.7b_price": {"relay.reward.kind", *(f"relay.prices.{who}.preset" for who in ("student", "teacher"))},
        "relay_1.7b_no_filter": {"relay.filter.min_pass_rate"},
        "relay_1.7b_no_independence": {"relay.reward.independence_bonus"},
        "relay_1.7b_no_exploration": {"relay.reward.exploration"},
        "relay_1.7b_fixed_20": {"relay.policy"},
        "relay_1.7b_fixed_100": {"relay.policy"},
        "relay_1.7b_fixed_500": {"relay.policy"},
        "relay_1.7b_teacher_tokens": TEACHER_TOKENS,
        "relay_1.7b_batch_scenarios": {"relay.reward.scenario_scope"},
        "relay_1.7b_two_calls": {"relay.max_calls"},
        "citer_1.7b": HEAD,
        "relay_opd_1.7b": DISTILLED,
    },
    "relay_0.6b": {"relay_0.6b_simple": {"relay.reward.kind"}, "citer_0.6b": HEAD, "relay_opd_0.6b": DISTILLED},
    "grpo_1.7b": {"opd_1.7b": DISTILLED | NO_REWARDS},
    "grpo_0.6b": {"opd_0.6b": DISTILLED | NO_REWARDS},
    "grpo_tiny": {"opd_tiny": TINY_DISTILLED | NO_REWARDS},
    "relay_1.7b_simple": {"grpo_1.7b": NO_TEACHER},
    "relay_0.6b_simple": {"grpo_0.6b": NO_TEACHER},
    "relay_tiny": {
        "relay_tiny_price": {
            *("relay.reward.kind", "relay.prices.currency"),
            *(
                f"relay.prices.{who}.{of}"
                for who in ("student", "teacher")
                for of in ("input", "cached_input", "output")
            ),
        },
        "relay_tiny_simple": {"relay.reward.kind"},
        "relay_tiny_no_filter": {"relay.filter.min_pass_rate"},
        "relay_tiny_no_independence": {"relay.reward.independence_bonus"},
        "relay_tiny_no_exploration": {"relay.reward.exploration"},
        "relay_tiny_fixed_3": {"relay.policy", *GRADED},
        "relay_tiny_fixed_6": {"relay.policy", *GRADED},
        "relay_tiny_fixed_25": {"relay.policy", *GRADED},
        "relay_tiny_teacher_tokens": TEACHER_TOKENS,
        "relay_tiny_batch_scenarios": {"relay.reward.scenario_scope"},
        "relay_tiny_two_calls": {"relay.max_calls"},
        "citer_tiny": HEAD | TINY_HEAD,
        "relay_opd_tiny": TINY_DISTILLED,
    },
    "relay_tiny_simple": {"grpo_tiny": NO_TEACHER},
    "relay_real": {"relay_real_simple": {"relay.reward.kind"}},
    "relay_real_simple": {"grpo_real": NO_TEACHER - {"relay.teacher.path"}},
}


@pytest.fixture(scope="module")
def configs() -> dict[str, Any]:
    return compose_all([find_recipe(name) for name in RECIPES])


def test_every_recipe_is_in_the_table_of_variants() -> None:
    assert sorted(name for variants in VARIANTS.values() for name in variants) == RECIPES
    parents = {name: parent for parent, variants in VARIANTS.items() for name in variants}
    assert {name: find_recipe(name).parent for name in RECIPES} == parents


def own_keys_of_parts(parts: tuple[str, ...]) -> list[str]:
    """What the shared parts among a recipe's defaults set."""
    files = [ROOT / "recipes" / f"{part.lstrip('/')}.yaml" for part in parts]
    return [key for file in files for key in flat(OmegaConf.to_container(OmegaConf.load(file)))]


@pytest.mark.parametrize(
    ("parent", "name", "keys"),
    [(parent, name, keys) for parent, variants in VARIANTS.items() if parent for name, keys in variants.items()],
)
def test_a_variant_differs_in_what_it_is_about(parent: str, name: str, keys: set[str], configs: dict[str, Any]) -> None:
    """And in nothing else of verl's or ours; the experiment's name apart, by which checkpoints are kept apart."""
    changed = {difference.key for difference in differences(configs[parent], configs[name])}
    recipe = find_recipe(name)
    parts = set(own_keys_of_parts(recipe.parts))
    assert changed - {"trainer.experiment_name"} == keys
    assert set(recipe.keys) <= keys <= set(recipe.keys) | parts
    assert configs[name].data.get("min_pass_rate") == OmegaConf.select(configs[name], "relay.filter.min_pass_rate")


def test_recipes_keep_their_checkpoints_apart(configs: dict[str, Any]) -> None:
    assert [configs[name].trainer.experiment_name for name in RECIPES] == list(RECIPES)


@pytest.mark.parametrize("name", RECIPES)
def test_composing_all_is_composing_each(name: str, configs: dict[str, Any]) -> None:
    assert OmegaConf.to_container(configs[name]) == OmegaConf.to_container(composed(name))


def test_recipes_composed_quickly_are_hydras(configs: dict[str, Any]) -> None:
    """The sections that the table of all recipes reads, in a third of the time."""
    recipes = [find_recipe(name) for name in RECIPES]
    quick = compose_quickly(recipes)
    for name, config in quick.items():
        assert config == {section: configs[name][section] for section in SECTIONS if section in configs[name]}, name
    assert rows_of(recipes, read_all(quick)) == rows_of(recipes, read_all(configs))
    roots = [folder.parent for folder in recipe_folders()]
    assert all(own_keys(recipe.folder / f"{recipe.name}.yaml", roots) for recipe in recipes), "without Hydra"


@pytest.mark.parametrize("name", GRPO)
def test_a_checkpoint_is_recorded_and_the_one_before_is_kept(name: str) -> None:
    trainer = composed(name).trainer
    assert trainer.checkpoint_callback_class == "relay_verl.checkpoints.callback.RecordCheckpoint"
    assert trainer.max_actor_ckpt_to_keep >= 2


def test_several_teachers_by_command_line_and_by_recipe() -> None:
    """Hydra merges no list into the mapping `relay.teacher`, so the list has a key of its own."""
    two = "relay.teachers=[{path:a,weight:3,data_sources:[math]},{path:b}]"
    [a, b] = read_settings(composed("relay_tiny", two).relay).active_teachers.values()
    assert (a.path, a.weight, a.data_sources, b.path, b.weight, b.data_sources) == ("a", 3.0, ("math",), "b", 1.0, None)
    changed = read_settings(composed("relay_tiny", two, "relay.teachers.1.path=c", "+relay.teachers.1.weight=2").relay)
    assert [(t.path, t.weight) for t in changed.active_teachers.values()] == [("a", 3.0), ("c", 2.0)]
    instead = composed("relay_tiny", "~relay.teacher", "+relay.teacher=[{path:a},{path:b}]").relay
    assert [t.path for t in read_settings(instead).active_teachers.values()] == ["a", "b"]
    one = composed("relay_tiny", two, "relay.teachers=[]", "relay.teacher.path=d").relay
    assert [t.path for t in read_settings(one).active_teachers.values()] == ["d"]


def test_micro_batches_that_do_not_divide_are_one_line() -> None:
    overrides = ["data.train_batch_size=4", "actor_rollout_ref.actor.ppo_mini_batch_size=4"]
    line = r"ppo_micro_batch_size_per_gpu=128: a GPU's 64 samples do not split"
    with pytest.raises(UserError, match=line):
        check_micro_batch_sizes(composed("relay_tiny", *overrides))
    check_micro_batch_sizes(composed("relay_tiny"))


def test_a_misspelt_recipe_fails_and_lists_the_valid_ones() -> None:
    with pytest.raises(MissingConfigException, match=r"(?s)relay_1\.7bb.*relay_1\.7b"):
        composed("relay_1.7bb")


@pytest.mark.parametrize("key", ["recipe", "recipes", "recpie", "Recipe", "recip"])
def test_a_misspelt_group_is_caught_before_plain_ppo_runs(key: str) -> None:
    with initialize_config_module("verl.trainer.config", version_base=None):
        config = compose("ppo_trainer", overrides=[f"+{key}=relay_1.7b"] if key != "recipe" else [])
    with open_dict(config):
        config[key] = "relay_1.7b"
    with pytest.raises(UserError, match=rf"{key}=relay_1\.7b: no recipe was loaded; .* relay_1\.7b_simple"):
        check_config(config)


def test_plain_verl_configs_are_left_alone() -> None:
    with initialize_config_module("verl.trainer.config", version_base=None):
        check_config(compose("ppo_trainer"))


def test_a_regular_install_finds_every_recipe_too(installation: Path, tmp_path: Path) -> None:
    """Its files are those that every other test here composes; one recipe of each trainer is composed from it."""
    code = (
        "from hydra import compose, initialize_config_module\n"
        "import relay_verl\n"
        "from hydra_plugins.relay_verl.searchpath import recipes_folder\n"
        "with initialize_config_module('verl.trainer.config', version_base=None):\n"
        "    for kind, name in (('sft_trainer_engine', 'warmup_1.7b'), ('ppo_trainer', 'relay_1.7b_simple')):\n"
        "        assert 'relay_verl' in compose(kind, overrides=['+recipe=' + name]).data.custom_cls.path\n"
        "print(relay_verl.__file__); print(recipes_folder())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": str(installation)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    package, folder = map(Path, done.stdout.split())
    assert package.is_relative_to(installation) and folder.is_relative_to(installation)
    assert yaml_files(folder) == yaml_files(ROOT / "recipes")


def yaml_files(folder: Path) -> dict[str, bytes]:
    """The files of a folder of recipes, by their place in it."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.yaml")}


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (["relay.teacher.path=null"], "relay_verl: relay.teacher: no teacher given; set relay.teacher.path"),
        (["relay.max_calls=-1"], "relay_verl: relay.max_calls: -1: "),
        (["relay.teacher.num_replicas=3"], "relay_verl: ray_kwargs.ray_init.num_gpus=2: the trainer takes 1 "),
        (["data.train_batch_size=6"], "relay_verl: data.train_batch_size=6 is not a multiple of "),
        (["actor_rollout_ref.model.path=/no/such/model"], "relay_verl: "),
        (["relay.teacher.path=/models/big (copy)"], "relay_verl: relay.teacher.path=/models/big (copy): Hydra cannot "),
        (["relay.teacher.base_url=http://[::1]:8000/v1"], "relay_verl: relay.teacher.base_url=http://[::1]:8000/v1: "),
        (
            ["data.train_files=/data/a,b.parquet"],
            "relay_verl: data.train_files=/data/a,b.parquet: Hydra reads several ",
        ),
        (["data.train_files=${oc.env:NOT_SET}/x"], "relay_verl: data.train_files: "),
        (["+recipe=relay_1.7b"], "relay_verl: +recipe: relay_tiny and relay_1.7b at once; "),
        (["+recipe=[relay_1.7b,grpo_tiny]"], "relay_verl: +recipe: relay_tiny and relay_1.7b and grpo_tiny at once; "),
    ],
)
def test_bad_input_ends_the_real_command_with_one_line(
    overrides: list[str], line: str, tmp_path: Path, warm_python: WarmPython
) -> None:
    """The real entry point: it exits before Ray starts, and leaves nothing but Hydra's own log folder."""
    said = refusal(warm_python, "main_ppo", ["+recipe=relay_tiny", *overrides], tmp_path)
    assert said.strip().splitlines()[-1].startswith(line), said[-2000:]
    assert "Started a local Ray" not in said


def refusal(python: WarmPython, trainer: str, words: list[str], folder: Path) -> str:
    """What a trainer's command says on standard error as it ends with code 1 and without a traceback."""
    variables = {"VERL_PLATFORM": "cpu", "RELAY_TINY_DIR": str(folder / "nothing")}
    done = python.run("-m", f"verl.trainer.{trainer}", *words, "hydra.output_subdir=null", env=variables, cwd=folder)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    return done.stderr


OTHER_COMMANDS = [
    # trainer, words, the line
    (
        "main_ppo",
        ["+recipe=grpo_tiny", "relay.reward.kind=difficulty_aware", "relay.allow_overrides=false"],
        "relay_verl: relay.reward.kind=difficulty_aware conflicts with recipe grpo_tiny, a variant of "
        "relay_tiny_simple, which sets relay.reward.kind=simple; use +recipe=relay_tiny "
        "relay.reward.kind=difficulty_aware instead, or relay.allow_overrides=true",
    ),
    (
        "main_ppo",
        ["+recipe=[relay_tiny,relay_tiny_simple]"],
        "relay_verl: +recipe: relay_tiny and relay_tiny_simple at once; a run has one recipe",
    ),
    (
        "main_ppo",
        ["+recipe=warmup_tiny"],
        "relay_verl: recipe=warmup_tiny: it is for verl.trainer.sft_trainer, this is verl.trainer.main_ppo",
    ),
    (
        "sft_trainer",
        ["+recipe=relay_tiny"],
        "relay_verl: recipe=relay_tiny: it is for verl.trainer.main_ppo, this is verl.trainer.sft_trainer",
    ),
    (
        "main_ppo",
        ["--config-dir=.", "+recipe=mine", "relay.max_calls=3", "relay.allow_overrides=false"],
        "relay_verl: relay.max_calls=3 conflicts with recipe mine, which sets relay.max_calls=2; use "
        "+recipe=relay_tiny_simple relay.max_calls=3 instead, or relay.allow_overrides=true",
    ),
]


@pytest.mark.parametrize(("trainer", "words", "line"), OTHER_COMMANDS, ids=[line[12:40] for *_, line in OTHER_COMMANDS])
def test_a_recipe_beside_what_it_is_not_ends_the_real_command_with_one_line(
    trainer: str, words: list[str], line: str, tmp_path: Path, warm_python: WarmPython
) -> None:
    (tmp_path / "recipe").mkdir()
    mine = "# @package _global_\n# Mine.\ndefaults:\n  - relay_tiny_simple\nrelay:\n  max_calls: 2\n"
    (tmp_path / "recipe" / "mine.yaml").write_text(mine)
    said = refusal(warm_python, trainer, words, tmp_path)
    assert said.strip().splitlines()[-1].startswith(line), said[-2000:]


def test_the_command_line_wins_over_a_variant_and_the_real_command_says_so(
    warm_python: WarmPython, tmp_path: Path
) -> None:
    """The warning comes before the first check that fails, here for a student that does not exist."""
    said = refusal(
        warm_python, "main_ppo", ["+recipe=relay_tiny_simple", "relay.reward.kind=difficulty_aware"], tmp_path
    )
    warning = (
        "relay_verl: relay.reward.kind=difficulty_aware (recipe relay_tiny_simple sets simple): the experiment is "
        "named relay_tiny_simple-modified"
    )
    assert said.splitlines().count(warning) == 1, said[-2000:]


def test_an_installation_has_every_package() -> None:
    """`packages` in setup.cfg is a list by hand, as the recipes lie outside the package."""
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    listed = {name for name in config["options"]["packages"].split() if name.startswith("relay_verl.")}
    folders = {str(f.parent.relative_to(ROOT)).replace("/", ".") for f in (ROOT / "relay_verl").rglob("*.py")}
    assert listed == {name for name in folders if name != "relay_verl" and "_hydra" not in name}
