"""Every recipe composes from any directory under both kinds of install; a misspelt one never ends in plain PPO."""

import configparser
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_module
from hydra.errors import MissingConfigException
from omegaconf import OmegaConf, open_dict

from relay_verl.config import ConfigError, RelaySettings, read_settings
from relay_verl.preflight import check_config, check_micro_batch_sizes, recipe_names

ROOT = Path(__file__).parents[2]
RECIPES = sorted(path.stem for path in (ROOT / "recipes" / "recipe").glob("*.yaml"))
WARMUPS = [name for name in RECIPES if name.startswith("warmup")]
GRPO = [name for name in RECIPES if name not in WARMUPS]
PAPER = [name for name in GRPO if "tiny" not in name]


def composed(name: str, *overrides: str) -> Any:
    config_name = "sft_trainer_engine" if name in WARMUPS else "ppo_trainer"
    with initialize_config_module("verl.trainer.config", version_base=None):
        return compose(config_name, overrides=[f"+recipe={name}", *overrides])


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_the_recipes_promised_are_there() -> None:
    wanted = {"relay_tiny", "relay_tiny_simple", "grpo_tiny"}
    wanted |= {f"{kind}_{size}" for kind in ("relay", "grpo") for size in ("0.6b", "1.7b")}
    wanted |= {f"relay_{size}_simple" for size in ("0.6b", "1.7b")}
    wanted |= {f"warmup_{size}" for size in ("tiny", "0.6b", "1.7b")} | {"relay_1.7b_no_filter", "relay_tiny_no_filter"}
    assert wanted <= set(RECIPES)
    assert recipe_names() == RECIPES


@pytest.mark.parametrize("name", GRPO)
def test_it_composes_into_settings_that_verl_accepts(name: str) -> None:
    from verl.utils.config import omega_conf_to_dataclass

    config = composed(name)
    settings = read_settings(config.relay)
    assert config.reward.reward_manager.name == "relay"
    assert settings.needs_teacher == (not name.startswith("grpo"))
    assert settings.reward.kind == ("simple" if "simple" in name or "grpo" in name else "difficulty_aware")
    rollout = omega_conf_to_dataclass(config.actor_rollout_ref.rollout)
    assert rollout.max_model_len >= config.data.max_prompt_length + config.data.max_response_length
    actor = omega_conf_to_dataclass(config.actor_rollout_ref.actor)
    actor.validate(config.trainer.n_gpus_per_node, config.data.train_batch_size, config.actor_rollout_ref.model)
    OmegaConf.to_container(config, resolve=True)


@pytest.mark.parametrize("name", WARMUPS)
def test_a_warm_up_composes_into_settings_that_verl_accepts(name: str) -> None:
    """The released script's numbers: lr 2e-5, one epoch, sequences of 4096, batches of 32."""
    from verl.utils.config import omega_conf_to_dataclass

    config = composed(name)
    for part in ("engine", "optim", "checkpoint"):
        omega_conf_to_dataclass(config[part])
    assert "hf_model" in config.checkpoint.save_contents, "vLLM and the GRPO recipes load what it leaves"
    assert config.data.custom_cls.name == "WarmupDataset"
    assert config.trainer.total_epochs == 1
    if "tiny" not in name:
        assert (config.optim.lr, config.data.max_length, config.data.train_batch_size) == (2e-5, 4096, 32)
        assert config.model.path == f"Qwen/Qwen3-{name.removeprefix('warmup_').upper()}"
    OmegaConf.to_container(config, resolve=True)


@pytest.mark.parametrize("name", GRPO)
def test_the_filter_keeps_what_the_recipe_says(name: str) -> None:
    """GRPO trains on the full dataset (4.1), and so does the ablation without the filter (5.2)."""
    config = composed(name)
    assert config.data.custom_cls.name == "TeacherSolvableDataset"
    assert config.data.min_pass_rate == config.relay.filter.min_pass_rate
    assert config.data.min_pass_rate == (0.0 if "no_filter" in name or "grpo" in name else 0.5)


@pytest.mark.parametrize("name", PAPER)
def test_the_papers_hyperparameters(name: str) -> None:
    """App. E, and the rollout batch of the released config."""
    config = composed(name)
    actor, rollout = config.actor_rollout_ref.actor, config.actor_rollout_ref.rollout
    assert (actor.optim.lr, actor.optim.weight_decay) == (1e-6, 1e-2)
    assert (config.data.train_batch_size, actor.ppo_mini_batch_size) == (128, 32)
    assert (config.data.max_prompt_length, config.data.max_response_length) == (4096, 8192)
    assert (rollout.n, rollout.temperature) == (8, 1.0)
    assert (actor.use_kl_loss, actor.kl_loss_coef, actor.kl_loss_type) == (True, 0.01, "low_var_kl")
    assert config.algorithm.adv_estimator == "grpo"
    assert config.trainer.total_epochs == 1
    assert config.data.apply_chat_template_kwargs.enable_thinking is False
    size = "1.7B" if "1.7b" in name else "0.6B"
    assert config.actor_rollout_ref.model.path == f"Qwen/Qwen3-{size}"
    assert config.relay.teacher.path == (None if name.startswith("grpo") else "Qwen/Qwen3-8B")
    assert config.actor_rollout_ref.model.get("trust_remote_code", False) is False


def test_a_recipe_a_table_row() -> None:
    """Simple and difficulty-aware differ in nothing but the reward, and the experiment's name where it stands."""

    def difference(one: str, other: str) -> set[str]:
        def flat(node: Any, prefix: str = "") -> dict[str, Any]:
            if not isinstance(node, dict):
                return {prefix: node}
            return {k: v for key, value in node.items() for k, v in flat(value, f"{prefix}.{key}").items()}

        a, b = (flat(OmegaConf.to_container(composed(name), resolve=True)) for name in (one, other))
        return {
            k for k in a.keys() | b.keys() if str(a.get(k)).replace(one, "NAME") != str(b.get(k)).replace(other, "NAME")
        }

    assert difference("relay_1.7b", "relay_1.7b_simple") == {".relay.reward.kind"}
    assert difference("relay_tiny", "relay_tiny_simple") == {".relay.reward.kind"}
    assert difference("relay_1.7b", "relay_1.7b_no_independence") == {".relay.reward.independence_bonus"}
    assert difference("relay_1.7b", "relay_1.7b_no_exploration") == {".relay.reward.exploration"}
    assert difference("relay_1.7b", "relay_1.7b_fixed_20") == {".relay.policy"}
    assert difference("relay_tiny", "relay_tiny_fixed_2") == {".relay.policy"}
    threshold = {".relay.filter.min_pass_rate", ".data.min_pass_rate"}
    assert difference("relay_1.7b", "relay_1.7b_no_filter") == threshold
    assert difference("relay_tiny", "relay_tiny_no_filter") == threshold


def test_the_base_recipe_lists_every_setting_with_its_default() -> None:
    node = OmegaConf.load(ROOT / "recipes" / "relay" / "base.yaml").relay
    from relay_verl.config import FilterSettings, RewardSettings, TeacherSettings, WarmupSettings

    assert read_settings({**OmegaConf.to_container(node), "max_calls": 0}) == RelaySettings(max_calls=0)  # type: ignore[dict-item]
    assert set(node) == set(RelaySettings.__dataclass_fields__)
    assert set(node.teacher) == set(TeacherSettings.__dataclass_fields__)
    assert set(node.reward) == set(RewardSettings.__dataclass_fields__)
    assert set(node.warmup) == set(WarmupSettings.__dataclass_fields__)
    assert set(node.filter) == set(FilterSettings.__dataclass_fields__)


def test_micro_batches_that_do_not_divide_are_one_line() -> None:
    overrides = ["data.train_batch_size=4", "actor_rollout_ref.actor.ppo_mini_batch_size=4"]
    line = r"ppo_micro_batch_size_per_gpu=128: a GPU's 64 samples do not split"
    with pytest.raises(ConfigError, match=line):
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
    with pytest.raises(ConfigError, match=rf"{key}=relay_1\.7b: no recipe was loaded; .* relay_1\.7b_simple"):
        check_config(config)


def test_plain_verl_configs_are_left_alone() -> None:
    with initialize_config_module("verl.trainer.config", version_base=None):
        check_config(compose("ppo_trainer"))


def test_a_regular_install_finds_every_recipe_too(tmp_path: Path) -> None:
    target = tmp_path / "site"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation"]
    source = tmp_path / "source"
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(source)], check=True, timeout=60)
    subprocess.run(
        ["cp", "-r", *(str(ROOT / n) for n in ("relay_verl", "recipes", "setup.cfg")), str(source)], check=True
    )
    subprocess.run([*pip, "--target", str(target), str(source)], check=True, timeout=300)
    code = (
        "from hydra import compose, initialize_config_module\n"
        "import sys, relay_verl\n"
        "from hydra_plugins.relay_verl.searchpath import recipes_folder\n"
        "with initialize_config_module('verl.trainer.config', version_base=None):\n"
        "    for name in sys.argv[1:]:\n"
        "        kind = 'sft_trainer_engine' if 'warmup' in name else 'ppo_trainer'\n"
        "        assert 'relay_verl' in compose(kind, overrides=['+recipe=' + name]).data.custom_cls.path\n"
        "print(relay_verl.__file__); print(recipes_folder())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *RECIPES],
        env=os.environ | {"PYTHONPATH": str(target)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert all(line.startswith(str(target)) for line in done.stdout.split()), done.stdout


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (["relay.teacher.path=null"], "relay_verl: relay.teacher: no teacher given; set relay.teacher.path"),
        (["relay.max_calls=-1"], "relay_verl: relay.max_calls: -1: "),
        (["relay.teacher.num_replicas=3"], "relay_verl: ray_kwargs.ray_init.num_gpus=2: the trainer takes 1 "),
        (["data.train_batch_size=6"], "relay_verl: data.train_batch_size=6 is not a multiple of "),
        (["actor_rollout_ref.model.path=/no/such/model"], "relay_verl: "),
    ],
)
def test_bad_input_ends_the_real_command_with_one_line(overrides: list[str], line: str, tmp_path: Path) -> None:
    """The real entry point: it exits before Ray starts, and leaves nothing but Hydra's own log folder."""
    done = subprocess.run(
        [sys.executable, "-m", "verl.trainer.main_ppo", "+recipe=relay_tiny", "hydra.output_subdir=null", *overrides],
        env=os.environ | {"VERL_PLATFORM": "cpu", "RELAY_TINY_DIR": str(tmp_path / "nothing")},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1].startswith(line), done.stderr[-2000:]
    assert "Traceback" not in done.stderr
    assert "Started a local Ray" not in done.stderr


def test_an_installation_has_every_package() -> None:
    """`packages` in setup.cfg is a list by hand, as the recipes lie outside the package."""
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    listed = {name for name in config["options"]["packages"].split() if name.startswith("relay_verl.")}
    folders = {str(f.parent.relative_to(ROOT)).replace("/", ".") for f in (ROOT / "relay_verl").rglob("*.py")}
    assert listed == {name for name in folders if name != "relay_verl" and "_hydra" not in name}
