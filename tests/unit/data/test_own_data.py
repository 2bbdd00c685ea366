"""Questions of the user's own: any file, any column names, in `data` and in `eval`."""

import csv
import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from relay_verl.benchmarks.own import find_benchmarks
from relay_verl.benchmarks.registry import load_benchmark
from relay_verl.cli.main import app
from relay_verl.data.columns import ANSWERS, QUESTIONS
from relay_verl.data.examples import read_columns
from relay_verl.data.own import OwnColumns, find_own
from relay_verl.data.schema import read_rows
from relay_verl.errors import UserError

SUMS = [(f"What is {i}+{i}?", 2 * i) for i in range(1, 6)]


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    match path.suffix:
        case ".csv":
            with path.open("w", newline="") as file:
                writer = csv.DictWriter(file, list(rows[0]))
                writer.writeheader()
                writer.writerows(rows)
        case ".json":
            path.write_text(json.dumps(rows))
        case ".jsonl":
            path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
        case ".parquet":
            pd.DataFrame(rows).to_parquet(path)
    return path


def rows_under(question: str, answer: str, /, **more: Any) -> list[dict[str, Any]]:
    return [{question: text, answer: number, **more} for text, number in SUMS]


def data(*words: str | Path) -> Any:
    return CliRunner().invoke(app, ["data", *map(str, words)])


def error_of(*words: str | Path) -> str:
    done = data(*words)
    assert isinstance(done.exception, UserError), done.output
    assert "\n" not in str(done.exception)
    return str(done.exception)


KINDS = [".csv", ".json", ".jsonl", ".parquet"]


@pytest.mark.parametrize("suffix", KINDS)
def test_a_file_becomes_a_training_set(suffix: str, tmp_path: Path) -> None:
    file = write(tmp_path / f"my sums{suffix}", rows_under("Frage", "Lösung", answer="not this"))
    out = tmp_path / "out.parquet"
    done = data(file, "--question-column", "Frage", "--answer-column", "Lösung", "--name", "sums", "--out", out)
    assert done.exit_code == 0, done.exception
    rows = read_rows(out)
    assert [row["reward_model"]["ground_truth"] for row in rows] == [str(number) for _, number in SUMS]
    assert {row["data_source"] for row in rows} == {"sums"}
    assert all(text in row["prompt"][0]["content"] for row, (text, _) in zip(rows, SUMS, strict=True))


@pytest.mark.parametrize(("question", "answer"), [("question", "answer"), ("Problem", "solution"), ("input", "target")])
def test_usual_names_need_no_options(question: str, answer: str, tmp_path: Path) -> None:
    file = write(tmp_path / "sums.csv", rows_under(question, answer))
    done = data(file, "--out", tmp_path / "out.parquet", "--json")
    assert done.exit_code == 0, done.exception
    manifest = json.loads(done.stdout)
    assert (manifest["name"], manifest["num_written"]) == ("sums", len(SUMS))


def test_errors_name_the_columns_there_are(tmp_path: Path) -> None:
    file, out = write(tmp_path / "sums.csv", rows_under("frage", "antwort")), ["--out", tmp_path / "out.parquet"]
    line = error_of(file, *out)
    assert "sums.csv: row 1" in line and "frage, antwort" in line and "--question-column" in line
    line = error_of(file, *out, "--question-column", "frage")
    assert "frage, antwort" in line and "--answer-column" in line
    line = error_of(file, *out, "--question-column", "frag", "--answer-column", "antwort")
    assert "'frag'" in line and "did you mean 'frage'?" in line
    mixed = tmp_path / "mixed.jsonl"
    mixed.write_text('{"frage": "1+1?", "antwort": 2}\n{"frage": "2+2?"}\n')
    line = error_of(mixed, *out, "--question-column", "frage", "--answer-column", "antwort")
    assert "mixed.jsonl: row 2" in line and "'antwort'" in line
    assert not (tmp_path / "out.parquet").exists()


def test_options_that_do_not_fit(tmp_path: Path) -> None:
    file, out = write(tmp_path / "sums.csv", rows_under("question", "answer")), ["--out", tmp_path / "out.parquet"]
    assert "--name" in error_of("math-500", *out, "--name", "mine")
    assert "dapo-math-17k" in error_of("dapo-math-17k", *out, "--question-column", "q")
    assert "--source" in error_of(file, *out, "--source", file)
    assert "'math-500'" in error_of(file, *out, "--name", "math-500")
    assert "'a/b'" in error_of(file, *out, "--name", "a/b")
    assert "gone.csv does not exist" in error_of(tmp_path / "gone.csv", *out)
    text = file.rename(tmp_path / "sums.txt")
    assert ".parquet, .jsonl, .json, .csv" in error_of(text, *out)


texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)


@given(
    question=st.one_of(texts, st.sampled_from([*QUESTIONS, *ANSWERS])),
    answer=st.one_of(texts, st.sampled_from([*QUESTIONS, *ANSWERS, "solution", "answer_letter"])),
    others=st.dictionaries(st.one_of(texts, st.sampled_from([*QUESTIONS, *ANSWERS, "solution"])), st.just("no")),
)
def test_what_is_named_is_what_is_read(question: str, answer: str, others: dict[str, str]) -> None:
    """Whatever other columns there are, also such that are usually read."""
    if question == answer:
        return
    row = {**others, question: "1+1?", answer: "2"}
    example = read_columns(has_plain_solutions=True)(OwnColumns(question, answer).rename(row, "x"))
    assert (example.question, example.answer) == ("1+1?", "2")


# ---- eval ----


@pytest.mark.parametrize("suffix", KINDS)
def test_a_file_becomes_a_benchmark(suffix: str, tmp_path: Path) -> None:
    file = write(tmp_path / f"sums{suffix}", rows_under("Frage", "Antwort", answer="not this"))
    [benchmark], own = find_benchmarks([str(file)], OwnColumns("Frage", "Antwort"))
    questions = load_benchmark(benchmark, own["sums"])
    assert [row["reward_model"]["ground_truth"] for row in questions.rows] == [str(number) for _, number in SUMS]
    assert {row["data_source"] for row in questions.rows} == {"sums"}


def test_names_of_ones_own(tmp_path: Path) -> None:
    file = write(tmp_path / "test.csv", rows_under("question", "answer"))
    benchmarks, own = find_benchmarks(["math-500", f"Mine={file}"])
    assert [benchmark.name for benchmark in benchmarks] == ["math-500", "mine"] and own == {"mine": file}
    (tmp_path / "a=b").mkdir()
    odd = write(tmp_path / "a=b" / "test.csv", rows_under("question", "answer"))
    assert find_benchmarks([str(odd)])[1] == {"test": odd}


@pytest.mark.parametrize(
    ("file", "name"), [("My sums (2).csv", "my-sums-2"), ("日本.csv", "日本"), ("--.csv", "own"), ("a.b.csv", "a.b")]
)
def test_a_file_has_a_name_whatever_its_letters(file: str, name: str, tmp_path: Path) -> None:
    path = write(tmp_path / file, rows_under("question", "answer"))
    [benchmark], own = find_benchmarks([str(path)])
    assert benchmark.name == name and own == {name: path}
    out = tmp_path / "out.parquet"
    assert data(path, "--out", out).exit_code == 0
    assert {row["data_source"] for row in read_rows(out)} == {name}


def test_options_of_a_choice_are_lettered(tmp_path: Path) -> None:
    rows = [{"question": "Which?", "options": ["red", "green"], "answer": "B"}]
    file = write(tmp_path / "quiz.jsonl", rows)
    [benchmark], own = find_benchmarks([str(file)])
    [row] = load_benchmark(benchmark, own["quiz"]).rows
    assert row["ability"] == "choice" and "green" in row["prompt"][0]["content"]


def test_bad_benchmarks_are_one_line(tmp_path: Path) -> None:
    file = write(tmp_path / "sums.csv", rows_under("frage", "antwort"))
    copy = write(tmp_path / "gsm8k.csv", rows_under("question", "answer"))
    (tmp_path / "b").mkdir()
    twin = write(tmp_path / "b" / "good.csv", rows_under("question", "answer"))
    good = write(tmp_path / "good.csv", rows_under("question", "answer"))
    for values, columns, parts in (
        ([file], OwnColumns(), ["sums.csv: row 1", "frage, antwort", "--question-column"]),
        ([copy], OwnColumns(), ["--source gsm8k="]),
        ([good, twin], OwnColumns(), ["good twice", "NAME=FILE"]),
        (["math-500"], OwnColumns("q"), ["--question-column"]),
        ([tmp_path / "gone.csv"], OwnColumns(), ["gone.csv does not exist"]),
        (["mine=gone"], OwnColumns(), ["gone does not exist"]),
        (["math500"], OwnColumns(), ["did you mean 'math-500'?"]),
    ):
        with pytest.raises(UserError) as error:
            find_benchmarks([str(value) for value in values], columns)
        assert all(part in str(error.value) for part in parts), str(error.value)
        assert "\n" not in str(error.value)


def test_hub_ids_of_ones_own() -> None:
    assert str(find_own("hub:me/sums@test")) == "hub:me/sums@test"
    [benchmark], own = find_benchmarks(["hub:me/sums@test"])
    assert benchmark.name == "sums" and str(own["sums"]) == "hub:me/sums@test"
