"""Truths that are not text: one reading for training, filter, evaluation and judge; golds that do not parse."""

import asyncio
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from relay_verl.data.golds import unreadable_golds, warn_of_unreadable
from relay_verl.data.prompts import WRAPPERS
from relay_verl.data.schema import dataset_schema, read_rows, to_row, write_parquet
from relay_verl.data.source import Source
from relay_verl.data.teacher_filter import TeacherFilter, filtered_schema, to_records
from relay_verl.data.truths import UnusableTruthError, read_truth, truth_of, truth_text
from relay_verl.engines import ScriptedEngine
from relay_verl.errors import UserError
from relay_verl.grading import Grader, grade
from relay_verl.preflight.check import CheckWarning
from relay_verl.preflight.data_checks import check_dataset
from relay_verl.run_config import RunConfig
from tests.helpers.generators import ChatTokenizer

TRUTHS: list[tuple[Any, bool, Any, str]] = [
    (" 2\n", False, "2", "a text with blanks"),
    (70.0, False, "70", "a float of a table with gaps"),
    (0.5, False, "0.5", "a float"),
    (1e-19, False, "1e-19", "a small one"),
    (np.int64(7), False, "7", "a numpy integer"),
    (np.float64(7.25), False, "7.25", "a numpy float"),
    (["2"], False, "2", "one in a list"),
    (np.array(["2"], dtype=object), False, "2", "one in an array"),
    ([["2"]], False, "2", "one in lists"),
    (["9.6\n"], False, "9.6", "rllm's Minerva"),
    (["$1$", "$7$"], False, "$1$, $7$", "OlympiadBench: all are wanted"),
    (["1", None, " "], False, "1", "gaps in a list"),
    (["4\n", "4"], True, "4", "one answer, spelled twice"),
    (["0.5", "1/2"], True, ("0.5", "1/2"), "any of two"),
    ("0.5", True, "0.5", "any of one"),
    ({"target": "2"}, False, "2", "an object"),
    ({"target": ["2"], "numbers": None}, False, "2", "an object of a merged table"),
    ('{"target": [3]}', False, "3", "an object as text"),
    ('["\\\\frac{1}{2}"]', False, r"\frac{1}{2}", "Skywork: a list as JSON text"),
    ("['2', '3']", False, "2, 3", "a list as pandas prints it"),
    ("['2' '3']", False, "['2' '3']", "numpy's print would be read as 23"),
    ("[1, 2]", False, "[1, 2]", "an interval is not a list"),
    ("[]", False, "[]", "BBEH's empty list is an answer"),
    (r"\{1, 2\}", False, r"\{1, 2\}", "a set"),
    ('{"x", 1}', False, '{"x", 1}', "braces that are not an object"),
]
UNUSABLE: list[tuple[Any, str]] = [
    (None, "null"),
    (" ", "blank"),
    (float("nan"), "NaN"),
    (float("inf"), "infinite"),
    ([], "an empty list"),
    ([None, ""], "a list of nothing"),
    (True, "neither yes nor 1"),
    ({}, "an empty object"),
    ({"target": "2", "answer": "3"}, "an object with two answers"),
    ({"numbers": [1, 2], "target": 98}, "a puzzle, whose answer is an expression"),
    ({"style": "rule"}, "an object without an answer"),
    (b"2", "bytes"),
]


@pytest.mark.parametrize(("value", "any_of", "truth", "why"), TRUTHS, ids=[case[3] for case in TRUTHS])
def test_truths(value: Any, any_of: bool, truth: Any, why: str) -> None:
    assert read_truth(value, any_of=any_of) == truth
    assert truth_of({"ground_truth": value, "any_of": any_of}) == truth


@pytest.mark.parametrize(("value", "why"), UNUSABLE, ids=[case[1] for case in UNUSABLE])
def test_unusable_truths_are_one_line(value: Any, why: str) -> None:
    with pytest.raises(UnusableTruthError) as caught:
        read_truth(value)
    assert "\n" not in str(caught.value) and "expected" in str(caught.value)
    with pytest.raises(UnusableTruthError):
        truth_of({"ground_truth": value})


_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["target", "answer", "x"]), inner),
    max_leaves=6,
)


@given(_values, st.booleans())
def test_a_truth_is_text_or_texts_and_reads_as_itself(value: Any, any_of: bool) -> None:
    try:
        truth = read_truth(value, any_of=any_of)
    except UnusableTruthError as error:
        assert "\n" not in str(error)
        return
    texts = [truth] if isinstance(truth, str) else list(truth)
    assert texts and all(text.strip() for text in texts)
    assert truth_text(truth).strip()
    if not isinstance(truth, str):
        assert read_truth(list(truth), any_of=True) == truth


# ---- the same reading wherever a row is graded ----


def rows_with(*truths: Any, **fields: Any) -> list[dict[str, Any]]:
    return [
        {"data_source": "d", "prompt": [{"role": "user", "content": f"{number}?"}], "ability": "math",
         "reward_model": {"style": "rule", "ground_truth": truth, **fields}, "extra_info": {"id": str(number)}}
        for number, truth in enumerate(truths)
    ]  # fmt: skip


def parquet(path: Path, rows: list[dict[str, Any]]) -> Path:
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


@pytest.mark.parametrize(
    ("truths", "fields", "expected", "why"),
    [
        ((["2"], ["1", "7"]), {}, ["2", "1, 7"], "lists"),
        ((56, 7), {}, ["56", "7"], "integers"),
        ((56.0, 7.5), {}, ["56", "7.5"], "floats"),
        (({"target": "2"}, {"target": "3"}), {}, ["2", "3"], "objects"),
        ((["0.5", "1/2"], ["3"]), {"any_of": True}, [["0.5", "1/2"], ["3"]], "accepted answers"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_rows_and_what_the_filter_writes_of_them(
    tmp_path: Path, truths: Any, fields: Any, expected: Any, why: str
) -> None:
    path = parquet(tmp_path / "rows.parquet", rows_with(*truths, **fields))
    rows = read_rows(path)
    assert [row["reward_model"]["ground_truth"] for row in rows] == expected
    count = {"num_samples": 1, "num_done": 1, "num_correct": 1, "num_tokens": 3}
    table = pa.Table.from_pylist(  # as the job's store writes it
        [record for row in rows for record in to_records(row, count)], schema=filtered_schema(dataset_schema(path))
    )
    assert [row["ground_truth"] for row in table["reward_model"].to_pylist()] == expected
    pq.write_table(table, tmp_path / "filtered.parquet")
    again = read_rows(tmp_path / "filtered.parquet")
    assert [truth_of(row["reward_model"]) for row in again] == [truth_of(row["reward_model"]) for row in rows]


@pytest.mark.parametrize(
    ("truth", "fields", "right", "wrong"),
    [(["56"], {}, "56", "7"), (["1", "7"], {}, "7, 1", "7"), (["0.5", "2"], {"any_of": True}, "2", "3")],
)
def test_filter_grades_by_the_truth(tmp_path: Path, truth: Any, fields: Any, right: str, wrong: str) -> None:
    (row,) = read_rows(parquet(tmp_path / "rows.parquet", rows_with(truth, **fields)))
    tokenizer = ChatTokenizer()
    for answer, is_right in ((right, 1), (wrong, 0)):
        teacher = ScriptedEngine(tokenizer, [rf"\boxed{{{answer}}}"])
        judged = TeacherFilter(
            teacher, tokenizer, num_samples=1, stop_at=None, max_tokens=99, sampling={}, seed=None, template={}
        )
        assert asyncio.run(judged.process(row))["num_correct"] == is_right


def test_copies_count_once_and_are_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = parquet(tmp_path / "rows.parquet", rows_with("1", "2", "3") * 32)
    assert len(read_rows(path)) == 3
    assert Source.scan(path).num_rows == 3
    assert "96 rows are 3 queries" in capsys.readouterr().err


def test_an_any_of_row_is_written_and_read_back(tmp_path: Path) -> None:
    row = to_row(data_source="d", question="?", ground_truth=("0.5", "1/2"), id="a")
    write_parquet(tmp_path / "rows.parquet", [row])
    assert read_rows(tmp_path / "rows.parquet") == [row]
    assert grade(r"\boxed{\frac{1}{2}}", truth_of(row["reward_model"])).is_correct


# ---- before a training ----


def check(path: Path, **columns: Any) -> CheckWarning | None:
    return check_dataset(
        RunConfig(OmegaConf.create({"data": {"train_files": str(path), "prompt_key": "prompt"}})).data, "train_files"
    )


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl", ".json"])
@pytest.mark.parametrize(
    ("truth", "shown"), [(None, "null"), ([], "[]"), ("  ", "'  '")], ids=["null", "an empty list", "blank"]
)
def test_a_row_without_an_answer_is_named_before_a_training(
    tmp_path: Path, truth: Any, shown: str, suffix: str
) -> None:
    filled: Any = ["2"] if isinstance(truth, list) else "2"
    rows = rows_with(filled, truth, filled)
    path = tmp_path / f"rows{suffix}"
    if suffix == ".parquet":
        parquet(path, rows)
    else:
        path.write_text(json.dumps(rows) if suffix == ".json" else "".join(f"{json.dumps(row)}\n" for row in rows))
    with pytest.raises(UserError) as caught:
        check(path)
    message = str(caught.value)
    assert "\n" not in message
    assert all(part in message for part in ("data.train_files", str(path), "row 2", shown)), message


def test_usable_truths_of_every_kind_pass_before_a_training(tmp_path: Path) -> None:
    for number, truths in enumerate([(["2"], ["1", "7"]), (5, 7), ({"target": "2"},)]):
        assert check(parquet(tmp_path / f"{number}.parquet", rows_with(*truths))) is None


def test_a_file_whose_prompts_ask_for_no_box_is_a_doubt(tmp_path: Path) -> None:
    before, after = WRAPPERS[1]
    rows = rows_with("2")
    rows[0]["prompt"][0]["content"] = f"{before}\n\n1+1?\n\n{after}"
    doubt = check(parquet(tmp_path / "rows.parquet", rows))
    assert isinstance(doubt, CheckWarning) and "outside a box" in doubt


# ---- golds that do not parse ----

BROKEN = r"\frac{"


def test_unreadable_golds_are_counted_and_named() -> None:
    asked: list[str] = []

    def is_readable(gold: str) -> bool | None:
        asked.append(gold)
        return None if gold == "slow" else gold != BROKEN

    rows = rows_with("12", "-3.5", r"$1,000\%$", r"-\frac{1}{2}", BROKEN, "slow", BROKEN, "x+1", "x+1")
    rows[6]["ability"] = "text"  # never parsed
    rows += rows_with([BROKEN, "7"], [BROKEN, BROKEN], any_of=True)
    assert [(gold.row, gold.gold) for gold in unreadable_golds(rows, is_readable)] == [(5, BROKEN), (11, BROKEN)]
    assert sorted(asked) == sorted([BROKEN, "slow", "x+1"])  # once each, and no plain number
    warning = warn_of_unreadable("math-500", rows, is_readable) or ""
    assert all(part in warning for part in ("math-500", "2 right answers", "row 5", "row 11")) and "\n" not in warning
    assert warn_of_unreadable("math-500", rows[:4], is_readable) is None


def test_the_grader_says_what_it_can_read(tmp_path: Path) -> None:
    rows = rows_with(r"\frac{1}{2}", r"x^2+1", r"\qwerty{??}")
    with Grader() as grader:
        assert [gold.row for gold in unreadable_golds(rows, grader.is_readable)] == [3]
    doubt = check(parquet(tmp_path / "rows.parquet", rows))
    assert isinstance(doubt, CheckWarning) and "row 3" in doubt
