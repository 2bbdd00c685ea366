"""What a tiny pair is told in pre-training, and that a folder holds one world. No training."""

import importlib
import json
import sys
from dataclasses import asdict, replace
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from relay_verl.errors import UserError

TINY = Path(__file__).parents[3] / "examples" / "tiny"


@pytest.fixture(scope="module")
def tiny() -> Any:
    """The modules, with their neighbours on the path as their scripts have them."""
    sys.path.insert(0, str(TINY))
    try:
        names = ("pretrain", "schooling", "world", "graded_world")
        yield SimpleNamespace(**{name: importlib.import_module(name) for name in names})
    finally:
        sys.path.remove(str(TINY))


def learned(tokenizer: Any, example: torch.Tensor) -> str:
    return tokenizer.decode(example[example[:, 1] >= 0][:, 1])


def examples(tiny: Any, world: str, **changes: Any) -> tuple[Any, Any, list[torch.Tensor]]:
    task, settings = tiny.schooling.WORLDS[world]
    stage = replace(settings.student, num_examples=200, **changes)
    tokenizer = task.build_tokenizer()
    return task, tokenizer, tiny.pretrain.pretraining_examples(tokenizer, stage, Random(0))


@pytest.mark.parametrize("world", ["plain", "graded"])
def test_commands_are_read_and_prompts_are_not_learned(tiny: Any, world: str) -> None:
    _, tokenizer, drawn = examples(tiny, world, call_rate=1.0)
    for example in drawn:
        text = learned(tokenizer, example)
        assert "<call" in tokenizer.decode(example[:, 0]) and "<call" not in text and "What is" not in text
        assert set((example[:, 0] - example[:, 1])[example[:, 1] >= 0].tolist()) == {0}, "a label is its id"


def test_what_is_cut_stops_after_its_number(tiny: Any) -> None:
    _, tokenizer, cut = examples(tiny, "graded", call_rate=0.0, cut_rate=1.0)
    _, _, whole = examples(tiny, "graded", call_rate=0.0, cut_rate=0.0)
    for example in cut:
        begun, _, number = learned(tokenizer, example).partition("=")
        assert begun.startswith("We compute ") and number[:-1].isdigit() and number[-1] == "."
    for example in whole:
        assert learned(tokenizer, example).endswith("}. That is all that was asked for.<|im_end|>")


@pytest.mark.parametrize("rate", [0.0, 0.5])
def test_a_cut_example_is_the_beginning_of_a_whole_one(tiny: Any, rate: float) -> None:
    """So no model learns ids that the tokenizer would not give a whole response."""
    task, tokenizer, drawn = examples(tiny, "graded", call_rate=0.0, cut_rate=rate)
    asked = {q.expression: q for q in task.all_questions()}
    for example in drawn:
        text = learned(tokenizer, example)
        expression, number = text.removeprefix("We compute ").partition(".")[0].split("=")
        whole = tokenizer.encode(task.response_text(asked[expression], number), add_special_tokens=False)
        ids = [i for i in example[:, 1].tolist() if i >= 0]
        assert ids == [*whole, tokenizer.eos_token_id][: len(ids)]


def test_graded_batches_hold_examples_of_about_one_length(tiny: Any) -> None:
    lengths = [torch.zeros(1 + i % 100, 2) for i in range(1000)]
    for world, is_alike in (("plain", False), ("graded", True)):
        stage = replace(tiny.schooling.WORLDS[world].settings.student, batch_size=16)
        drawn = stage.batches(lengths)
        spreads = []
        for _ in range(16):
            batch = next(drawn)
            assert len(batch) == 16
            spreads.append(max(map(len, batch)) - min(map(len, batch)))
        assert (sum(spreads) / 16 < 40) is is_alike


def test_a_shorter_pre_training(tiny: Any) -> None:
    for world, num_examples in (("plain", 20_000), ("graded", 400)):
        settings = tiny.schooling.WORLDS[world].settings
        short = settings.scaled(0.01)
        assert (short.student.num_examples, short.student.steps) == (num_examples, settings.student.steps // 100)
        assert type(short.teacher) is type(settings.teacher) and short.seed == settings.seed


def write_built(tiny: Any, folder: Path, **settings: Any) -> None:
    path = folder / "teacher" / tiny.pretrain.BUILT
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"settings": settings, "measured": {}}))


@pytest.mark.parametrize(
    ("held", "asked", "message"),
    [
        ({"world": "graded"}, "plain", r"--world plain: .*pair holds the graded world: .* --world graded"),
        ({"world": "plain"}, "graded", r"--world graded: .*pair holds the plain world"),
        ({}, "graded", r"--world graded: .*pair holds the plain world"),
    ],
)
def test_a_folder_holds_one_world(tiny: Any, tmp_path: Path, held: dict[str, str], asked: str, message: str) -> None:
    pair = tmp_path / "pair"
    write_built(tiny, pair, **held)
    before = sorted(pair.rglob("*"))
    with pytest.raises(UserError, match=message):
        tiny.pretrain.build(pair, tiny.schooling.WORLDS[asked].settings, asked)
    assert sorted(pair.rglob("*")) == before, "nothing is touched"


@pytest.mark.parametrize("name", ["student", "teacher", "other"])
def test_a_pair_that_names_no_world_is_a_plain_one_and_stays(
    tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    task, settings = tiny.schooling.WORLDS["plain"]
    tokenizer = task.build_tokenizer()
    tokenizer.save_pretrained(tmp_path / tiny.pretrain.TOKENIZER)
    digest = tiny.pretrain.hashlib.sha256(tokenizer.backend_tokenizer.to_str().encode()).hexdigest()
    (tmp_path / name).mkdir()
    facts = {"seed": 0, "tokenizer": digest, "pretraining": asdict(getattr(settings, name))}
    (tmp_path / name / tiny.pretrain.BUILT).write_text(json.dumps({"settings": facts, "measured": {}}))
    tiny.pretrain.check_world(tmp_path, "plain")

    def refuse(*_: Any) -> None:
        raise AssertionError("it is built again")

    monkeypatch.setattr(tiny.pretrain, "new_model", refuse)
    num_threads = torch.get_num_threads()
    tiny.pretrain.build_model(tmp_path, "plain", settings, name)
    with pytest.raises(AssertionError, match="built again"):
        tiny.pretrain.build_model(tmp_path, "plain", replace(settings, seed=1), name)
    torch.set_num_threads(num_threads)


def test_a_tokenizer_is_saved_the_same_with_and_without_the_hub(
    tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny.schooling.WORLDS["plain"].task.build_tokenizer().save_pretrained(tmp_path / "built")
    for is_offline in (False, True):
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", is_offline)
        tiny.pretrain.load_tokenizer(tmp_path / "built").save_pretrained(tmp_path / str(is_offline))
    one, other = ((tmp_path / str(is_offline) / "tokenizer_config.json").read_text() for is_offline in (False, True))
    assert one == other


@pytest.mark.parametrize(
    ("world", "parts", "rate"), [("plain", [], []), ("graded", ["+relay=graded"], ["optim.lr=7e-4"])]
)
def test_stage_one_runs_with_the_lengths_and_the_rate_of_its_world(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, world: str, parts: list[str], rate: list[str]
) -> None:
    monkeypatch.syspath_prepend(str(TINY))
    stage_one = importlib.import_module("stage_one")
    commands: list[list[str]] = []
    monkeypatch.setattr(stage_one, "run", lambda command, *_: commands.append(command))
    warmups: list[list[str]] = []
    monkeypatch.setattr(stage_one, "warm_up", lambda *_, overrides, **__: warmups.append(list(overrides)))
    monkeypatch.setattr(sys, "argv", ["stage_one", "--out", str(tmp_path), "--world", world, "--filter-samples", "2"])
    stage_one.main()
    build, *others = commands
    assert build[build.index("--world") + 1] == world
    assert {name for command in others for name in ("warmup-data", "filter") if name in command} == {
        "warmup-data",
        "filter",
    }
    for command in others:
        assert [part for part in command if part.startswith("+")] == parts
    assert warmups == [rate]
