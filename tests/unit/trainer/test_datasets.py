"""Training datasets: verl's schema, local files, the two layouts of DAPO-Math-17k, and what is left out of them."""

import csv
import importlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import huggingface_hub
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from relay_verl.cli.main import app
from relay_verl.data.prepare import PreparedReport, is_gradable, prepare
from relay_verl.data.prompts import WRAPPERS, UnknownWrapperError, strip_wrapper, unwrap, wrap
from relay_verl.data.schema import PROMPT_SUFFIX, iter_rows, read_rows, row_id, to_row, write_parquet
from relay_verl.data.sources import find_source
from relay_verl.grading import grade
from tests.helpers.errors import one_line

BEFORE, AFTER = WRAPPERS[1]
QUESTIONS = {"a": ("What is $7 \\cdot 8$?", "56"), "b": ("Find $x$ if\n\n$x - 1 = 4$.", "5"), "c": ("求 $2+2$。", "4")}


def hub_row(id: str, question: str, answer: str | None) -> dict[str, Any]:
    """As in BytedTsinghua-SIA/DAPO-Math-17k."""
    return {
        "data_source": "math_dapo",
        "prompt": [{"content": f"{BEFORE}\n\n{question}\n\n{AFTER}", "role": "user"}],
        "ability": "MATH",
        "reward_model": {"ground_truth": answer, "style": "rule-lighteval/MATH_v2"},
        "extra_info": {"index": id},
    }


def processed_row(id: str, question: str, answer: str | None) -> dict[str, Any]:
    """As in open-r1/DAPO-Math-17k-Processed."""
    return {
        "prompt": question,
        "solution": answer,
        "data_source": "math_dapo",
        "source_prompt": hub_row(id, question, answer)["prompt"],
        "ability": "MATH",
        "reward_model": {"ground_truth": answer, "style": "rule-lighteval/MATH_v2"},
        "extra_info": {"index": id},
    }


def rows_of(make: Callable[..., dict[str, Any]], ids: str = "abc") -> list[dict[str, Any]]:
    return [make(id, *QUESTIONS[id]) for id in ids]


def write_source(path: Path, rows: list[dict[str, Any]]) -> Path:
    """The rows as a file of the kind that its name says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif path.suffix == ".csv":
        with open(path, "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, ["prompt", "solution"], extrasaction="ignore")
            writer.writeheader()
            writer.writerows(rows)
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows), encoding="utf-8")
    else:
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def run(tmp_path: Path, rows: list[dict[str, Any]], **options: Any) -> tuple[PreparedReport, list[dict[str, Any]]]:
    """`prepare` of these rows: its report and the lines on what it dropped."""
    source = write_source(tmp_path / "source" / "rows.jsonl", rows)
    report = prepare("dapo-math-17k", tmp_path / "out" / "train.parquet", source=source, **options)
    lines = (tmp_path / "out" / "train.parquet.dropped.jsonl").read_text().splitlines()
    return report, [json.loads(line) for line in lines]


# ---- prompts ----


def test_a_row_has_the_papers_prompt_and_verls_columns() -> None:
    row = to_row(data_source="tiny", question=" 7*8? ", ground_truth="56", id="a", index=3)
    assert row == {
        "data_source": "tiny",
        "prompt": [
            {
                "role": "user",
                "content": "7*8?\nPlease reason step by step, and put your final answer within \\boxed{}.",
            }
        ],
        "ability": "math",
        "reward_model": {"style": "rule", "ground_truth": "56"},
        "extra_info": {"id": "a", "split": "train", "index": 3},
    }


@given(st.text())
def test_unwrapping_a_wrapped_question_gives_it_back(question: str) -> None:
    for before, after in WRAPPERS:
        assert strip_wrapper(f"{before}\n\n{question}\n\n{after}") == question.strip()
    assert strip_wrapper(wrap(question)) == question.strip()


BAD_WRAPPERS = [
    ("Please solve: what is 7*8?", True, "a message without a known wrapper"),
    (f"{BEFORE}\n\nWhat is 7*8?", True, "its first half alone"),
    (f"{BEFORE}\n\nWhat is 7*8?", False, "half a wrapper around a bare question"),
    (f"What is 7*8?\n\n{AFTER}", False, "the other half"),
    (f"{BEFORE.replace('step by step', 'fast')}\n\nWhat is 7*8?\n\n{AFTER}", True, "other words in it"),
]


@pytest.mark.parametrize(("text", "should_have", "why"), BAD_WRAPPERS, ids=[case[2] for case in BAD_WRAPPERS])
def test_an_unknown_wrapper_is_quoted(text: str, should_have: bool, why: str) -> None:
    with pytest.raises(UnknownWrapperError) as caught:
        unwrap(text, should_have_wrapper=should_have)
    message = str(caught.value)
    assert "\n" not in message and repr(text)[1:20] in message and repr(text)[-20:-1] in message


# ---- verl's schema in parquet ----


def example_rows(num: int = 3) -> list[dict[str, Any]]:
    return [
        to_row(data_source="d", question=f"{n}+1?", ground_truth=str(n + 1), id=f"q{n}", index=n) for n in range(num)
    ]


def test_round_trip_of_a_file_and_a_folder(tmp_path: Path) -> None:
    rows = example_rows(2500)  # more than a batch
    write_parquet(tmp_path / "all" / "b.parquet", rows[1000:])
    write_parquet(tmp_path / "all" / "a.parquet", rows[:1000])
    (tmp_path / "all" / "README.md").write_text("no rows")
    assert read_rows(tmp_path / "all") == rows
    assert next(iter_rows(tmp_path / "all" / "b.parquet")) == rows[1000]


IDS = [
    ({"id": "x", "index": 7}, "x", "its id"),
    ({"index": 7}, "7", "else its index"),
    ({"id": "", "index": 0}, "0", "an empty id is none, and 0 is an index"),
    ({"other": 1}, None, "else its prompt's hash"),
    (None, None, "the same without extra_info"),
]


@pytest.mark.parametrize(("extra", "expected", "why"), IDS, ids=[case[2] for case in IDS])
def test_ids(tmp_path: Path, extra: dict[str, Any] | None, expected: str | None, why: str) -> None:
    row = example_rows(1)[0] | {"extra_info": extra}
    if extra is None:
        del row["extra_info"]
    write_source(tmp_path / "rows.parquet", [row])
    id = read_rows(tmp_path / "rows.parquet")[0]["extra_info"]["id"]
    assert id == (expected or row_id(example_rows(1)[0] | {"extra_info": None}))
    assert expected or len(id) == 40


def changed(number: int, **columns: Any) -> list[dict[str, Any]]:
    """Three rows, one of them with other columns."""
    rows = example_rows()
    rows[number] |= columns
    return rows


BAD_ROWS = [
    (changed(1, reward_model={"style": "rule", "ground_truth": None}), ["row 2", "'q1'", "no answer"], "no answer"),
    (changed(2, reward_model={"style": "rule", "ground_truth": " "}), ["row 3", "'q2'", "' '"], "a blank answer"),
    (changed(0, reward_model=None), ["row 1", "'q0'", "null"], "no reward model"),
    ([r | {"prompt": "7*8?"} for r in example_rows()], ["row 1", "list of messages", "7*8?"], "a bare prompt"),
    ([r | {"prompt": [{"role": "user"}]} for r in example_rows()], ["row 1", "messages"], "a message without content"),
    (changed(1, prompt=[]), ["row 2", "messages"], "no messages"),
    (
        example_rows(6) + [r | {"prompt": [{"role": "user", "content": "?"}]} for r in example_rows(5)],
        ["5 ids", "'q0', 'q1', 'q2', ..."],
        "other prompts under the same ids",
    ),
    (
        [*example_rows(1), example_rows(1)[0] | {"reward_model": {"style": "rule", "ground_truth": "2"}}],
        ["1 ids", "'q0'"],
        "two answers to one query",
    ),
]


@pytest.mark.parametrize(("rows", "named", "why"), BAD_ROWS, ids=[case[2] for case in BAD_ROWS])
def test_bad_rows_are_named(tmp_path: Path, rows: list[dict[str, Any]], named: list[str], why: str) -> None:
    path = write_source(tmp_path / "bad.parquet", rows)
    message = one_line(lambda: read_rows(path))
    assert all(part in message for part in [str(path), *named]), message


def test_missing_columns_are_named_beside_those_there_are(tmp_path: Path) -> None:
    path = write_source(tmp_path / "bad.parquet", [{"question": "7*8?", "data_source": "d"}])
    message = one_line(lambda: read_rows(path))
    assert "no column prompt, reward_model; it has question, data_source" in message


def test_files_that_are_not_there_or_no_parquet(tmp_path: Path) -> None:
    assert "gone.parquet does not exist" in one_line(lambda: read_rows(tmp_path / "gone.parquet"))
    assert "no parquet file" in one_line(lambda: read_rows(tmp_path))
    (tmp_path / "text.parquet").write_text("text")
    assert "text.parquet is not a readable parquet file" in one_line(lambda: read_rows(tmp_path / "text.parquet"))
    pq.write_table(pa.table({name: [] for name in ("data_source", "prompt", "reward_model")}), tmp_path / "e.parquet")
    assert "e.parquet has no rows" in one_line(lambda: read_rows(tmp_path / "e.parquet"))


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "rows.parquet"
    write_parquet(path, example_rows(2))

    def half_a_file(table: object, where: Path) -> None:
        Path(where).write_bytes(b"PAR1")
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(pq, "write_table", half_a_file)
        assert "No space left" in one_line(lambda: write_parquet(path, example_rows(3)))
    assert read_rows(path) == example_rows(2)
    assert [file.name for file in tmp_path.iterdir()] == ["rows.parquet"]  # no temporary file stays behind


def test_what_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert "no rows" in one_line(lambda: write_parquet(tmp_path / "new.parquet", []))
    assert "cannot be written" in one_line(lambda: write_parquet(tmp_path / "file" / "x.parquet", example_rows()))
    mixed = [row | {"ability": value} for row, value in zip(example_rows(2), ("math", 1), strict=True)]
    assert "cannot be written" in one_line(lambda: write_parquet(tmp_path / "new.parquet", mixed))
    assert sorted(file.name for file in tmp_path.iterdir()) == ["file"]


# ---- sources ----

LAYOUTS = [
    ("rows.parquet", hub_row),
    ("rows.jsonl", hub_row),
    ("rows.json", hub_row),
    ("rows.parquet", processed_row),
    ("rows.jsonl", processed_row),
    ("rows.json", processed_row),
    ("rows.csv", processed_row),
]


@pytest.mark.parametrize(("name", "make"), LAYOUTS)
def test_both_layouts_in_every_kind_of_file(tmp_path: Path, name: str, make: Callable[..., dict[str, Any]]) -> None:
    source = write_source(tmp_path / name, rows_of(make))
    report = prepare("DAPO-Math-17k", tmp_path / "out" / "train.parquet", source=source)
    assert (report.num_read, report.num_written, report.num_dropped) == (3, 3, {})
    rows = read_rows(report.out)
    assert [row["prompt"][0]["content"] for row in rows] == [f"{q}\n{PROMPT_SUFFIX}" for q, _ in QUESTIONS.values()]
    assert [row["reward_model"] for row in rows] == [
        {"style": "rule", "ground_truth": a} for _, a in QUESTIONS.values()
    ]
    assert {(row["data_source"], row["ability"]) for row in rows} == {("dapo-math-17k", "math")}
    assert [row["extra_info"]["index"] for row in rows] == [0, 1, 2]
    if not name.endswith(".csv"):  # a CSV file has no room for the ids
        assert [row["extra_info"]["id"] for row in rows] == ["a", "b", "c"]


def test_a_folder_is_read_in_order_and_its_descriptions_are_not(tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    write_source(folder / "data" / "2.parquet", rows_of(hub_row, "c"))
    write_source(folder / "data" / "1.parquet", rows_of(hub_row, "ab"))
    (folder / "dataset_infos.json").write_text("{}")
    (folder / ".cache").mkdir()
    (folder / ".cache" / "0.parquet").write_text("half a download")
    prepare("dapo-math-17k", tmp_path / "train.parquet", source=folder)
    assert [row["extra_info"]["id"] for row in read_rows(tmp_path / "train.parquet")] == ["a", "b", "c"]


def test_a_written_file_can_be_a_source(tmp_path: Path) -> None:
    first, _ = run(tmp_path, rows_of(hub_row))
    again = prepare("dapo-math-17k", tmp_path / "again.parquet", source=first.out)
    assert read_rows(again.out) == read_rows(first.out)


def test_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def load_dataset(hub_id: str, *, split: str) -> datasets.Dataset:
        assert (hub_id, split) == ("BytedTsinghua-SIA/DAPO-Math-17k", "train")
        return datasets.Dataset.from_list(rows_of(hub_row) * 700)

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    report = prepare("dapo-math-17k", tmp_path / "train.parquet")
    assert (report.num_read, report.num_written, report.num_dropped) == (2100, 3, {"duplicate": 2097})
    manifest = json.loads((tmp_path / "train.parquet.manifest.json").read_text())
    assert manifest["source"]["hub_id"] == "BytedTsinghua-SIA/DAPO-Math-17k"


def test_a_hub_out_of_reach_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path)
    message = one_line(lambda: prepare("dapo-math-17k", tmp_path / "train.parquet"))
    assert all(part in message for part in ("BytedTsinghua-SIA/DAPO-Math-17k", "hub", "--source"))
    assert not list(tmp_path.glob("train*"))


@pytest.mark.parametrize("name", ["dapo", "", "DAPO-Math-17k "])
def test_an_unknown_name_lists_the_known_ones(name: str) -> None:
    message = one_line(lambda: find_source(name))
    assert repr(name) in message and "dapo-math-17k" in message


BAD_SOURCES = [
    ("rows.jsonl", '{"q": "7*8?", "a": "56"}\n', ["columns q, a", "question", "prompt", "solution"], "columns"),
    ("rows.jsonl", '{"prompt": "7*8?", "solution": "56"}\n{"prom', ["rows.jsonl, line 2", "JSON"], "cut short"),
    ("rows.jsonl", "[1]\n", ["line 1", "[1]"], "no object"),
    ("rows.jsonl", "", ["rows.jsonl has no rows"], "an empty file"),
    ("rows.jsonl", '{"prompt": "7*8?", "solution": null}\n', ["none of 1", "1 no answer"], "nothing is left"),
    ("rows.json", '[{"prompt": "7*8?"', ["rows.json", "JSON"], "half a list"),
    ("rows.json", "[3]", ["rows.json, row 1", "3"], "a list of numbers"),
    ("rows.csv", "prompt,solution\n7*8?,56,57\n", ["line 2", "more fields"], "too many fields"),
    ("rows.csv", 'prompt,solution\n"7*8?,56\n', ["rows.csv"], "an open quote"),
    ("rows.parquet", "text", ["rows.parquet", "parquet"], "no parquet"),
    ("rows.txt", "text", [".txt", ".parquet, .jsonl, .json, .csv"], "another kind of file"),
    ("rows.jsonl", json.dumps(processed_row("a", f"Fast! {BEFORE} 7*8?", "1")),
     ["row 1", "'Fast! Solve"], "an unknown wrapper"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "text", "named", "why"), BAD_SOURCES, ids=[case[3] for case in BAD_SOURCES])
def test_bad_sources_are_one_line(tmp_path: Path, name: str, text: str, named: list[str], why: str) -> None:
    source, out = tmp_path / name, tmp_path / "out" / "train.parquet"
    source.write_text(text)
    message = one_line(lambda: prepare("dapo-math-17k", out, source=source))
    assert all(part in message for part in named), message
    assert not out.parent.exists()


def test_bad_places_are_one_line(tmp_path: Path) -> None:
    source = write_source(tmp_path / "in" / "rows.parquet", rows_of(hub_row))
    for out, source_given, named, _why in (
        (tmp_path / "out.json", source, "ends in .parquet", "a manifest's name"),
        (source, source, "is, or lies in", "the source itself"),
        (tmp_path / "in" / "out.parquet", source.parent, "is, or lies in", "a source of the next run"),
        (tmp_path / "out.parquet", tmp_path / "gone", "does not exist", "no source"),
    ):
        assert named in one_line(lambda o=out, s=source_given: prepare("dapo-math-17k", o, source=s))  # type: ignore[misc]
    nothing = tmp_path / "gone.parquet"
    message = one_line(lambda: prepare("dapo-math-17k", tmp_path / "o.parquet", source=source, evaluation=[nothing]))
    assert str(nothing) in message


# ---- what is left out ----


def test_repeated_rows_are_one_line_with_a_count(tmp_path: Path) -> None:
    report, lines = run(tmp_path, rows_of(hub_row, "abc" * 100))
    assert (report.num_written, report.num_dropped) == (3, {"duplicate": 297})
    assert lines == [
        {"id": id, "reason": "duplicate", "same": "id", "first_id": id, "num_rows": 99} for id in ("a", "b", "c")
    ]
    assert report.summary().splitlines() == [
        f"dapo-math-17k: 3 of 300 rows written to {report.out}",
        "  dropped: 297 duplicate ('a', 'b', 'c')",
    ]


SPOILED = [
    (hub_row("d", "7+1?", None), "no answer", "None for an answer"),
    (hub_row("d", "7+1?", " "), "no answer", "a blank answer"),
    (hub_row("d", "", "8"), "no question", "nothing between the instructions"),
    (hub_row("d", "7+1?", "\\frac{1}{"), "answer does not parse", "an open brace"),
    (hub_row("d", "7+1?", "?"), "answer does not parse", "no letter or digit"),
    (hub_row("d", "7+1?", "9" * 5000), "answer does not parse", "longer than the grader compares"),
    (hub_row("d", "What is  $7 \\cdot 8$?", "56"), "duplicate", "the question of a, with one more blank"),
    (hub_row("a", "7+1?", "8"), "duplicate", "the id of a"),
    (processed_row("d", "7+1?", None), "no answer", "the other layout without an answer"),
    ({"prompt": None, "reward_model": None}, "no question", "a row of nulls"),
]


@pytest.mark.parametrize(("row", "reason", "why"), SPOILED, ids=[case[2] for case in SPOILED])
def test_a_spoiled_row_is_named_and_the_rest_goes_on(
    tmp_path: Path, row: dict[str, Any], reason: str, why: str
) -> None:
    report, lines = run(tmp_path, [*rows_of(hub_row, "ab"), row, *rows_of(hub_row, "c")])
    assert (report.num_read, report.num_written, report.num_dropped) == (4, 3, {reason: 1})
    assert [(line["reason"], line["num_rows"]) for line in lines] == [(reason, 1)]
    if "extra_info" in row:
        assert lines[0]["id"] == row["extra_info"]["index"] and report.first_dropped == {reason: [lines[0]["id"]]}


def test_text_that_is_no_unicode_is_dropped(tmp_path: Path) -> None:
    source = tmp_path / "rows.jsonl"
    source.write_text(json.dumps(hub_row("d", "7\ud800?", "8")) + "\n" + json.dumps(hub_row("e", "7+1?", "8")))
    report = prepare("dapo-math-17k", tmp_path / "train.parquet", source=source)
    assert (report.num_written, report.num_dropped) == (1, {"text is not Unicode": 1})


def test_a_sound_copy_behind_a_spoiled_one_is_kept(tmp_path: Path) -> None:
    report, _ = run(tmp_path, [hub_row("a", "7+1?", ""), hub_row("a", "7+1?", "8")])
    assert (report.num_written, report.num_dropped) == (1, {"no answer": 1})


def test_copies_that_disagree_are_all_dropped(tmp_path: Path) -> None:
    rows = [
        hub_row("a", "7+1?", "8"),
        hub_row("b", "7+1?", "9"),
        hub_row("c", "7+2?", "9"),
        hub_row("d", "7 + 3?", "10"),
        hub_row("e", "7+1?", "8"),
        hub_row("d", "7  +  3?", "11"),
    ]
    report, lines = run(tmp_path, rows)
    assert [row["extra_info"]["id"] for row in read_rows(report.out)] == ["c"]
    assert (report.num_dropped, report.num_contradicted) == ({"contradiction": 5}, 2)
    assert [(line["id"], line["answer"], line["answers"], line["first_id"]) for line in lines] == [
        ("a", "8", ["8", "9"], "a"),
        ("b", "9", ["8", "9"], "a"),
        ("e", "8", ["8", "9"], "a"),
        ("d", "10", ["10", "11"], "d"),
        ("d", "11", ["10", "11"], "d"),
    ]
    manifest = json.loads(report.out.with_name("train.parquet.manifest.json").read_text())
    assert (manifest["num_dropped"], manifest["num_contradicted"]) == ({"contradiction": 5}, 2)
    assert "5 contradiction ('a', 'b', 'e', ...): all copies of 2 questions" in report.summary()


AGREEING = [("0.5", "1/2"), ("0.5", "\\frac{1}{2}"), ("12", "12.0"), ("$12$", "12")]


@pytest.mark.parametrize(("answer", "other"), AGREEING)
def test_copies_whose_answers_are_spelled_otherwise_agree(tmp_path: Path, answer: str, other: str) -> None:
    report, lines = run(tmp_path, [hub_row("a", "7+1?", answer), hub_row("b", "7+1?", other)])
    assert (report.num_written, report.num_dropped, report.num_contradicted) == (1, {"duplicate": 1}, 0)
    assert lines == [
        {
            "id": "b",
            "reason": "duplicate",
            "same": "question",
            "first_id": "a",
            "answer": other,
            "first_answer": answer,
            "num_rows": 1,
        }
    ]


def test_an_id_that_another_question_has_says_nothing_about_its_answer(tmp_path: Path) -> None:
    report, lines = run(tmp_path, [hub_row("a", "7+1?", "8"), hub_row("a", "7+2?", "9")])
    assert (report.num_written, report.num_dropped) == (1, {"duplicate": 1})
    assert [(line["same"], line["answer"], line["first_answer"]) for line in lines] == [("id", "9", "8")]


ANSWERS = ["56", "-3", "0.5", r"\frac{1}{2}", r"\left(1,2\right]", r"x^2+1", r"\text{north}", "∞", r"\boxed{5}", "B"]


@pytest.mark.parametrize("answer", ANSWERS)
def test_a_gradable_answer_is_graded_right_in_a_box(answer: str) -> None:
    assert is_gradable(answer)
    boxed = answer if "boxed" in answer else rf"\boxed{{{answer}}}"
    assert grade(boxed, answer).is_correct  # the texts are equal: no grading process starts


def test_questions_of_evaluation_sets_are_left_out(tmp_path: Path) -> None:
    long = "A train leaves the station at noon and runs at 60 miles per hour until it meets the other one. When?"
    write_parquet(
        tmp_path / "v.parquet", [to_row(data_source="v", question="what is $7\\cdot 8$", ground_truth="", id="v1")]
    )
    write_source(tmp_path / "p.jsonl", [{"problem": f"{long} Give minutes.", "unique_id": "p1"}, {"problem": "Else?"}])
    rows = [*rows_of(hub_row), hub_row("d", f"Solve this now. {long}", "9")]
    sets = [tmp_path / "v.parquet", tmp_path / "p.jsonl"]
    report, lines = run(tmp_path, rows, evaluation=sets)
    assert (report.num_written, report.num_dropped) == (2, {"overlap": 2})
    assert [row["extra_info"]["id"] for row in read_rows(report.out)] == ["b", "c"]
    assert [row["extra_info"]["index"] for row in read_rows(report.out)] == [0, 1]
    assert [line["id"] for line in lines] == ["a", "d"]
    assert lines[0]["overlaps"] == [{"benchmark": str(sets[0]), "benchmark_id": "v1", "kind": "exact", "share": 1.0}]
    assert (lines[1]["overlaps"][0]["benchmark_id"], lines[1]["overlaps"][0]["kind"]) == ("p1", "ngram")
    manifest = json.loads(report.out.with_name("train.parquet.manifest.json").read_text())
    assert manifest["num_overlaps"] == report.num_overlaps == {"exact": 1, "ngram": 1}
    assert "2 overlap ('a', 'd'): 1 exact, 1 ngram" in report.summary()


def test_each_look_is_named(tmp_path: Path) -> None:
    long = "A train leaves the station at noon and runs at 60 miles per hour until it meets the other one. When is it?"
    near = long.replace("noon", "night").replace("until it meets", "till it meets")
    write_source(tmp_path / "p.jsonl", [{"problem": long, "id": 1}])
    write_source(tmp_path / "q.jsonl", [{"problem": near, "id": 2}])
    sets = [tmp_path / "p.jsonl", tmp_path / "q.jsonl"]
    report, lines = run(tmp_path, [hub_row("a", long, "9"), hub_row("b", "7*8?", "9")], evaluation=sets)
    assert [overlap["kind"] for overlap in lines[0]["overlaps"]] == ["exact", "lcs"]
    assert report.num_overlaps == {"exact": 1}  # a row counts once, for the surest


def test_the_manifest_adds_up(tmp_path: Path) -> None:
    report, _ = run(tmp_path, [*rows_of(hub_row), *rows_of(hub_row, "ab"), hub_row("d", "7+1?", "")], ngram=8)
    manifest = json.loads(report.out.with_name("train.parquet.manifest.json").read_text())
    assert manifest["num_read"] == manifest["num_written"] + sum(manifest["num_dropped"].values()) == 6
    assert manifest["options"] == {"evaluation": [], "ngram": 8, "min_share": 0.5}
    assert len(manifest["source"]["files"][0]["sha256"]) == 64
    assert set(manifest["sha256"]) == {"train.parquet", "train.parquet.dropped.jsonl"}
    assert {"relay-verl", "datasets", "pyarrow"} <= set(manifest["versions"])
    assert sorted(file.name for file in report.out.parent.iterdir()) == [
        "train.parquet",
        "train.parquet.dropped.jsonl",
        "train.parquet.manifest.json",
    ]


def test_the_command(tmp_path: Path) -> None:
    source = write_source(tmp_path / "rows.jsonl", rows_of(hub_row))
    held_out = write_source(tmp_path / "held_out.jsonl", [{"question": QUESTIONS["b"][0]}])
    out = tmp_path / "train.parquet"
    arguments = ["data", "dapo-math-17k", "--out", str(out), "--source", str(source), "--evaluation", str(held_out)]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert f"2 of 3 rows written to {out}" in result.output and "1 overlap ('b')" in result.output
    assert len(read_rows(out)) == 2


def test_the_modules_need_no_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "relay_verl"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "torch", None)  # importing it fails
    assert importlib.import_module("relay_verl.data.prepare").prepare is not prepare
