"""LoRA before a model loads: what its keys mean to verl, what it takes, and what of it cannot be right."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf
from safetensors.torch import save_file

from relay_verl.checkpoints.space import checkpoint_bytes
from relay_verl.errors import UserError
from relay_verl.models.address import check_model_path, is_adapter
from relay_verl.preflight.check import CheckWarning
from relay_verl.preflight.cpu_memory import cpu_terms
from relay_verl.preflight.lora import check_lora
from relay_verl.recipes.adapter import count_adapter
from relay_verl.recipes.compose import compose, compose_overrides
from relay_verl.recipes.memory import GIB, reference_term, training_phase, writing_phase
from relay_verl.recipes.memory import Term as MemoryTerm
from relay_verl.recipes.shapes import SHAPES, Shape
from relay_verl.run_config import RunConfig

# ---- what it takes ----

LAYERS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def lora(rank: int = 4, **keys: Any) -> Any:
    return OmegaConf.create({"lora_rank": rank, "target_modules": "all-linear", "exclude_modules": None} | keys)


def trained_by_peft(shape: Shape, model: Any) -> int:
    """Parameters that PEFT itself trains in a model of this shape."""
    from peft import LoraConfig, TaskType, get_peft_model
    from transformers import Qwen3Config, Qwen3ForCausalLM

    names = {"num_layers": "num_hidden_layers", "hidden": "hidden_size", "num_heads": "num_attention_heads"}
    names |= {"num_kv_heads": "num_key_value_heads", "intermediate": "intermediate_size", "vocab": "vocab_size"}
    sizes = {name: getattr(shape, field) for field, name in names.items()}
    config = Qwen3Config(head_dim=shape.head_dim, **sizes)
    plain: Any = OmegaConf.to_container(model)
    with torch.device("meta"):
        adapted = get_peft_model(
            Qwen3ForCausalLM(config),
            LoraConfig(
                task_type=TaskType.CAUSAL_LM,
                r=plain["lora_rank"],
                target_modules=plain["target_modules"],
                exclude_modules=plain["exclude_modules"],
            ),
        )
    return int(adapted.get_nb_trainable_parameters()[0])


SMALL = Shape(num_layers=2, hidden=32, num_heads=4, num_kv_heads=2, intermediate=48, head_dim=8, vocab=100)
ADAPTED = [
    lora(),
    lora(target_modules=["q_proj", "mlp.down_proj"]),
    lora(target_modules=r".*\.(k|v)_proj"),
    lora(exclude_modules=["up_proj"]),
]


@pytest.mark.parametrize("model", ADAPTED, ids=str)
def test_the_count_is_pefts_own(model: Any) -> None:
    assert count_adapter(SMALL, model) == trained_by_peft(SMALL, model)


def test_without_lora_all_weights_are_trained() -> None:
    assert count_adapter(SMALL, lora(0)) is None
    assert count_adapter(SMALL, OmegaConf.create({})) is None


@given(st.integers(1, 64), st.sets(st.sampled_from(LAYERS), min_size=1))
def test_the_count_grows_with_rank_and_layers(rank: int, layers: set[str]) -> None:
    def count(rank: int, targets: Any) -> int:
        return count_adapter(SMALL, lora(rank, target_modules=targets)) or 0

    assert count(rank, sorted(layers)) == rank * count(1, sorted(layers))
    assert count(rank, sorted(layers)) == sum(count(rank, [name]) for name in layers) <= count(rank, "all-linear")


ENGINE = OmegaConf.create(
    {
        "offload_policy": False,
        "param_offload": False,
        "optimizer_offload": False,
        "fsdp_size": -1,
        "model_dtype": "fp32",
    }
)
OTHERS = {"enable_gradient_checkpointing": True, "use_fused_kernels": False}


def test_gradients_and_moments_are_the_adapters() -> None:
    shape, model = SHAPES["Qwen/Qwen3-1.7B"], lora(32, **OTHERS)
    adapter = count_adapter(shape, model)
    assert adapter
    terms = {term.name: term.num_bytes for term in training_phase(shape, ENGINE, model, 2, 1000).terms}
    assert terms["weights"] == 4 * shape.num_parameters / 2
    assert (terms["adapter"], terms["gradients"], terms["Adam's moments"]) == (2 * adapter, 2 * adapter, 4 * adapter)
    share = MemoryTerm("share", "", 1.0)
    full, small = (writing_phase(shape, ENGINE, each, 2, share).gib for each in (lora(0, **OTHERS), model))
    assert full - small == pytest.approx((4 * shape.num_parameters - 4 * adapter - 2 * adapter) / GIB)


def test_lora_has_no_reference_of_its_own() -> None:
    shape = SHAPES["Qwen/Qwen3-1.7B"]
    assert reference_term(compose("relay_1.7b", []), shape, 4) is not None
    assert reference_term(compose("relay_1.7b", ["actor_rollout_ref.model.lora_rank=32"]), shape, 4) is None


@pytest.fixture
def student(tmp_path: Path) -> Path:
    """A folder of `SMALL` with all weights, tied."""
    folder = tmp_path / "student"
    folder.mkdir()
    facts = {"model_type": "qwen3", "num_hidden_layers": 2, "hidden_size": 32, "num_attention_heads": 4}
    facts |= {"num_key_value_heads": 2, "intermediate_size": 48, "head_dim": 8, "vocab_size": 100}
    (folder / "config.json").write_text(json.dumps(facts | {"tie_word_embeddings": True}))
    weights = {"model.embed_tokens.weight": torch.zeros(100, 32), "model.norm.weight": torch.zeros(32)}
    for layer in range(2):
        for name in LAYERS:
            part = "self_attn" if name[0] in "qkvo" else "mlp"
            weights[f"model.layers.{layer}.{part}.{name}.weight"] = torch.zeros(8, 32)
    save_file(weights, folder / "model.safetensors")
    return folder


NUM_WEIGHTS = 100 * 32 + 32 + 2 * 7 * 8 * 32


def recipe(student: Path, *overrides: str) -> Any:
    return compose("relay_tiny", [f"actor_rollout_ref.model.path={student}", *overrides])


def test_a_checkpoint_and_the_memory_on_cpu_hold_the_moments_of_the_adapter_alone(student: Path) -> None:
    on = ["actor_rollout_ref.model.lora_rank=4"]
    adapter = count_adapter(SMALL, lora(4))
    assert adapter
    assert checkpoint_bytes(recipe(student)) == 12 * NUM_WEIGHTS
    assert checkpoint_bytes(recipe(student, *on)) == 4 * (NUM_WEIGHTS + adapter) + 8 * adapter
    alone = [*on, "+actor_rollout_ref.actor.checkpoint.save_lora_only=true"]
    assert checkpoint_bytes(recipe(student, *alone)) == 12 * adapter
    full, small = (sum(cpu_terms(RunConfig(recipe(student, *each))).values()) for each in ([], on))
    assert full - small == (16 + 4) * NUM_WEIGHTS - (4 * NUM_WEIGHTS + 16 * adapter)


# ---- what cannot be right ----


MISTAKES = [
    # overrides, beginning of the error after actor_rollout_ref., what else it names
    (["model.lora.rank=8"], "model.lora.rank=8 is Megatron's", "actor_rollout_ref.model.lora_rank"),
    (["model.lora_rank=-1"], "model.lora_rank=-1", "0 to train all weights"),
    (["model.lora_rank=8.5"], "model.lora_rank=8.5", "whole number"),
    (["model.lora_rank=many"], "model.lora_rank=many", "whole number"),
    (["model.lora_rank=8", "model.lora_alpha=0"], "model.lora_alpha=0", "above 0"),
    (["model.lora_rank=8", "model.target_modules=[q_proj,qkv]"], "model.target_modules=", "qkv is not a module"),
    (["model.lora_rank=8", "model.target_modules=q_proj"], "model.target_modules=q_proj", "down_proj, embed_tokens"),
    (["model.lora_rank=8", "model.target_modules='(q'"], "model.target_modules=(q: all-linear, ", "pattern"),
    (["model.lora_rank=8", "model.target_modules=[]"], "model.target_modules=[]", "at least one"),
    (["model.lora_rank=8", "model.target_modules=[q_proj,embed_tokens]"], "model.target_modules=", "untie"),
    (["model.lora_rank=1024", "model.lora.merge=false"], "model.lora_rank=1024", "up to rank 512"),
    (["model.lora_adapter_path=/no/such"], "model.lora_adapter_path=/no/such", "lora_rank"),
    (["model.lora_rank=8", "model.lora_adapter_path=/no/such"], "model.lora_adapter_path=/no/such", "adapter_config"),
    (
        ["model.lora_rank=8", "actor.checkpoint.save_contents=[model,hf_model]"],
        "actor.checkpoint.",
        "relay-verl export",
    ),
]


@pytest.mark.parametrize(("overrides", "line", "named"), MISTAKES, ids=["-".join(each) for each, *_ in MISTAKES])
def test_a_mistake_is_an_error_that_names_the_key(student: Path, overrides: list[str], line: str, named: str) -> None:
    config = recipe(student, *(f"actor_rollout_ref.{override}" for override in overrides))
    with pytest.raises(UserError) as error:
        check_lora(config)
    assert str(error.value).startswith(f"actor_rollout_ref.{line}")
    assert named in str(error.value)
    assert "\n" not in str(error.value)


ADAPTERS = [
    # adapter_config.json, what the error names; none: right
    ({"r": 8, "lora_alpha": 16}, None),
    ({"r": 4, "lora_alpha": 16}, "r=4, but lora_rank=8"),
    ({"r": 8, "lora_alpha": 8}, "lora_alpha=8, but lora_alpha=16"),
    ({"r": 8, "lora_alpha": 16, "use_rslora": True}, "use_rslora=True"),
    ({"r": 8, "lora_alpha": 16, "alpha_pattern": {"q_proj": 2}}, "alpha_pattern"),
    ("[", "not JSON"),
]


@pytest.mark.parametrize(("content", "named"), ADAPTERS, ids=str)
def test_the_adapter_that_training_begins_with(student: Path, tmp_path: Path, content: Any, named: str | None) -> None:
    (tmp_path / "adapter").mkdir()
    text = content if isinstance(content, str) else json.dumps(content)
    (tmp_path / "adapter" / "adapter_config.json").write_text(text)
    keys = ["lora_rank=8", "lora_alpha=16", f"lora_adapter_path={tmp_path}/adapter"]
    config = recipe(student, *(f"actor_rollout_ref.model.{key}" for key in keys))
    if named is None:
        check_lora(config)
        return
    with pytest.raises(UserError) as error:
        check_lora(config)
    assert str(error.value).startswith("actor_rollout_ref.model.lora_adapter_path: ")
    assert named in str(error.value)


RIGHT = [
    # overrides, whether it is doubted, what it says
    ([], False, "all weights are trained"),
    (["model.lora_rank=8"], False, "rank 8, alpha 16, merged"),
    (["model.lora_rank=8", "model.target_modules=[q_proj,v_proj]"], False, "merged"),
    (["model.lora_rank=8", "model.target_modules='.*_proj'"], False, "merged"),
    (["model.lora_rank=8", "rollout.dtype=bfloat16"], True, "rollout.dtype=float32"),
    (["model.lora_rank=8", "model.lora.merge=false"], False, "served as an adapter"),
]


@pytest.mark.parametrize(
    ("overrides", "is_doubted", "text"), RIGHT, ids=["-".join(each) or "none" for each, *_ in RIGHT]
)
def test_what_is_right_or_doubted(
    student: Path, monkeypatch: pytest.MonkeyPatch, overrides: list[str], is_doubted: bool, text: str
) -> None:
    monkeypatch.setenv("VERL_PLATFORM", "cpu")
    said = check_lora(recipe(student, *(f"actor_rollout_ref.{override}" for override in overrides)))
    assert isinstance(said, CheckWarning) == is_doubted
    assert text in said


LOAD_FORMATS = [
    # overrides, whether weights reach the engine on CPU
    ([], True),
    (["rollout.load_format=auto"], False),
    (["rollout.load_format=auto", "model.lora_rank=8"], False),
    (["rollout.load_format=auto", "model.lora_rank=8", "model.lora.merge=false"], True),
]


@pytest.mark.parametrize(("overrides", "is_right"), LOAD_FORMATS, ids=["-".join(each) for each, _ in LOAD_FORMATS])
def test_what_loads_its_own_weights_on_cpu_takes_an_adapter_alone(
    student: Path, monkeypatch: pytest.MonkeyPatch, overrides: list[str], is_right: bool
) -> None:
    config = recipe(student, *(f"actor_rollout_ref.{override}" for override in overrides))
    monkeypatch.setenv("VERL_PLATFORM", "cpu")
    if not is_right:
        with pytest.raises(UserError, match=r"^actor_rollout_ref\.rollout\.load_format=auto: "):
            check_lora(config)
        monkeypatch.delenv("VERL_PLATFORM")
    check_lora(config)


def test_on_gpus_the_adapter_is_served_apart(student: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VERL_PLATFORM", raising=False)
    config = compose("relay_1.7b", [f"actor_rollout_ref.model.path={student}", "actor_rollout_ref.model.lora_rank=8"])
    assert check_lora(config) == "rank 8, alpha 16, served as an adapter"


def test_a_warm_up_with_lora_leaves_no_model_and_says_so(student: Path) -> None:
    words = ["+recipe=warmup_tiny", f"model.path={student}", "model.lora_rank=8"]
    config = compose_overrides(words, "sft_trainer_engine")
    with pytest.raises(UserError, match=r"^checkpoint\.save_contents has hf_model.*model\.lora_rank=0"):
        check_lora(config)
    config.checkpoint.save_contents = ["model"]
    assert check_lora(config) == "rank 8, alpha 16"
    config.model.lora_rank = 0
    assert "all weights" in check_lora(config)


# ---- an adapter is not a model ----


@pytest.mark.parametrize("with_config", [False, True])
def test_an_adapter_in_the_place_of_a_model(
    student: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, with_config: bool
) -> None:
    folder = tmp_path / "adapter"
    folder.mkdir()
    (folder / "adapter_config.json").write_text("{}")
    save_file({"w": torch.zeros(1)}, folder / "adapter_model.safetensors")
    if with_config:
        (folder / "config.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    for path in (str(folder), "adapter", "./adapter"):
        with pytest.raises(UserError) as error:
            check_model_path("--student", path)
        assert str(error.value).startswith(f"--student: {path} is a LoRA adapter")
        assert "relay-verl export" in str(error.value)
    assert not is_adapter(student)
    (student / "adapter_config.json").write_text("{}")
    check_model_path("--student", str(student))  # a whole model in the adapter's folder
