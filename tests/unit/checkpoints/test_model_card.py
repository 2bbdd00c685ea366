"""Model cards: complete front matter, code that is right, and nothing of the machine."""

import ast
import importlib
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard
from hypothesis import given
from hypothesis import strategies as st

from relay_verl.checkpoints.card import card, packaged_card
from relay_verl.checkpoints.card_results import Results
from relay_verl.checkpoints.card_words import command_of, numbers_of, settings_of, without_paths
from relay_verl.checkpoints.export import keep_facts
from relay_verl.checkpoints.record import CheckpointRecord, RunRecord, read_checkpoint
from relay_verl.errors import UserError
from relay_verl.pipeline import Run, put_on_card
from tests.helpers.checkpoints import make_config, save_checkpoint


def a_record(folder: Path, **config: Any) -> CheckpointRecord:
    base = folder / "student_warm"
    overrides = [
        "+recipe=relay_1.7b",
        f"data.train_files=[{folder}/dapo_math_17k/train.parquet]",
        f"actor_rollout_ref.model.path={base}",
        f"trainer.default_local_dir={folder}/checkpoints",
        f"'relay.teacher.path={folder}/teacher'",
        "relay.teacher.base_url=http://10.1.2.3:8000/v1",
        f"hydra.run.dir={folder}/hydra",
        f"hydra.searchpath=[file://{folder}/recipes]",
    ]
    settings = {
        "actor_rollout_ref.model.path": str(base),
        "data.train_files": [f"{folder}/dapo_math_17k/train.parquet"],
        "data.max_response_length": 2048,
        "relay.teacher.path": f"{folder}/teacher",
        "relay.max_calls": None,
        "relay.max_tokens_per_call": 64,
        "relay.num_logged_groups": 1.0,
        "relay.rollout_timeout_s": 300.0,
        "relay.reward.kind": "difficulty_aware",
        "relay.reward.charge": "delivered",
        "relay.reward.independence_bonus": 0.5,
        "relay.reward.stubbornness_penalty": 1.0,
        "relay.reward.exploration": True,
        "relay.filter.min_pass_rate": 0.5,
        "relay.train_on_teacher_tokens": False,
    }
    metrics = {"relay/accuracy": 0.9766, "relay/calls/zero": 0.0, "relay/call_rate": 0.1, "relay/groups/timeout": 0.0}
    run = RunRecord("relay_1.7b", overrides, settings | config, {}, [], {"verl": "0.9.1"})
    return CheckpointRecord(run, 80, {}, metrics)


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A base model on this machine whose card says what it is of, and under which licence."""
    folder = tmp_path / "student_warm"
    folder.mkdir()
    (folder / "README.md").write_text("---\nlicense: apache-2.0\nbase_model: Qwen/Qwen3-1.7B\n---\n# x\n")
    return folder


def write_summary(folder: Path, accuracy: float = 61.7) -> Path:
    numbers = {"accuracy_percent": accuracy, "accuracy_percent_low": 56.6, "accuracy_percent_high": 66.1}
    numbers |= {"call_rate_percent": 33.3, "pooled_call_ratio_percent": 4.59}
    folder.mkdir(parents=True)
    summary = {"in_words": "trained relay", "benchmarks": {"gsm8k": numbers}}
    (folder / "summary.json").write_text(json.dumps(summary))
    return folder


def test_the_front_matter_is_complete(tmp_path: Path, base: Path) -> None:
    results = write_summary(tmp_path / "results" / "relay" / "learned")
    text = card(a_record(tmp_path), None, name="student", dtype="bfloat16", results=[results.parent])
    data = ModelCard(text).data
    assert (data.base_model, data.license, data.language) == ("Qwen/Qwen3-1.7B", "apache-2.0", "en")
    assert (data.datasets, data.pipeline_tag) == (["BytedTsinghua-SIA/DAPO-Math-17k"], "text-generation")
    assert data.library_name == "transformers" and "relay-verl" in data.tags
    ((result),) = data.eval_results
    assert (result.dataset_type, result.metric_type, result.metric_value) == ("gsm8k", "accuracy", 61.7)
    assert "| gsm8k | trained relay | 61.70 (56.60–66.10) | 33.30 | 4.59 |" in text
    assert "--benchmark gsm8k" in text


def test_a_card_without_results_or_record_is_a_card(tmp_path: Path) -> None:
    for record in (None, a_record(tmp_path)):
        data = ModelCard(card(record, None, name="student", dtype="bfloat16")).data
        assert data.eval_results is None and data.license is None


def test_no_path_of_the_machine_is_in_a_card(tmp_path: Path, base: Path) -> None:
    text = card(a_record(tmp_path), None, name="student", dtype="bfloat16")
    assert str(tmp_path) not in text and "10.1.2.3" not in text
    assert not re.search(r"(?<![\w.:/])/(home|tmp|root|work|data|mnt|Users)/", text)
    assert "trainer.default_local_dir" not in text and "hydra.run.dir" not in text
    assert "'data.train_files=[train.parquet]'" in text


def test_settings_are_in_words(tmp_path: Path) -> None:
    text = card(a_record(tmp_path), None, name="student", dtype="bfloat16")
    for words in (
        "a response may call without limit",
        "a call delivers at most 64 tokens",
        "a response has at most 2,048 tokens",
        "0.5 more without a call",
        "solves in at least 50% of its samples",
        "the teacher's tokens are not trained on",
        "# student: a student of the recipe relay_1.7b",
    ):
        assert words in text, words
    for internal in ("relay/", "num_logged_groups", "rollout_timeout_s", "relay.max_calls"):
        assert internal not in text, internal


PATHS = [
    ("trainer.x=/a/b/c", "trainer.x=c", "absolute"),
    ("data.train_files=[/a/b.parquet,/c/d.parquet]", "data.train_files=[b.parquet,d.parquet]", "a list"),
    ("x=~/models/m", "x=m", "home"),
    ("x=../models/m", "x=m", "relative"),
    ("x=Qwen/Qwen3-8B", "x=Qwen/Qwen3-8B", "a hub id"),
    ("x=${oc.env:HOME}/m", "x=${oc.env:HOME}/m", "what the environment says"),
    ("x=http://me:key@host:1/v1", "x=http://HOST", "an endpoint"),
    ("x=file:///a/b", "x=b", "a file's URL"),
    ("data.seed=1", "data.seed=1", "none"),
]


@pytest.mark.parametrize(("text", "shown", "why"), PATHS, ids=[case[2] for case in PATHS])
def test_of_a_path_its_last_part_stays(text: str, shown: str, why: str) -> None:
    assert without_paths(text) == shown, why


@pytest.mark.parametrize("override", ["a.b=/me/my data/x (1)", "'a.b=/me/my data/x (1)'", "a.b='/me/my data/x (1)'"])
def test_blanks_in_a_path_are_of_the_path(override: str) -> None:
    command = command_of([override])
    assert "my data" not in command and "x (1)" in command


@given(st.lists(st.text("abcXYZ0 ._-é", min_size=1).filter(lambda part: part.strip(". ")), min_size=2, max_size=5))
def test_no_folder_of_a_path_is_left(parts: list[str]) -> None:
    path = "/" + "/".join(parts)
    for value in (path, f"['{path}']", f"'{path}'", f"{{a:'{path}',b:1}}"):
        assert f"/{'/'.join(parts[:-1])}/" not in command_of([f"key={value}"])


def test_the_python_on_a_card_is_right(tmp_path: Path) -> None:
    text = card(a_record(tmp_path), None, name="student", dtype="bfloat16")
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(blocks) == 2
    for block in blocks:
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("relay_verl"):
                module = importlib.import_module(node.module)
                assert all(hasattr(module, name.name) for name in node.names)
    from relay_verl.decoder import RelayConfig

    (call,) = [
        node
        for node in ast.walk(ast.parse(blocks[0]))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "RelayConfig"
    ]
    config = RelayConfig(**{word.arg: ast.literal_eval(word.value) for word in call.keywords if word.arg})
    assert (config.max_response_tokens, config.max_calls, config.max_tokens_per_call) == (2048, None, 64)


BAD_RESULTS = ["", "[]", "{}", '{"benchmarks": []}', '{"benchmarks": {"a": {}}}', '{"benchmarks": {"a": 1}}']


@pytest.mark.parametrize("content", BAD_RESULTS)
def test_results_that_are_none_are_named(content: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--results: "):
        Results.read([tmp_path])
    (tmp_path / "summary.json").write_text(content)
    with pytest.raises(UserError, match=r"--results: .*summary\.json") as caught:
        Results.read([tmp_path])
    assert "\n" not in str(caught.value)


def test_a_packaged_model_has_the_same_template() -> None:
    text = packaged_card(hub_id="Qwen/Q", license="apache-2.0", source="a file", changes="Q8_0")
    data = ModelCard(text).data
    assert (data.base_model, data.license, data.pipeline_tag) == ("Qwen/Q", "apache-2.0", "text-generation")
    assert "relay-verl" not in (data.tags or []), "it is not a student that was trained"
    assert "Q8_0" in text and "<call>" not in text


keys = st.sampled_from(["relay.max_calls", "relay.reward.kind", "relay.filter.min_pass_rate"])


@given(st.dictionaries(keys, st.none()))
def test_settings_without_values_are_left_out(config: dict[str, Any]) -> None:
    assert all("None" not in line for line in settings_of(config))


def test_numbers_are_few(tmp_path: Path) -> None:
    metrics = {f"relay/other/{i}": 1.0 for i in range(30)} | {"relay/accuracy": 0.5, "val-core/a/b/acc/mean@4": 0.25}
    assert numbers_of(metrics) == [
        ("right answers, training questions of this step", "50%"),
        ("right answers, validation on a/b, mean of 4 samples", "25%"),
    ]


def test_results_that_come_later_are_put_on_the_card(tmp_path: Path) -> None:
    """As the quickstart does it: the weights are gone by then, and the card is otherwise what the export wrote."""
    config = make_config(tmp_path)
    step_folder = save_checkpoint(config, 5)
    run = Run(tmp_path / "run")
    run.student.mkdir(parents=True)
    run.metrics.write_text(json.dumps({"step": 5, "data": {"relay/accuracy": 0.75}}) + "\n")
    keep_facts(step_folder, run.facts)
    shutil.rmtree(step_folder)
    results = write_summary(tmp_path / "results")
    put_on_card(run, [results])
    text = (run.student / "README.md").read_text()
    record = read_checkpoint(run.facts)
    assert text == card(record, run.metrics, name="student", dtype="float32", results=[results])
    assert "| gsm8k | trained relay | 61.70 (56.60–66.10) |" in text
    assert ModelCard(text).data.eval_results


def test_a_student_whose_checkpoint_said_nothing_keeps_its_card(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.student.mkdir()
    (run.student / "README.md").write_text("as it was")
    put_on_card(run, [write_summary(tmp_path / "results")])
    assert (run.student / "README.md").read_text() == "as it was"
