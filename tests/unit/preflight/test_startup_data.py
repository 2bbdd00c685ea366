"""Rows of the data files before a training: each one checked, counted against batch, steps and validation."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from omegaconf import OmegaConf

from relay_verl.config import read_settings
from relay_verl.grading import Grader
from relay_verl.preflight.check import CheckWarning
from relay_verl.preflight.counts import check_num_rows, check_validation_rows, check_warmup_rows
from relay_verl.preflight.data_checks import check_data_sources, check_dataset, check_warmup_data
from relay_verl.preflight.rows import grade_against_itself, trial_rows
from relay_verl.run_config import DataSettings, RunConfig
from tests.helpers.errors import names, one_line

SUFFIXES = (".parquet", ".jsonl", ".json")
PROMPT = [{"role": "user", "content": "3+4"}]
COUNTS = {"num_samples": 10, "num_done": 10, "num_correct": 5}


def row(**changes: Any) -> dict[str, Any]:
    return {"prompt": PROMPT, "reward_model": {"style": "rule", "ground_truth": "7"}, **changes}


def truth(value: Any, **changes: Any) -> dict[str, Any]:
    return row(reward_model={"style": "rule", "ground_truth": value}, **changes)


def save(path: Path, rows: list[dict[str, Any]]) -> str:
    """The rows as the kind of file that the name says."""
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows))
    else:
        path.write_text("".join(f"{json.dumps(each)}\n" for each in rows))
    return str(path)


def config(train: Any = None, val: Any = None, **changes: Any) -> RunConfig:
    node = OmegaConf.create(
        {
            "data": {"train_files": train, "val_files": val, "prompt_key": "prompt", "train_batch_size": 8},
            "trainer": {"total_epochs": 3, "total_training_steps": None},
        }
    )
    for key, value in changes.items():
        OmegaConf.update(node, key.replace("__", "."), value)
    return RunConfig(node)


def data(train: Any = None, val: Any = None, **changes: Any) -> DataSettings:
    return config(train, val, **changes).data


# ---- rows ----


BAD_ROWS = [
    # what is wrong with row 2, its row 1 of the same type, part of the line, why
    (row(prompt="3+4"), row(prompt="1+1"), "prompt", "a prompt that is a text"),
    (row(prompt=[]), row(), "prompt", "no message"),
    (row(prompt=[{"role": "user", "content": None}]), row(), "prompt", "a message without content"),
    (row(prompt=None), row(), "prompt", "no prompt"),
    (truth(None), row(), "null", "no answer"),
    (truth(""), row(), "''", "an empty answer"),
    (truth([]), truth(["7"]), "[]", "no accepted answer"),
    (truth({"answer": "7", "unit": "m"}), truth({"answer": "7", "unit": None}), "unit", "an object of two entries"),
    (row(reward_model=None), row(), "reward_model", "no reward model"),
]


@pytest.mark.parametrize("key", ["train_files", "val_files"])
@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize(("bad", "good", "part", "why"), BAD_ROWS, ids=[why for *_, why in BAD_ROWS])
def test_a_row_that_cannot_be_trained_on_is_named(
    tmp_path: Path, bad: dict, good: dict, part: str, why: str, suffix: str, key: str
) -> None:
    name = save(tmp_path / f"a{suffix}", [good, bad] if good["prompt"] != "1+1" else [bad, bad])
    line = one_line(check_dataset, data(name, name), key)
    assert line.startswith(f"data.{key}: {name}: row "), why
    assert part in line


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_answers_of_other_kinds_are_taken(tmp_path: Path, suffix: str) -> None:
    for number, value in enumerate(["7", 7, 7.0, ["7"], {"target": "7"}]):
        assert check_dataset(data(save(tmp_path / f"{number}{suffix}", [truth(value)])), "train_files") is None


def test_the_prompt_is_at_the_key_that_verl_reads(tmp_path: Path) -> None:
    name = save(tmp_path / "a.parquet", [row(question="3+4")])
    assert "row 1: the prompt" in one_line(check_dataset, data(name, data__prompt_key="question"), "train_files")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_file_without_rows_is_named(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    if suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist([row()]).slice(0, 0), path)
    else:
        save(path, [])
    for key in ("train_files", "val_files"):
        assert one_line(check_dataset, data(str(path), str(path)), key) == f"data.{key}: {path} has no rows"


def test_a_file_that_verl_does_not_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("prompt,reward_model\n1,2\n")
    line = one_line(check_dataset, data(str(tmp_path / "a.csv")), "train_files")
    assert "a.csv" in line
    assert ".parquet, .json, .jsonl" in line


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_pass_counts_are_needed_in_files_of_every_kind(tmp_path: Path, suffix: str) -> None:
    name = save(tmp_path / f"a{suffix}", [row()])
    line = one_line(check_dataset, data(name, data__min_pass_rate=0.5), "train_files")
    assert "has no column 'teacher_pass'" in line
    assert "relay-verl filter" in line
    check_dataset(data(name, name, data__min_pass_rate=0.5), "val_files")
    counted = save(tmp_path / f"b{suffix}", [row(teacher_pass=COUNTS)])
    check_dataset(data(counted, data__min_pass_rate=0.5), "train_files")
    assert "none of its 1 queries" in one_line(check_dataset, data(counted, data__min_pass_rate=0.6), "train_files")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_pass_counts_of_another_kind_are_named(tmp_path: Path, suffix: str) -> None:
    name = save(tmp_path / f"a{suffix}", [row(teacher_pass=0.5)])
    assert "num_correct" in one_line(check_dataset, data(name, data__min_pass_rate=0.5), "train_files")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_query_has_a_teacher_in_files_of_every_kind(tmp_path: Path, suffix: str) -> None:
    settings = read_settings({"teachers": [{"path": "a", "data_sources": ["math"]}]})
    good, bad = (save(tmp_path / f"{source}{suffix}", [row(data_source=source)]) for source in ("math", "law"))
    check_data_sources(data(good, good), settings)
    line = one_line(check_data_sources, data(good, bad), settings)
    assert names(line, f"data.val_files: {bad} ", "data_source='law'")


# ---- graded against themselves ----


def test_choices_whose_truth_is_not_a_letter_are_refused(tmp_path: Path) -> None:
    name = save(tmp_path / "a.parquet", [truth("Paris", ability="choice")] * 3)
    line = one_line(check_dataset, data(name), "train_files")
    assert line.startswith(f"data.train_files: {name}: ")
    assert "row 1 (ability choice, ground truth 'Paris')" in line


def test_a_few_rows_that_no_response_answers_are_a_warning(tmp_path: Path) -> None:
    rows = [truth(letter, ability="choice") for letter in ("A", "B", "Paris", "D")]
    warning = check_dataset(data(save(tmp_path / "a.parquet", rows)), "train_files")
    assert isinstance(warning, CheckWarning)
    assert "row 3" in warning


@pytest.mark.parametrize(
    ("value", "ability", "any_of"),
    [
        (r"\frac{1}{2}", "math", None),
        (r"$x^2$", None, None),
        (r"\boxed{7}", "math", None),
        ("1, 7", "math", None),
        (["0.5", "1/2"], "math", True),
        ("yes, no", "text", None),
        ("b", "choice", None),
    ],
)
def test_a_truth_is_right_against_itself(value: Any, ability: str | None, any_of: bool | None) -> None:
    reward_model = {"ground_truth": value, **({} if any_of is None else {"any_of": any_of})}
    with Grader() as grader:
        assert grade_against_itself("a", [{"reward_model": reward_model, "ability": ability}], grader) is None


def test_the_rows_that_are_tried_are_the_first_of_each_sequence_of_roles(tmp_path: Path) -> None:
    system = [{"role": "system", "content": "Be short."}, *PROMPT]
    name = save(tmp_path / "a.parquet", [row(), row(), row(prompt=system), row()])
    tried = trial_rows(name, f"data.train_files: {name}", "prompt")
    assert [each.roles for each in tried] == [("user",), ("system", "user")]
    assert [each.place.rpartition(" ")[2] for each in tried] == ["1", "3"]


# ---- counts ----


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_fewer_rows_than_a_batch(tmp_path: Path, suffix: str) -> None:
    name = save(tmp_path / f"a{suffix}", [row()] * 7)
    line = one_line(check_num_rows, config(name))
    assert line.startswith("data.train_batch_size=8: ")
    assert "7 rows" in line
    assert name in line
    assert "24 rows" not in check_num_rows(config([name, name]))
    assert check_num_rows(config([name, name])).startswith("14 rows, 3 steps")


def test_fewer_rows_than_a_batch_behind_the_filter(tmp_path: Path) -> None:
    counts = [COUNTS] * 7 + [{**COUNTS, "num_correct": 0}] * 9
    name = save(tmp_path / "a.parquet", [row(teacher_pass=each) for each in counts])
    assert "16 rows" in check_num_rows(config(name))
    line = one_line(check_num_rows, config(name, data__min_pass_rate=0.5))
    assert names(line, "", "7 of 16 rows", "relay.filter.min_pass_rate=0.5")


TOO_FEW = [
    # changes, beginning of the line, why
    ({"data__train_max_samples": 4}, "data.train_batch_size=8: data.train_files has 4 rows by", "cut down"),
    ({"data__gen_batch_size": 32}, "data.gen_batch_size=32: ", "a larger batch for generation"),
    ({"trainer__total_epochs": 0}, "trainer.total_epochs=0: ", "no epoch"),
    ({"trainer__total_training_steps": 0}, "trainer.total_training_steps=0: ", "no step"),
    ({"trainer__total_training_steps": 7}, "trainer.total_training_steps=7: trainer.total_epochs=3 of 2 steps", "late"),
    ({"data__train_files": None}, "data.train_files: no file", "none"),
    ({"data__train_files": []}, "data.train_files: no file", "an empty list"),
]


@pytest.mark.parametrize(("changes", "begins", "why"), TOO_FEW, ids=[why for *_, why in TOO_FEW])
def test_too_few_rows_or_steps(tmp_path: Path, changes: dict, begins: str, why: str) -> None:
    name = save(tmp_path / "a.parquet", [row()] * 16)
    check_num_rows(config(name))
    check_num_rows(config(name, trainer__total_training_steps=6))
    assert one_line(check_num_rows, config(name, **changes)).startswith(begins), why


def test_files_elsewhere_are_not_counted() -> None:
    assert "not counted" in check_num_rows(config("hdfs://cluster/a.parquet"))
    assert "not counted" in check_validation_rows(data(val="hdfs://cluster/a.parquet"))


def test_validation_files_have_rows(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    assert check_validation_rows(data(val=save(path, [row()]))) == "1 rows"
    pq.write_table(pa.Table.from_pylist([row()]).slice(0, 0), path)
    assert one_line(check_validation_rows, data(val=str(path))) == f"data.val_files: {path} has no rows"
    for nothing in (None, []):
        assert one_line(check_validation_rows, data(val=nothing)).startswith("data.val_files: no file is given")


# ---- the warm-up ----


def warmup(tmp_path: Path, num_finished: int, num_cut: int = 0, val: Any = None) -> DataSettings:
    rows = [{"input_ids": [1, 2], "loss_mask": [0, 1], "is_finished": True}] * num_finished
    rows += [{"input_ids": [1, 2], "loss_mask": [0, 1], "is_finished": False}] * num_cut
    return data(save(tmp_path / "w.parquet", rows), val)


def test_warm_up_data_counts_finished_responses(tmp_path: Path) -> None:
    check_warmup_rows(warmup(tmp_path, 8))
    line = one_line(check_warmup_rows, warmup(tmp_path, 7, 9))
    assert names(line, "data.train_batch_size=8: ", "data.train_files", 7)


def test_warm_up_data_of_another_kind_is_named(tmp_path: Path) -> None:
    check_warmup_data(warmup(tmp_path, 8))
    assert one_line(check_warmup_data, data()).startswith("data.train_files: no file is given")
    assert "a.jsonl" in one_line(check_warmup_data, data(save(tmp_path / "a.jsonl", [row()])))
    other = save(tmp_path / "v.parquet", [row()])
    assert one_line(check_warmup_data, warmup(tmp_path, 8, val=other)).startswith("data.val_files: ")
