"""Model cards: complete front matter, code that is right, and nothing of the machine."""

import ast
import importlib
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import ModelCard, constants
from hypothesis import given
from hypothesis import strategies as st

from relay_verl.checkpoints.card import card
from relay_verl.checkpoints.card_results import Results
from relay_verl.checkpoints.card_words import command_of, numbers_of, settings_of, without_paths
from relay_verl.checkpoints.export import keep_facts
from relay_verl.checkpoints.record import CheckpointRecord, RunRecord, read_checkpoint
from relay_verl.checkpoints.relay_file import RelayFile, RelayLimits, RelayTemplate, TrainedTeacher
from relay_verl.checkpoints.trained_student import TrainedStudent
from relay_verl.errors import UserError
from relay_verl.pipeline import Run, put_on_card
from relay_verl.weights.catalog import PackagedModel
from relay_verl.weights.dequantized import DequantizedModel
from tests.helpers.checkpoints import make_config, save_checkpoint
from tests.helpers.hub import running_hub


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


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A base model on the hub is asked for its licence."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))


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
    text = card(TrainedStudent(a_record(tmp_path), "student", "bfloat16", results=[results.parent]))
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
        data = ModelCard(card(TrainedStudent(record, "student", "bfloat16"))).data
        assert data.eval_results is None and data.license is None


def test_a_base_that_models_get_fetched_is_the_one_it_says(tmp_path: Path, base: Path) -> None:
    """The card that the hub has of it names its own base."""
    (base / "relay_model.json").write_text('{"hub_id": "Qwen/Qwen3-1.7B-Instruct"}')
    data = ModelCard(card(TrainedStudent(a_record(tmp_path), "student", "bfloat16"))).data
    assert (data.base_model, data.license) == ("Qwen/Qwen3-1.7B-Instruct", "apache-2.0")
    warm = {"actor_rollout_ref.model.path": str(tmp_path / "gone"), "relay.warmup.base_model": str(base)}
    data = ModelCard(card(TrainedStudent(a_record(tmp_path, **warm), "student", "bfloat16"))).data
    assert (data.base_model, data.license) == ("Qwen/Qwen3-1.7B-Instruct", "apache-2.0")


@pytest.mark.parametrize("content", ["[]", "{", '{"hub_id": 3}'])
def test_a_file_of_another_program_is_no_origin(tmp_path: Path, base: Path, content: str) -> None:
    (base / "relay_model.json").write_text(content)
    data = ModelCard(card(TrainedStudent(a_record(tmp_path), "student", "bfloat16"))).data
    assert data.base_model == "Qwen/Qwen3-1.7B"


def test_a_base_on_the_hub_says_its_licence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with running_hub(monkeypatch, tmp_path / "cache") as hub:
        hub.files["Qwen/Qwen3-1.7B"] = {"README.md": b"---\nlicense: apache-2.0\nbase_model: Qwen/Other\n---\n"}
        record = a_record(tmp_path, **{"actor_rollout_ref.model.path": "Qwen/Qwen3-1.7B"})
        data = ModelCard(card(TrainedStudent(record, "student", "bfloat16"))).data
        assert (data.base_model, data.license) == ("Qwen/Qwen3-1.7B", "apache-2.0")
        own = ModelCard(card(TrainedStudent(record, "me/student", "bfloat16", license="mit"))).data
        assert own.license == "mit"


def test_the_usage_is_what_relay_json_says(tmp_path: Path) -> None:
    relay = RelayFile(
        limits=RelayLimits(max_response_tokens=2048, max_calls=3, max_tokens_per_call=64),
        teacher=TrainedTeacher("Qwen/Qwen3-8B"),
        template=RelayTemplate({"enable_thinking": False}),
    )
    text = card(TrainedStudent(a_record(tmp_path), "me/student", "bfloat16", relay))
    for words in (
        "relay-verl serve me/student --teacher Qwen/Qwen3-8B",
        'RelayPair.load("me/student", "Qwen/Qwen3-8B")',
        'LLM("me/student").chat(',
        "chat_template_kwargs={'enable_thinking': False}",
        "at most 2,048 tokens",
        "at most 3 times",
    ):
        assert words in text, words


def test_no_path_of_the_machine_is_in_a_card(tmp_path: Path, base: Path) -> None:
    text = card(TrainedStudent(a_record(tmp_path), "student", "bfloat16"))
    assert str(tmp_path) not in text and "10.1.2.3" not in text
    assert not re.search(r"(?<![\w.:/])/(home|tmp|root|work|data|mnt|Users)/", text)
    assert "trainer.default_local_dir" not in text and "hydra.run.dir" not in text
    assert "'data.train_files=[train.parquet]'" in text


def test_settings_are_in_words(tmp_path: Path) -> None:
    text = card(TrainedStudent(a_record(tmp_path), "student", "bfloat16"))
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
    text = card(TrainedStudent(a_record(tmp_path), "student", "bfloat16"))
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(blocks) == 2
    for block in blocks:
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("relay_verl"):
                module = importlib.import_module(node.module)
                assert all(hasattr(module, name.name) for name in node.names)


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
    model = PackagedModel("q", "Qwen/Q", "apache-2.0", "Q8_0", "q-part-{n}", "1.0", 8, "abc", ((8, "abc"),))
    text = card(DequantizedModel(model, torch.bfloat16))
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
    student = TrainedStudent(record, "student", "float32", metrics=run.metrics, results=[results])
    assert text == card(student)
    assert "| gsm8k | trained relay | 61.70 (56.60–66.10) |" in text
    assert ModelCard(text).data.eval_results


def test_a_student_whose_checkpoint_said_nothing_keeps_its_card(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.student.mkdir()
    (run.student / "README.md").write_text("as it was")
    put_on_card(run, [write_summary(tmp_path / "results")])
    assert (run.student / "README.md").read_text() == "as it was"
