"""`defer-train` from a label file to a head's folder, and what it refuses before it reads a model."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from transformers import Qwen3Config, Qwen3ForCausalLM

from relay_verl.data.schema import to_row, write_parquet
from relay_verl.defer.head_folder import load_head
from relay_verl.defer_training.head_training import TRAINING_FILE, read_training, train_head
from relay_verl.defer_training.labelled_query import COLUMN, LabelledQuery
from relay_verl.errors import UserError
from relay_verl.run_config import RunConfig


@pytest.fixture(scope="module")
def student(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("student")
    config = Qwen3Config(
        vocab_size=40,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
    )
    Qwen3ForCausalLM(config).save_pretrained(folder)
    return folder


def write_labels(path: Path, *, has_logprobs: bool = True) -> Path:
    """The teacher has to write behind the tokens from 7 on."""
    rng = torch.Generator().manual_seed(0)
    rows = []
    for number in range(12):
        ids = torch.randint(1, 12, (16,), generator=rng).tolist()
        prompt, reference = ids[:4], ids[4:]
        values = [int(before < 7) for before in ids[3:-1]]
        student = [-0.1 if value else -4.0 for value in values]
        logprobs: list[Any] = [student, [-0.5] * 12] if has_logprobs else [None, None]
        sources = [0 if value else 1 for value in values]
        query = LabelledQuery(1, prompt, reference, sources, values, reference, *logprobs, 1, 0, 12)
        row = to_row(data_source="test", question=f"{number}?", ground_truth="1", id=str(number))
        rows.append({**row, COLUMN: query.to_dict()})
    write_parquet(path, rows)
    return path


def config(student: Path | str | None, **settings: Any) -> RunConfig:
    training = {"kind": "citer", "learning_rate": 0.01, "batch_size": 16, "max_epochs": 30, **settings}
    values = {
        "relay": {"teacher": {"path": "teacher"}, "defer_training": training},
        "actor_rollout_ref": {"model": {"path": student and str(student)}},
    }
    return RunConfig(OmegaConf.create(values))


@pytest.mark.parametrize("kind", ["citer", "collm"])
def test_a_head_comes_out(kind: str, student: Path, tmp_path: Path) -> None:
    labels = write_labels(tmp_path / "labels.parquet")
    facts = train_head(config(student, kind=kind), labels, tmp_path / "head", device="cpu")
    head, info = load_head(tmp_path / "head", hidden_size=16)
    assert (info.kind, info.student, info.calibration) == (kind, str(student), None)
    assert (facts["num_tokens"], facts["num_queries"], facts["iteration"]) == (144, 12, 1)
    best = facts["epochs"][facts["best_epoch"] - 1]
    assert best["held_out_auc"] > 0.9, "the token before decides, and the student's state has it"
    assert not (tmp_path / "head.work").exists()
    assert (tmp_path / "head" / "training.png").read_bytes().startswith(b"\x89PNG")
    again = train_head(config(student, kind=kind), labels, tmp_path / "head", device="cpu")
    assert again == json.loads((tmp_path / "head" / TRAINING_FILE).read_text()) == facts
    with pytest.raises(UserError, match="another training"):
        train_head(config(student, kind=kind, seed=1), labels, tmp_path / "head", device="cpu")
    with torch.inference_mode():
        assert head(torch.zeros(2, 16)).shape == (2,)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": None}, r"relay\.defer_training\.kind: null: expected the head to train, citer or collm"),
        ({"student": None}, r"actor_rollout_ref\.model\.path: no student is given"),
        ({"student": "http://localhost:1/v1"}, r"a head is trained on the hidden states of a folder"),
        ({"student": "/nowhere/at/all"}, r"/nowhere/at/all does not exist"),
        ({"has_logprobs": False, "kind": "collm"}, r"has no log-probabilities, which a collm head is trained on"),
    ],
)
def test_bad_input(changes: dict[str, Any], message: str, student: Path, tmp_path: Path) -> None:
    labels = write_labels(tmp_path / "labels.parquet", has_logprobs=changes.pop("has_logprobs", True))
    path = changes.pop("student", student)
    with pytest.raises(UserError, match=message):
        train_head(config(path, **changes), labels, tmp_path / "head", device="cpu")
    assert not (tmp_path / "head").exists()


def test_a_file_without_labels(student: Path, tmp_path: Path) -> None:
    write_parquet(tmp_path / "plain.parquet", [to_row(data_source="t", question="?", ground_truth="1", id="a")])
    with pytest.raises(UserError, match=r"plain\.parquet: expected labels; `relay-verl defer-data` writes them"):
        train_head(config(student), tmp_path / "plain.parquet", tmp_path / "head", device="cpu")


def test_a_damaged_record_of_a_training(tmp_path: Path) -> None:
    (tmp_path / TRAINING_FILE).write_text("{}")
    with pytest.raises(UserError, match="is damaged"):
        read_training(tmp_path)
    assert read_training(tmp_path / "empty") is None
