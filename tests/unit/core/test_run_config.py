"""verl's config read into types: what each part has, and what is said where a value is missing or wrong."""

import ast
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from relay_verl.errors import UserError
from relay_verl.run_config import PromptSettings, RunConfig

PACKAGE = Path(__file__).parents[3] / "relay_verl"
CONFIG = {
    "actor_rollout_ref": {
        "model": {"path": None, "tokenizer_path": "t", "custom_chat_template": "{{ x }}", "trust_remote_code": True},
        "rollout": {"max_model_len": 128},
    },
    "data": {
        "train_files": "a.parquet",
        "val_files": ["b.parquet", "c.parquet"],
        "prompt_key": "prompt",
        "min_pass_rate": "${relay.filter.min_pass_rate}",
        "custom_cls": {"name": "TeacherSolvableDataset"},
        "train_batch_size": 8,
        "max_response_length": 64,
        "apply_chat_template_kwargs": {"enable_thinking": False},
    },
    "trainer": {
        "default_local_dir": "~/runs",
        "n_gpus_per_node": 4,
        "nnodes": 2,
        "device": "cuda",
        "save_freq": 10,
        "max_actor_ckpt_to_keep": 2,
    },
    "relay": {"teacher": {"path": "big"}, "filter": {"min_pass_rate": 0.5}, "warmup": {"base_model": "base"}},
}


def run_of(**changes: Any) -> RunConfig:
    """The config above with other values, by dotted key with __ for each dot."""
    config = OmegaConf.create(CONFIG)
    for key, value in changes.items():
        OmegaConf.update(config, key.replace("__", "."), value)
    OmegaConf.set_struct(config, True)  # as Hydra gives it
    return RunConfig(config)


def test_each_part_has_the_values_of_verls_keys() -> None:
    run = run_of()
    assert run.prompts == PromptSettings({"enable_thinking": False}, "t", "{{ x }}", True)
    assert run.prompts.tokenizer_of("student") == "t"
    assert (run.lengths.max_response, run.lengths.max_context) == (64, 128)
    assert run.data.files == {"train_files": ("a.parquet",), "val_files": ("b.parquet", "c.parquet")}
    assert (run.data.min_pass_rate, run.data.batch_size, run.data.dataset_class) == (0.5, 8, "TeacherSolvableDataset")
    assert run.trainer.folder == Path("~/runs").expanduser()
    assert (run.trainer.num_gpus, run.trainer.is_cpu, run.trainer.num_kept) == (8, False, 2)
    assert run.relay.teacher.path == "big"


def test_without_a_student_the_model_that_it_is_warmed_up_from_stands_for_it() -> None:
    assert (run_of().student_path, run_of().student) == (None, "base")
    assert run_of(actor_rollout_ref__model__path="warm").student == "warm"
    assert RunConfig(OmegaConf.create({"model": {"path": "of the SFT trainer"}})).student == "of the SFT trainer"


def test_what_verl_leaves_open_is_none() -> None:
    empty = RunConfig(OmegaConf.create({"data": {"max_response_length": 9}, "trainer": {}}))
    assert (empty.prompts, empty.lengths.max_context) == (PromptSettings({}), None)
    assert empty.data.files == {"train_files": (), "val_files": ()}
    assert (empty.trainer.folder, empty.trainer.num_kept, empty.trainer.saves) == (None, None, False)
    assert not empty.has_relay


@pytest.mark.parametrize(("freq", "saves"), [(10, True), ("after_each_epoch", True), (0, False), (-1, False)])
def test_a_word_for_the_frequency_of_checkpoints_is_verls(freq: Any, saves: bool) -> None:
    assert run_of(trainer__save_freq=freq).trainer.saves is saves


WRONG = [
    # key, value, part, the line
    ("data.max_response_length", None, "lengths", "data.max_response_length: None: expected a whole number"),
    ("data.max_response_length", "long", "lengths", "data.max_response_length: 'long': expected a whole number"),
    ("trainer.nnodes", "two", "trainer", "trainer.nnodes: 'two': expected a whole number"),
    ("relay.max_calls", -1, "relay", "relay.max_calls: -1: "),
]


@pytest.mark.parametrize(("key", "value", "part", "line"), WRONG)
def test_a_wrong_value_is_one_line_and_leaves_the_other_parts_alone(key: str, value: Any, part: str, line: str) -> None:
    run = run_of(**{key.replace(".", "__"): value})
    with pytest.raises(UserError) as error:
        getattr(run, part)
    assert str(error.value).startswith(line)
    assert "\n" not in str(error.value)
    for other in {"prompts", "lengths", "data", "trainer", "relay"} - {part}:
        assert getattr(run, other) is getattr(run, other), "read once"


def test_an_interpolation_without_a_value_names_its_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_SUCH_VARIABLE", raising=False)
    run = run_of(trainer__default_local_dir="${oc.env:NO_SUCH_VARIABLE}")
    with pytest.raises(UserError, match=r"^trainer\.default_local_dir: .*NO_SUCH_VARIABLE"):
        _ = run.trainer


def test_a_changed_copy_leaves_the_first_as_it_is() -> None:
    run = run_of()
    other = run.changed("actor_rollout_ref.rollout.max_model_len", 64)
    assert (other.lengths.max_context, run.lengths.max_context) == (64, 128)
    assert other.data.min_pass_rate == 0.5, "interpolations still lead somewhere"


def test_it_imports_neither_a_model_library_nor_hydra() -> None:
    program = (
        "import sys, relay_verl.run_config\n"
        "print([m for m in ('torch', 'verl', 'ray', 'vllm', 'transformers', 'hydra') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.strip() == "[]"


def test_no_function_takes_verls_config_without_saying_so() -> None:
    """A parameter `config` is a `VerlConfig`, or a type of ours or of another library: never `Any`."""
    bare = []
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                given = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
                bare += [
                    f"{path.name}: {node.name}"
                    for each in given
                    if each.arg == "config" and (each.annotation is None or ast.unparse(each.annotation) == "Any")
                ]
    assert bare == []
