"""Packing a pair: two models whose tokens are known, from the folders that a quickstart leaves."""

import json
import runpy
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from relay_verl.checkpoints.record import RunRecord, write_checkpoint
from relay_verl.data.schema import to_row
from relay_verl.demo import packing
from relay_verl.demo.demo_relay import CONDITIONS
from relay_verl.demo.packing import PairSources, pack, questions_of
from relay_verl.demo.shipped_pair import MODELS, OWN, read_pair
from relay_verl.errors import UserError
from tests.helpers.chain_models import save_pair
from tests.helpers.rows import write_rows

ROOT = Path(__file__).parents[3]
OVERRIDES = ["+recipe=relay_tiny", "data.seed=3", "trainer.default_local_dir=/somewhere/secret"]


def row(number: int, benchmark: str = "k") -> dict[str, Any]:
    return to_row(data_source=benchmark, question=f"What is {number}?", ground_truth=str(number), id=f"q{number}")


@pytest.fixture(scope="module")
def quickstart(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A quickstart's folder, as far as a pair is packed from it."""
    folder = tmp_path_factory.mktemp("quickstart")
    pair, train = folder / "pair", folder / "train"
    save_pair(pair)
    (pair / "student").rename(pair / "student_warm")
    shutil.copytree(pair / "student_warm", train / "student")
    limits = {"max_response_tokens": 40, "max_tokens_per_call": 2}
    (train / "student" / "relay.json").write_text(json.dumps({"format": 1, "limits": limits}))
    write_rows(pair / "test.parquet", [row(1), row(2, "other")])
    write_rows(pair / "questions.parquet", [row(3)])
    (pair / "manifest.json").write_text(json.dumps({"settings": {"seed": 0}}))
    (train / "checkpoint").mkdir()
    write_checkpoint(train / "checkpoint", RunRecord("relay_tiny", OVERRIDES, {}, {}, [], {"verl": "1"}), 80, {})
    return folder


def ship(monkeypatch: pytest.MonkeyPatch, *words: str | Path) -> None:
    script = ROOT / "examples" / "tiny" / "ship.py"
    monkeypatch.setattr(sys, "argv", [str(script), *map(str, words)])
    runpy.run_path(str(script), run_name="__main__")


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_a_quickstart_becomes_a_pair(
    quickstart: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    one, other = tmp_path / "one", tmp_path / "sub" / "other"
    ship(monkeypatch, quickstart, "--out", one)
    assert str(one) in capsys.readouterr().out
    pair = read_pair(one)
    assert [(question.id, question.text, question.is_held_out) for question in pair.questions] == [
        ("q1", "What is 1?", True),
        ("q2", "What is 2?", True),
        ("q3", "What is 3?", False),
    ]
    assert (pair.card.training.recipe, pair.card.training.step) == ("relay_tiny", 80)
    assert pair.card.training.command == "python -m verl.trainer.main_ppo +recipe=relay_tiny data.seed=3"
    assert pair.card.training.pretraining == {"seed": 0}
    relay, untrained, alone, teacher = pair.card.results
    assert [each.condition for each in pair.card.results] == [condition.name for condition in CONDITIONS]
    assert {each.num_responses for each in pair.card.results} == {2} and set(relay.accuracy) == {"k", "other"}
    # 'a<call>3</call>', of which relay.json allows two of the teacher's tokens, then 'z' and the end
    assert relay == untrained.__class__(**{**vars(untrained), "condition": relay.condition})
    assert (relay.overall_call_rate, relay.pooled_call_ratio) == (1.0, 2 / 8)
    assert (alone.pooled_call_ratio, teacher.pooled_call_ratio) == (0.0, 1.0)
    assert (one / "student" / "relay.json").read_bytes() == (one / "student_warm" / "relay.json").read_bytes()
    readme = (one / "README.md").read_text()
    assert pair.card.training.command in readme and "/somewhere" not in readme and str(tmp_path) not in readme

    ship(monkeypatch, quickstart, "--out", other)
    assert contents(one) == contents(other), "the same bytes in another place"
    (other / "student" / "config.json").unlink()
    ship(monkeypatch, quickstart, "--out", other)
    assert contents(one) == contents(other), "takes the place of the pair that was there"
    assert [path.name for path in other.parent.iterdir()] == ["other"]


def sources_of(quickstart: Path, **changes: Any) -> PairSources:
    pair = quickstart / "pair"
    models = {role: pair / role for role in MODELS} | {"student": quickstart / "train" / "student"}
    questions = questions_of(pair / "test.parquet", is_held_out=True)
    return PairSources(**{"models": models, "questions": questions, "title": "t", **changes})


def test_what_cannot_be_packed_is_one_error(quickstart: Path, tmp_path: Path) -> None:
    sources = sources_of(quickstart)
    (tmp_path / "mine").mkdir()
    with pytest.raises(UserError, match=r"mine.*card\.json"):
        pack(sources, tmp_path / "mine")
    warm = {**sources.models, "student": sources.models["student_warm"]}
    with pytest.raises(UserError, match=r"student_warm.*relay\.json"):
        pack(sources_of(quickstart, models=warm), tmp_path / "out")
    with pytest.raises(UserError, match=r"teacher.*nowhere"):
        pack(sources_of(quickstart, models={**sources.models, "teacher": tmp_path / "nowhere"}), tmp_path / "out")
    shutil.copytree(sources.models["teacher"], tmp_path / "weightless")
    (tmp_path / "weightless" / "model.safetensors").unlink()
    with pytest.raises(UserError, match=r"weightless.*safetensors"):
        pack(sources_of(quickstart, models={**sources.models, "teacher": tmp_path / "weightless"}), tmp_path / "out")
    other = row(1)
    other["prompt"][0]["content"] = "Briefly: what is 1?"
    with pytest.raises(UserError, match=r"own\.parquet.*Briefly"):
        questions_of(write_rows(tmp_path / "own.parquet", [other]), is_held_out=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine", "own.parquet", "weightless"]


def test_a_pack_that_is_interrupted_leaves_the_old_pair(
    quickstart: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(OWN, tmp_path / "pair")

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(packing, "measure", interrupt)
    with pytest.raises(KeyboardInterrupt):
        pack(sources_of(quickstart), tmp_path / "pair")
    assert contents(tmp_path / "pair") == contents(OWN)
    assert [path.name for path in tmp_path.iterdir()] == ["pair"]


def test_the_shipped_card_to_read_is_what_packing_writes() -> None:
    card = read_pair().card
    assert packing.write_readme(card) == (OWN / "README.md").read_text()
