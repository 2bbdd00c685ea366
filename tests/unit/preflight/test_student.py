"""A recipe's student: given, of the recipe's size, and warmed up."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from omegaconf import OmegaConf

from relay_verl.checkpoints.card import card
from relay_verl.checkpoints.trained_student import TrainedStudent
from relay_verl.data.generate import plan_warmup_data
from relay_verl.engines import ScriptedEngine
from relay_verl.errors import UserError
from relay_verl.preflight.check import CheckWarning
from relay_verl.preflight.student import check_student_given, check_student_size, check_warmed_up
from relay_verl.recipes.recipe import find_recipe
from relay_verl.run_config import RunConfig
from relay_verl.trainer import warmup_record
from relay_verl.trainer.warmup_dataset import WarmupDataset
from relay_verl.trainer.warmup_record import WARMUP_FILE, says_warmed_up
from tests.helpers.tokenizers import bpe

SIZES = {
    "1.7B": {"num_hidden_layers": 28, "hidden_size": 2048, "intermediate_size": 6144},
    "0.6B": {"num_hidden_layers": 28, "hidden_size": 1024, "intermediate_size": 3072},
}


def model(folder: Path, size: str, **more: Any) -> str:
    """A folder with the config.json of a Qwen3."""
    folder.mkdir(exist_ok=True)
    facts = {"model_type": "qwen3", "num_attention_heads": 16, "num_key_value_heads": 8, "vocab_size": 151936}
    (folder / "config.json").write_text(json.dumps(facts | SIZES[size] | more))
    return str(folder)


def config(path: str | None, base: str | None = "Qwen/Qwen3-0.6B", **relay: Any) -> RunConfig:
    node = {"teacher": {"path": "big"}, "warmup": {"base_model": base}} | relay
    return RunConfig(OmegaConf.create({"relay": node, "actor_rollout_ref": {"model": {"path": path}}}))


@pytest.mark.parametrize("path", [None, ""])
@pytest.mark.parametrize(("base", "recipe"), [("Qwen/Qwen3-1.7B", "warmup_1.7b"), ("Qwen/Qwen3-0.6B", "warmup_0.6b")])
def test_no_student_is_an_error_that_says_how_to_make_one(path: str | None, base: str, recipe: str) -> None:
    with pytest.raises(UserError) as error:
        check_student_given(config(path, base))
    line = str(error.value)
    assert "\n" not in line
    for part in ("actor_rollout_ref.model.path: ", "RELAY_STUDENT", f"+recipe={recipe}"):
        assert part in line


@pytest.mark.parametrize("name", ["relay_1.7b", "relay_0.6b"])
def test_the_recipes_have_no_default_student(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = {**find_recipe("relay_1.7b").keys, **find_recipe(name).keys}
    node = OmegaConf.create({})
    for key, value in keys.items():
        OmegaConf.update(node, key, value)
    monkeypatch.delenv("RELAY_STUDENT", raising=False)
    base = node.relay.warmup.base_model
    assert node.actor_rollout_ref.model.path is None
    assert RunConfig(node).student == base == f"Qwen/Qwen3-{name.removeprefix('relay_').upper()}"
    monkeypatch.setenv("RELAY_STUDENT", "/models/warm")
    assert node.actor_rollout_ref.model.path == RunConfig(node).student == "/models/warm"


def test_a_student_of_another_size_is_an_error_that_names_both(tmp_path: Path) -> None:
    large, small = model(tmp_path / "1.7b-warm", "1.7B"), model(tmp_path / "0.6b-warm", "0.6B")
    assert check_student_size(config(small)) == "that of Qwen/Qwen3-0.6B"
    assert check_student_size(config(large, "Qwen/Qwen3-1.7B")) == "that of Qwen/Qwen3-1.7B"
    for path in (large, "Qwen/Qwen3-1.7B"):
        with pytest.raises(UserError) as error:
            check_student_size(config(path))
        line = str(error.value)
        for part in (f"model.path: {path} has", "hidden_size 2048", "hidden_size 1024", "base_model=Qwen/Qwen3-0.6B"):
            assert part in line
        assert "num_hidden_layers" not in line, "what is the same is not named"


def test_the_base_may_be_a_folder_and_the_vocabulary_padded(tmp_path: Path) -> None:
    base = model(tmp_path / "base", "0.6B")
    assert check_student_size(config(model(tmp_path / "warm", "0.6B", vocab_size=152064), base)) == f"that of {base}"
    with pytest.raises(UserError):
        check_student_size(config(model(tmp_path / "other", "1.7B"), base))


NOT_COMPARED = [
    # student, base, what the text names, why
    ("me/relay-warm-1.7b", "Qwen/Qwen3-0.6B", "me/relay-warm-1.7b", "a hub id that is not in the cache"),
    ("Qwen/Qwen3-0.6B", None, "relay.warmup.base_model", "no base is named"),
    ("Qwen/Qwen3-0.6B", "/no/such/base", "/no/such/base", "its base is elsewhere"),
]


@pytest.mark.parametrize(("path", "base", "named", "why"), NOT_COMPARED, ids=[why for *_, why in NOT_COMPARED])
def test_what_is_not_known_is_not_compared_and_says_so(path: str, base: str | None, named: str, why: str) -> None:
    text = check_student_size(config(path, base))
    assert text.startswith("not compared"), why
    assert named in text


def test_a_student_without_a_record_of_a_warm_up_is_a_warning(tmp_path: Path) -> None:
    path = model(tmp_path / "student", "0.6B")
    warning = check_warmed_up(config(path))
    assert isinstance(warning, CheckWarning)
    assert WARMUP_FILE in warning
    assert path in warning
    (tmp_path / "student" / WARMUP_FILE).write_text("{}")
    assert not isinstance(check_warmed_up(config(path)), CheckWarning)


def test_the_base_model_itself_is_a_warning() -> None:
    assert isinstance(check_warmed_up(config("Qwen/Qwen3-0.6B")), CheckWarning)
    assert not isinstance(check_warmed_up(config("Qwen/Qwen3-0.6B", max_calls=0)), CheckWarning), (
        "plain GRPO starts there"
    )
    assert not isinstance(check_warmed_up(config("Qwen/Qwen3-0.6B", policy="teacher_free")), CheckWarning)


def test_an_export_of_ours_needs_no_further_warm_up(tmp_path: Path) -> None:
    path = model(tmp_path / "student", "0.6B")
    readme = tmp_path / "student" / "README.md"
    for text in ("# A model", "---\ntags: [qwen]\n---\n", "---\ntags: [\n---\n", "---\n---\n"):
        readme.write_text(text)
        assert not says_warmed_up(Path(path)), text
    readme.write_text(card(TrainedStudent(None, "mine", "bfloat16")))
    assert says_warmed_up(Path(path))


def test_the_base_model_changes_nothing_of_the_warm_ups_data(tmp_path: Path) -> None:
    """A job that was started before resumes, and its sampler takes what is left."""
    relay = {"teacher": {"path": "big"}}
    node = OmegaConf.create({"relay": relay, "data": {"max_response_length": 8, "apply_chat_template_kwargs": {}}})
    source = SimpleNamespace(sha256="0", locate=lambda ids: {})
    without = plan_warmup_data(RunConfig(node), source, "student")  # type: ignore[arg-type]
    node.relay.warmup = {"base_model": "Qwen/Qwen3-0.6B"}
    plan = plan_warmup_data(RunConfig(node), source, "student")  # type: ignore[arg-type]
    assert plan.spec == without.spec
    plan.make_worker(ScriptedEngine(bpe(), []), bpe())


# ---- what the SFT trainer leaves ----


def warm_up_data(path: Path) -> str:
    columns = {"input_ids": [[1, 2], [3, 4]], "loss_mask": [[0, 1], [0, 1]], "is_finished": [True, True]}
    pq.write_table(pa.table(columns), path)
    return str(path)


def handler(folder: Path, dataset: Any, rank: int = 0, *, has_hf: bool = True) -> Any:
    """verl's checkpoint handler around an engine that saves; wrapped as the plugin does it."""

    class CheckpointHandler:
        default_local_dir = str(folder)
        train_dataloader = SimpleNamespace(dataset=dataset)

        def save_checkpoint(self, step: int) -> None:
            (folder / f"global_step_{step}" / ("huggingface" if has_hf else "other")).mkdir(parents=True)

    module = SimpleNamespace(CheckpointHandler=CheckpointHandler)
    for _ in range(2):
        warmup_record.install(module)
    CheckpointHandler.rank = rank  # type: ignore[attr-defined]
    return CheckpointHandler()


def test_a_warm_up_leaves_a_record_in_the_folder_that_grpo_starts_from(tmp_path: Path) -> None:
    data = OmegaConf.create({"truncation": "right", "max_length": 8})
    dataset = WarmupDataset(warm_up_data(tmp_path / "warmup.parquet"), None, data)
    handler(tmp_path / "run", dataset).save_checkpoint(7)
    saved = tmp_path / "run" / "global_step_7" / "huggingface"
    record = json.loads((saved / WARMUP_FILE).read_text())
    assert (record["step"], record["num_rows"], record["files"]) == (7, 2, ["warmup.parquet"])
    assert says_warmed_up(saved)
    handler(tmp_path / "other", dataset, rank=1).save_checkpoint(7)
    handler(tmp_path / "other", dataset, has_hf=False).save_checkpoint(8)
    handler(tmp_path / "other", [1, 2, 3]).save_checkpoint(9)
    assert not list((tmp_path / "other").rglob(WARMUP_FILE)), "another rank, no model, other data"


def test_verl_has_what_is_wrapped() -> None:
    import inspect

    from verl.utils.checkpoint.checkpoint_handler import CheckpointHandler

    assert list(inspect.signature(CheckpointHandler.save_checkpoint).parameters) == ["self", "step"]
    assert CheckpointHandler.save_checkpoint.is_relay_save, "the plugin wraps it"
