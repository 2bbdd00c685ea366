"""The catalog of recipes: shapes and their counts, the estimate's arithmetic, the listing, what a recipe refuses."""

import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from hydra_plugins.relay_verl.searchpath import refuse_two_recipes
from omegaconf import OmegaConf
from rich.console import Console
from typer.testing import CliRunner

from relay_verl.cli.main import app
from relay_verl.config import read_settings
from relay_verl.errors import UserError
from relay_verl.preflight.student import check_trains_student
from relay_verl.preflight.wiring import check_replay_buffer
from relay_verl.recipes.compose import compose
from relay_verl.recipes.composed import compose_all, differences
from relay_verl.recipes.estimate import estimate
from relay_verl.recipes.listing import listing
from relay_verl.recipes.memory import CONTEXT_GIB, FUSED_GIB, GIB, training_phase, update_phase, vllm_engine
from relay_verl.recipes.overrides import check_recipe_choice
from relay_verl.recipes.paper import paper, rows
from relay_verl.recipes.recipe import find_recipe, flat, lineage, recipe_names
from relay_verl.recipes.shapes import SHAPES, Shape, read_shape, shape_of
from relay_verl.run_config import RunConfig, read_all

# ---- shapes ----


PUBLISHED = [
    # model, all parameters in millions, without embedding and head in billions: the model cards say both
    ("Qwen/Qwen3-0.6B", 596, 0.44),
    ("Qwen/Qwen3-1.7B", 1720, 1.4),
    ("Qwen/Qwen3-4B", 4022, 3.6),
    ("Qwen/Qwen3-8B", 8191, 6.95),
    ("Qwen/Qwen3-14B", 14768, 13.2),
    ("Qwen/Qwen3-32B", 32762, 31.2),
]


def test_what_keeps_verl_from_being_imported_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as a file of the working directory's that hides a module of the standard library."""
    monkeypatch.setitem(sys.modules, "verl.trainer.config", None)
    with pytest.raises(UserError, match=r"verl cannot be imported: ModuleNotFoundError: import of verl"):
        compose("relay_tiny")


@pytest.mark.parametrize(("name", "millions", "inner_billions"), PUBLISHED)
def test_parameters_follow_from_the_shape(name: str, millions: int, inner_billions: float) -> None:
    shape = SHAPES[name]
    assert round(shape.num_parameters / 1e6) in (millions, millions + 1)
    assert shape.num_inner / 1e9 == pytest.approx(inner_billions, abs=0.051 if inner_billions > 1 else 0.005)


def test_a_tiny_shape_by_hand() -> None:
    shape = Shape(num_layers=2, hidden=8, num_heads=2, num_kv_heads=1, intermediate=16, head_dim=4, vocab=10)
    layer = (8 * 8 + 8 * 8) + 2 * (8 * 4) + 3 * 8 * 16 + 2 * 8 + 2 * 4  # query and output, key and value, MLP, norms
    assert shape.num_layer == layer
    assert shape.num_parameters == 2 * layer + 8 + 2 * 80
    assert shape.kv_bytes == 2 * 2 * 1 * 4 * 2  # layers, key and value, heads, width, bf16


def config_json(shape: Shape, **changes: Any) -> dict[str, Any]:
    return {
        "model_type": "qwen3",
        "num_hidden_layers": shape.num_layers,
        "hidden_size": shape.hidden,
        "num_attention_heads": shape.num_heads,
        "num_key_value_heads": shape.num_kv_heads,
        "intermediate_size": shape.intermediate,
        "head_dim": shape.head_dim,
        "vocab_size": shape.vocab,
        "tie_word_embeddings": shape.is_tied,
    } | changes


def test_a_folder_says_its_own_shape(tmp_path: Path) -> None:
    shape = SHAPES["Qwen/Qwen3-1.7B"]
    (tmp_path / "config.json").write_text(json.dumps(config_json(shape)))
    assert shape_of(str(tmp_path)) == shape
    assert shape_of("Qwen/Qwen3-1.7B") == shape


UNKNOWN = [
    # content of config.json, why
    (config_json(SHAPES["Qwen/Qwen3-8B"], num_experts=128), "a mixture of experts is counted otherwise"),
    ({"text_config": {}}, "no numbers where they should be"),
    (config_json(SHAPES["Qwen/Qwen3-8B"], num_attention_heads=0, head_dim=None), "no head"),
    ([], "no object"),
]


@pytest.mark.parametrize(("content", "why"), UNKNOWN, ids=[why for _, why in UNKNOWN])
def test_shapes_that_are_unknown(content: Any, why: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(content))
    assert shape_of(str(tmp_path)) is None, why


def test_models_that_are_elsewhere_are_unknown() -> None:
    assert shape_of("no one/no-such-model-7b") is None
    assert shape_of("/no/such/folder") is None
    assert shape_of(None) is None


def test_other_families_have_no_head_norms() -> None:
    shape = read_shape(config_json(SHAPES["Qwen/Qwen3-8B"], model_type="llama"))
    assert shape is not None
    assert shape.num_layer == SHAPES["Qwen/Qwen3-8B"].num_layer - 2 * 128


# ---- the estimate ----


def fsdp(**changes: Any) -> Any:
    given = {"offload_policy": False, "param_offload": False, "optimizer_offload": False, "fsdp_size": -1}
    return OmegaConf.create(given | {"model_dtype": "fp32"} | changes)


MODEL = OmegaConf.create({"enable_gradient_checkpointing": True, "use_fused_kernels": False})
ONE = Shape(num_layers=1, hidden=128, num_heads=1, num_kv_heads=1, intermediate=256, vocab=1000)


def terms(phase: Any) -> dict[str, float]:
    assert phase.gib * GIB == pytest.approx(sum(term.num_bytes for term in phase.terms))
    return {term.name: term.num_bytes for term in phase.terms}


def test_training_state_is_16_bytes_a_parameter_over_the_gpus() -> None:
    sizes = terms(training_phase(ONE, fsdp(), MODEL, 4, 100))
    state = [sizes[name] for name in ("weights", "gradients", "Adam's moments")]
    assert state == [ONE.num_parameters * size / 4 for size in (4, 4, 8)]
    assert sizes["logits"] == 100 * 1000 * 2 * 3
    assert sizes["kept states"] == 100 * 128 * 1 * 2
    assert sizes["context and buffers"] == CONTEXT_GIB * GIB


STATE_CASES = [
    # engine, bytes a parameter on a GPU of 4, why
    ({"fsdp_size": 2}, 16 / 2, "sharded over 2, replicated over the rest"),
    ({"fsdp_size": 8}, 16 / 4, "no more shards than GPUs"),
    ({"model_dtype": "bf16"}, 8 / 4, "half of each"),
    ({"offload_policy": True}, 0, "all of it lies in host memory"),
    ({"param_offload": True, "optimizer_offload": True}, 16 / 4, "they come back for training"),
]


@pytest.mark.parametrize(("engine", "size", "why"), STATE_CASES, ids=[why for *_, why in STATE_CASES])
def test_training_state_otherwise(engine: dict, size: float, why: str) -> None:
    sizes = terms(training_phase(ONE, fsdp(**engine), MODEL, 4, 100))
    held = sum(sizes.get(name, 0) for name in ("weights", "gradients", "Adam's moments"))
    assert held == ONE.num_parameters * size, why


def test_without_checkpointing_every_layer_keeps_its_activations() -> None:
    plain = OmegaConf.merge(MODEL, {"enable_gradient_checkpointing": False, "use_fused_kernels": True})
    two = Shape(num_layers=2, hidden=128, num_heads=1, num_kv_heads=1, intermediate=256, vocab=1000)
    sizes = terms(training_phase(two, fsdp(), plain, 4, 100))
    assert sizes["activations"] == 2 * terms(training_phase(two, fsdp(), MODEL, 4, 100))["one layer anew"]
    assert "logits" not in sizes, "fused kernels never hold them"
    assert sizes["fused loss"] == FUSED_GIB * GIB


MEASURED = [
    # shape, tokens of a micro-batch, fused kernels, GiB: verl 0.9.1's SFT trainer, `+recipe=warmup_1.7b`, on one H200
    # (PyTorch 2.11, sdpa), three steps of random weights and tokens, torch.cuda.max_memory_allocated in the third
    ("Qwen/Qwen3-1.7B", 8192, False, 33.73),
    ("Qwen/Qwen3-1.7B", 16384, False, 41.88),
    ("Qwen/Qwen3-0.6B", 16384, False, 24.12),
    ("Qwen/Qwen3-1.7B", 4096, True, 32.12),
    ("Qwen/Qwen3-1.7B", 16384, True, 32.12),
    ("Qwen2.5-0.5B", 16384, True, 10.66),
]
QWEN25 = Shape(24, 896, 14, 2, 4864, head_dim=64, is_tied=True, has_head_norms=False)


@pytest.mark.parametrize(("name", "num_tokens", "is_fused", "gib"), MEASURED)
def test_the_estimate_is_what_a_gpu_measured(name: str, num_tokens: int, is_fused: bool, gib: float) -> None:
    shape, model = SHAPES.get(name, QWEN25), OmegaConf.merge(MODEL, {"use_fused_kernels": is_fused})
    phases = training_phase(shape, fsdp(), model, 1, num_tokens), update_phase(shape, fsdp(), model, 1)
    assert max(phase.gib for phase in phases) - CONTEXT_GIB == pytest.approx(gib, rel=0.06)


TEACHERS = [
    # model, GPUs a replica, GiB of a GPU, whether vLLM starts, why
    ("Qwen/Qwen3-8B", 1, 79, True, "the paper's"),
    ("Qwen/Qwen3-8B", 1, 39, True, "15 GiB of weights"),
    ("Qwen/Qwen3-14B", 1, 39, True, "28 GiB of weights leave room for a context"),
    ("Qwen/Qwen3-32B", 1, 79, True, "61 GiB of weights leave 4 GiB, which is one context"),
    ("Qwen/Qwen3-32B", 2, 79, True, "what the recipe says"),
    ("Qwen/Qwen3-32B", 2, 39, False, "it would need four GPUs"),
    ("Qwen/Qwen3-32B", 4, 39, True, "and has room on them"),
]


@pytest.mark.parametrize(("name", "gpus", "gib", "fits", "why"), TEACHERS)
def test_teachers_that_fit(name: str, gpus: int, gib: float, fits: bool, why: str) -> None:
    assert vllm_engine(SHAPES[name], 0.85, gpus, 12544, gib).fits == fits, why


def test_a_32b_teacher_on_one_gpu_would_read_one_response_at_a_time() -> None:
    one, two = (vllm_engine(SHAPES["Qwen/Qwen3-32B"], 0.85, gpus, 12544, 79) for gpus in (1, 2))
    assert one.num_tokens // 12544 == 1
    assert two.num_tokens // 12544 == 22


def test_the_cache_is_what_the_weights_leave() -> None:
    engine = vllm_engine(SHAPES["Qwen/Qwen3-8B"], 0.5, 2, 4096, 80.0)
    assert engine.token_bytes == 2 * 2 * 36 * 8 * 128 / 2, "half of the heads on each GPU"
    left = 40 * GIB - 8_190_735_360 * 2 / 2 - 2 * GIB
    assert engine.num_tokens == int(left / engine.token_bytes)


def test_the_estimate_of_a_recipe() -> None:
    config = compose("relay_1.7b", ["relay.teacher.num_replicas=3"])
    memory = estimate(RunConfig(config), 79.0)
    assert (memory.num_trainer_gpus, memory.num_teacher_gpus, memory.unknown) == (4, 3, ())
    writes, trains, steps = memory.phases
    assert writes.gib == pytest.approx(0.6 * 79 + 12 * SHAPES["Qwen/Qwen3-1.7B"].num_parameters / 4 / GIB + CONTEXT_GIB)
    assert terms(trains)["kept states"] == 16384 * 2048 * 28 * 2
    assert terms(steps)["AdamW's copy"] == 4 * SHAPES["Qwen/Qwen3-1.7B"].num_parameters / 4
    assert memory.peak_gib == writes.gib
    assert memory.fits
    assert memory.host is not None
    assert not estimate(RunConfig(config), 16.0).fits


def test_several_teachers_take_their_gpus_together_and_the_tightest_is_shown() -> None:
    teachers = (
        "relay.teachers=[{path: Qwen/Qwen3-8B, num_replicas: 2}, {path: Qwen/Qwen3-32B, tensor_parallel_size: 2}]"
    )
    memory = estimate(RunConfig(compose("relay_1.7b", [teachers])), 79.0)
    assert memory.num_teacher_gpus == 2 + 2
    assert memory.teacher
    assert "32,762.1M" in memory.teacher.weights.arithmetic


def test_an_endpoint_takes_no_gpu_and_an_unknown_student_is_said(tmp_path: Path) -> None:
    words = ["relay.teacher.path=null", "relay.teacher.base_url=http://127.0.0.1:9/v1"]
    memory = estimate(RunConfig(compose("relay_1.7b", [*words, f"actor_rollout_ref.model.path={tmp_path}"])), 79.0)
    assert (memory.num_teacher_gpus, memory.teacher, memory.phases) == (0, None, ())
    assert memory.unknown == (str(tmp_path),)


# ---- recipes ----


def test_a_recipe_as_its_file_says_it() -> None:
    recipe = find_recipe("relay_1.7b_no_exploration")
    assert recipe.description == "Table 3, w/o Explor. Reward: a query that no sample solves earns nothing."
    assert (recipe.parent, dict(recipe.keys)) == ("relay_1.7b", {"relay.reward.exploration": False})
    assert recipe.row is not None
    assert (recipe.row.name, recipe.table) == ("1.7b/no_exploration", "Table 3")
    assert [each.name for each in lineage(find_recipe("grpo_0.6b"))] == [
        "grpo_0.6b",
        "relay_0.6b_simple",
        "relay_0.6b",
        "relay_1.7b",
    ]


def test_every_recipe_says_what_it_is() -> None:
    assert [name for name in recipe_names() if not find_recipe(name).description.endswith((".", ")"))] == []


@pytest.mark.parametrize("name", ["relay_1.7bb", "", "../relay/base", "relay_1.7b,relay_tiny"])
def test_an_unknown_recipe_lists_the_valid_ones(name: str) -> None:
    with pytest.raises(UserError, match=r"no such recipe; one of citer_0\.6b, .*warmup_tiny") as caught:
        find_recipe(name)
    assert str(caught.value).startswith(f"recipe={name}: ")


def test_the_rows_of_the_paper_name_their_recipes() -> None:
    named = [row.recipe for row in rows() if row.recipe is not None]
    assert set(named) <= set(recipe_names())
    assert len(named) == len(set(named)) == 34
    untrained = {row.method for row in rows() if row.recipe is None}
    assert untrained == {"base", "teacher", "collm", "entropy"}, "nothing is trained, or heads alone"


def test_flat() -> None:
    assert flat({"a": {"b": {}, "c": {"d": [1]}}, "e": None}) == {"a.b": {}, "a.c.d": [1], "e": None}


# ---- what a recipe refuses ----


ENDPOINT = ["relay.teacher.path=null", "relay.teacher.base_url=http://127.0.0.1:9/v1"]
KEPT = [
    # recipe, overrides, why
    ("relay_1.7b", ["relay.reward.kind=simple"], "a root is about nothing: this is how a variant is made"),
    ("relay_1.7b_simple", ["relay.reward.kind=simple"], "the recipe's own value"),
    ("relay_1.7b_simple", ["relay.max_calls=5"], "not what it is about"),
    ("relay_1.7b_simple", ["relay.reward={kind: simple,charge: requested}"], "a group with its own value"),
    ("relay_1.7b_simple", ["data.seed=2"], "a seed is free"),
    ("relay_1.7b_no_filter", ["relay.filter.min_pass_rate=0"], "0 is 0.0"),
    ("relay_0.6b", ["actor_rollout_ref.model.path=/models/mine"], "a path is an address"),
    ("teacher_14b", ["relay.teacher.path=/models/Qwen3-14B"], "the same model elsewhere"),
    ("teacher_14b", ["relay.teacher.path=/models/Qwen3-14B/"], "the same with a slash"),
    ("teacher_14b", ["relay.teacher.tensor_parallel_size=4"], "GPUs are what one has"),
    ("teacher_14b", ["trainer.n_gpus_per_node=8", "relay.teacher.num_replicas=2"], "the same"),
    ("teacher_14b", [*ENDPOINT, "relay.teacher.model=Qwen/Qwen3-14B"], "an endpoint that says which model it is"),
    ("relay_1.7b_simple", ["relay.teacher.path=Qwen/Qwen3-4B"], "not about the teacher"),
    ("relay_1.7b_simple", ENDPOINT, "an endpoint is an address"),
]
MODIFIED = [
    # recipe, overrides, what is said of them, what the refusal offers, why
    (
        "relay_1.7b_simple",
        ["relay.reward.kind=difficulty_aware"],
        "relay.reward.kind=difficulty_aware (recipe relay_1.7b_simple sets simple)",
        "+recipe=relay_1.7b relay.reward.kind=difficulty_aware instead",
        "the subject itself",
    ),
    (
        "relay_1.7b_simple",
        ["relay.reward={kind: difficulty_aware}"],
        "relay.reward.kind=difficulty_aware (recipe relay_1.7b_simple sets simple)",
        "+recipe=relay_1.7b relay.reward={kind: difficulty_aware} instead",
        "the same by its group",
    ),
    (
        "relay_1.7b_simple",
        ["++relay.reward.kind=difficulty_aware"],
        "relay.reward.kind=difficulty_aware (recipe relay_1.7b_simple sets simple)",
        "+recipe=relay_1.7b ++relay.reward.kind=difficulty_aware instead",
        "the same by force",
    ),
    (
        "relay_1.7b_simple",
        ["~relay.reward.kind"],
        "relay.reward.kind=null (recipe relay_1.7b_simple sets simple)",
        "+recipe=relay_1.7b ~relay.reward.kind instead",
        "taken out",
    ),
    (
        "grpo_1.7b",
        ["relay.reward.kind=difficulty_aware"],
        "relay.reward.kind=difficulty_aware (recipe relay_1.7b_simple sets simple)",
        "conflicts with recipe grpo_1.7b, a variant of relay_1.7b_simple, which sets relay.reward.kind=simple; "
        "use +recipe=relay_1.7b relay.reward.kind=difficulty_aware instead",
        "what its parent is about counts, too",
    ),
    (
        "grpo_1.7b",
        ["relay.teacher.path=Qwen/Qwen3-8B", "relay.max_calls=2"],
        "relay.max_calls=2 (recipe grpo_1.7b sets 0); relay.teacher.path=Qwen/Qwen3-8B (recipe grpo_1.7b sets null)",
        "+recipe=relay_1.7b_simple relay.max_calls=2 instead",
        "two of them",
    ),
    (
        "relay_1.7b_no_filter",
        ["relay.filter.min_pass_rate=0.3"],
        "relay.filter.min_pass_rate=0.3 (recipe relay_1.7b_no_filter sets 0.0)",
        "+recipe=relay_1.7b relay.filter.min_pass_rate=0.3 instead",
        "a filter",
    ),
    (
        "relay_1.7b_teacher_tokens",
        ["relay.train_on_teacher_tokens=false"],
        "relay.train_on_teacher_tokens=false (recipe relay_1.7b_teacher_tokens sets true)",
        "+recipe=relay_1.7b relay.train_on_teacher_tokens=false instead",
        "a flag",
    ),
    (
        "teacher_14b",
        ["relay.teacher.path=Qwen/Qwen3-32B"],
        "relay.teacher.path=Qwen/Qwen3-32B (recipe teacher_14b sets Qwen/Qwen3-14B)",
        "+recipe=relay_1.7b relay.teacher.path=Qwen/Qwen3-32B instead",
        "another model",
    ),
    (
        "teacher_14b",
        ENDPOINT,
        "relay.teacher.path=null (recipe teacher_14b sets Qwen/Qwen3-14B)",
        "+recipe=relay_1.7b relay.teacher.path=null instead",
        "an endpoint that does not say which model it is",
    ),
]
REFUSED = [
    # recipe, overrides, parts of the line, why
    ("relay_tiny", ["+recipe=grpo_tiny"], ["relay_tiny and grpo_tiny at once"], "two recipes"),
    ("[relay_tiny,grpo_tiny]", [], ["relay_tiny and grpo_tiny at once"], "two as a list"),
    ("warmup_1.7b", [], ["recipe=warmup_1.7b: it is for verl.trainer.sft_trainer"], "another trainer's"),
    ("relay_1.7bb", [], ["recipe=relay_1.7bb: no such recipe; one of citer_0.6b"], "misspelt"),
    ("relay_1.7b", ["relay.no_such_key=1"], ["Could not override 'relay.no_such_key'"], "Hydra's own word in one line"),
]


@pytest.fixture
def mine(tmp_path: Path) -> list[str]:
    """The override that finds a variant of one's own, which is about the teacher."""
    (tmp_path / "recipe").mkdir()
    text = "# @package _global_\ndefaults:\n  - relay_1.7b\nrelay:\n  teacher:\n    path: Qwen/Qwen3-14B\n"
    text += "trainer:\n  experiment_name: teacher_14b\n"
    (tmp_path / "recipe" / "teacher_14b.yaml").write_text(text)
    return [f"hydra.searchpath=['file://{tmp_path}']"]


@pytest.mark.parametrize(("recipe", "words", "why"), KEPT, ids=[f"{recipe}-{why}" for recipe, _, why in KEPT])
def test_overrides_that_leave_a_variant_what_it_is(
    recipe: str, words: list[str], why: str, mine: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert compose(recipe, [*mine, *words, "relay.allow_overrides=false"]).relay is not None, why
    assert compose(recipe, [*mine, *words]).trainer.experiment_name == recipe
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("recipe", "words", "said", "offer", "why"), MODIFIED, ids=[f"{recipe}-{why}" for recipe, *_, why in MODIFIED]
)
def test_overrides_that_undo_a_variant_mark_the_experiment(
    recipe: str,
    words: list[str],
    said: str,
    offer: str,
    why: str,
    mine: list[str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    config = compose(recipe, [*mine, *words])
    assert config.trainer.experiment_name == f"{recipe}-modified", why
    assert config.trainer.default_local_dir == f"checkpoints/relay/{recipe}-modified", "its checkpoints lie apart"
    assert capsys.readouterr().err == f"relay_verl: {said}: the experiment is named {recipe}-modified\n"
    with pytest.raises(UserError) as caught:
        compose(recipe, [*mine, *words, "relay.allow_overrides=false"])
    assert str(caught.value).endswith(f"{offer}, or relay.allow_overrides=true")
    assert "\n" not in str(caught.value)


def test_a_name_on_the_command_line_is_the_experiments(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["relay.reward.kind=difficulty_aware", "trainer.experiment_name=relay_1.7b_simple"]
    assert compose("relay_1.7b_simple", words).trainer.experiment_name == "relay_1.7b_simple"
    assert capsys.readouterr().err.endswith(": the command line names the experiment relay_1.7b_simple\n")


def test_whether_overrides_are_allowed_is_a_plain_boolean() -> None:
    with pytest.raises(UserError, match=r"relay\.allow_overrides: 'no': "):
        read_settings(compose("relay_1.7b", ["relay.allow_overrides=no"]).relay)


@pytest.mark.parametrize(
    ("recipe", "words", "parts", "why"), REFUSED, ids=[f"{recipe}-{why}" for recipe, *_, why in REFUSED]
)
def test_a_command_line_that_no_run_can_have(recipe: str, words: list[str], parts: list[str], why: str) -> None:
    with pytest.raises(UserError) as caught:
        compose(recipe, words)
    assert "\n" not in str(caught.value)
    assert [part for part in parts if part not in str(caught.value)] == [], f"{why}: {caught.value}"


def test_outside_a_hydra_app_there_is_no_command_line_to_check() -> None:
    check_recipe_choice(OmegaConf.create({"relay": {}}))


TWO = [
    # arguments, the names said (None: accepted), why
    (["+recipe=relay_tiny", "data.seed=1"], None, "one"),
    (["+recipe=relay_tiny", "+recipe=grpo_tiny"], "relay_tiny and grpo_tiny", "twice"),
    (["+recipe=[relay_tiny,grpo_tiny]"], "relay_tiny and grpo_tiny", "a list"),
    (["+recipe=relay_tiny,grpo_tiny"], "relay_tiny and grpo_tiny", "a sweep that is none"),
    (["--multirun", "+recipe=relay_tiny,grpo_tiny"], None, "a sweep: one after the other"),
    (["-m", "+recipe=[relay_tiny,grpo_tiny]"], "relay_tiny and grpo_tiny", "a list in a sweep is both at once"),
    (["+recipe=soup", "+recipe=bread"], None, "another app's recipes are its own matter"),
    (["+recipe=mine", "+recipe=relay_tiny"], "mine and relay_tiny", "one of them is ours"),
]


@pytest.mark.parametrize(("arguments", "names", "why"), TWO, ids=[why for *_, why in TWO])
def test_two_recipes_on_a_hydra_apps_command_line(arguments: list[str], names: str | None, why: str) -> None:
    if names is None:
        refuse_two_recipes(arguments)
        return
    with pytest.raises(SystemExit) as end:
        refuse_two_recipes(arguments)
    assert str(end.value.code).startswith(f"relay_verl: +recipe: {names} at once; "), why
    assert "\n" not in str(end.value.code)


# ---- what is printed ----


def test_differences() -> None:
    one = OmegaConf.create({"a": 1, "b": {"c": [1], "d": None}, "e": {}, "gone": True, "same": "${a}"})
    other = OmegaConf.create({"a": 2, "b": {"c": [1, 2], "d": None}, "e": {"f": False}, "same": "${a}"})
    assert [str(each) for each in differences(one, other)] == [
        "  a: 1 -> 2",
        "  b.c: [1] -> [1, 2]",
        "+ e.f: false",
        "- gone: true",
    ]


def run(*words: str) -> str:
    result = CliRunner().invoke(app, ["recipes", *words])
    assert result.exit_code == 0, result.output
    return result.stdout


def test_the_table_has_every_recipe_and_the_papers_numbers() -> None:
    lines = {line.split()[0]: line for line in run().splitlines() if line.strip()}
    assert set(recipe_names()) <= lines.keys()
    assert not any("…" in line for line in lines.values())
    assert lines["relay_1.7b"].split()[-8:] == ["49.52", "1.07", "1.7B", "8B", "4+1", "55+67", "40", "GB"]
    assert "every" not in lines["grpo_1.7b"]
    assert lines["relay_tiny"].split()[-3:] == ["CPU", "-", "-"]


def test_the_table_is_readable_at_100_columns() -> None:
    recipes = [find_recipe(name) for name in ("relay_1.7b", "warmup_1.7b", "relay_tiny", "relay_1.7b_no_independence")]
    console = Console(width=100, file=io.StringIO())
    console.print(listing(recipes, read_all(compose_all(recipes))))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "…" not in text
    assert max(len(line.rstrip()) for line in text.splitlines()) <= 100
    assert all(recipe.name in text for recipe in recipes)


def test_one_recipe_in_full() -> None:
    text = run("relay_0.6b_simple")
    for part in (
        "Table 1, Qwen3-0.6B, RelayLLM (Simple): Eq. 3.",
        "variant of relay_0.6b, about relay.reward.kind",
        "paper, Table 1: Minerva 20.96, MATH500 60.2,",
        "command: python -m verl.trainer.main_ppo +recipe=relay_0.6b_simple",
        "kept states: 16,384 tokens x 1,024 x 28 layers x 2 B",
        "  algorithm.adv_estimator: gae -> grpo",
        "+ relay.reward.kind: simple",
    ):
        assert part in text
    keys = [line[2:].split(":")[0] for line in text.split("Against verl's ppo_trainer")[1].splitlines()[1:]]
    assert keys == sorted(keys)
    assert run("warmup_0.6b").count("torchrun --standalone --nproc_per_node=4 -m verl.trainer.sft_trainer") == 1


def test_one_recipe_against_another() -> None:
    lines = run("relay_1.7b_fixed_20", "--against", "relay_1.7b").splitlines()
    assert lines == [
        "Against relay_1.7b, 2 keys:",
        "  relay.policy: learned -> fixed_20",
        "  trainer.experiment_name: relay_1.7b -> relay_1.7b_fixed_20",
    ]


@pytest.mark.parametrize(("size", "ratio"), [("0.6b", 0.0098), ("1.7b", 0.0134)])
def test_a_head_is_a_variant_of_the_relay_that_trains_no_student(size: str, ratio: float) -> None:
    lines = run(f"citer_{size}", "--against", f"relay_{size}").splitlines()
    assert lines == [
        f"Against relay_{size}, 4 keys:",
        f"  actor_rollout_ref.model.path: ${{oc.env:RELAY_STUDENT,null}} -> Qwen/Qwen3-{size.upper()}",
        "  relay.defer_training.kind: null -> citer",
        f"  relay.defer_training.target_ratio: null -> {ratio}",
        f"  trainer.experiment_name: relay_{size} -> citer_{size}",
    ]
    text = run(f"citer_{size}")
    assert "command: relay-verl defer-data" in text and "GPUs: student 1, teacher 1" in text
    assert f"paper, Table 1: Minerva {paper().find('Table 1', f'{size}/citer')['minerva']:g}" in text
    with pytest.raises(UserError, match=r"relay\.defer_training\.kind: 'citer'"):
        check_trains_student(RunConfig(compose(f"citer_{size}", [])))
    assert check_trains_student(RunConfig(compose(f"relay_{size}", [])))


@pytest.mark.parametrize(
    "words", [["relay_1.7bb"], ["relay_1.7b", "--diff", "relay_1.7bb"], ["--against", "relay_1.7b"]]
)
def test_bad_words_are_one_line(words: list[str]) -> None:
    result = CliRunner().invoke(app, ["recipes", *words])
    assert isinstance(result.exception, UserError)
    assert "\n" not in str(result.exception)


@pytest.mark.parametrize("mode", ["colocate_async", "separate_async"])
def test_verls_asynchronous_modes_with_our_buffer(mode: str) -> None:
    config = compose("relay_1.7b", [f"+relay={mode}"])
    assert config.trainer.v1.trainer_mode == mode
    assert check_replay_buffer(RunConfig(config)) == "AsyncRelayReplayBuffer"
    assert config.trainer.v1.sampler.sampler_kwargs.timeout_s == config.relay.rollout_timeout_s
    is_separate = mode == "separate_async"
    assert (config.actor_rollout_ref.rollout.checkpoint_engine.backend == "nccl") == is_separate
    assert config.actor_rollout_ref.rollout.nnodes == int(is_separate)
