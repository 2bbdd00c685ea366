"""Files as people have them: excerpts of real files, and the layouts that copies of them have elsewhere.

RELAY_BENCHMARK_FILES names a folder with the whole files, for the test that counts all of their rows.
"""

import json
import os
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from typer.testing import CliRunner

from relay_verl.benchmarks.readers import read_gpqa
from relay_verl.benchmarks.registry import BENCHMARKS, Questions, find_benchmark, load_benchmark, parse_sources
from relay_verl.cli.main import app
from relay_verl.data.columns import QUESTIONS
from relay_verl.data.files import iter_file
from relay_verl.data.overlap import find_overlaps
from relay_verl.data.prepare import prepare
from relay_verl.data.prompts import PROMPT_SUFFIX, WRAPPERS, wrap
from relay_verl.data.schema import question_of, read_rows, text_id, to_row
from relay_verl.data.sources import HubId, parse_source
from relay_verl.data.truths import truth_of
from relay_verl.errors import UserError
from tests.helpers.rows import write_rows

EXCERPTS = Path(__file__).parents[2] / "data" / "benchmarks"
WHOLE = os.environ.get("RELAY_BENCHMARK_FILES")

Row = dict[str, Any]

FILES: list[tuple[str, str, int, int]] = [
    # benchmark, file, rows of the excerpt, rows of the whole file
    ("gsm8k", "gsm8k/test.jsonl", 20, 1319),
    ("math-500", "math-500/test.jsonl", 20, 500),
    ("math-500", "math-500/question_answer.csv", 20, 500),
    ("math-500", "math-500/verl_suffix.parquet", 20, 500),
    ("minerva", "minerva/test.jsonl", 20, 272),
    ("minerva", "minerva/list_answer.json", 20, 272),
    ("olympiadbench", "olympiadbench/test.jsonl", 20, 675),
    ("olympiadbench", "olympiadbench/verl_list_gold.parquet", 20, 675),
    ("aime-2024", "aime-2024/test.jsonl", 20, 30),
    ("aime-2025", "aime-2025/test.jsonl", 20, 30),
    ("bbeh", "bbeh/mini.json", 20, 460),
    ("bbeh", "bbeh/mini_hub_layout.parquet", 20, 460),
    ("bbeh", "bbeh/time_arithmetic.task.json", 20, 200),
    ("mmlu-pro", "mmlu-pro/sample.parquet", 20, 1008),
    ("supergpqa", "supergpqa/sample.jsonl", 20, 300),
    ("hmmt", "imo-answerbench/answerbench_v2.csv", 40, 400),  # any mathematics; no entry of its own
]
IDS = [file for _, file, _, _ in FILES]


def load(name: str, path: Path, **options: Any) -> Questions:
    return load_benchmark(find_benchmark(name), path, **options)


def truths(questions: Questions) -> list[Any]:
    return [truth_of(row["reward_model"]) for row in questions.rows]


def excerpt(file: str) -> list[Row]:
    return list(iter_file(EXCERPTS / file))


def message_of(action: Any) -> str:
    with pytest.raises(UserError) as caught:
        action()
    message = str(caught.value)
    assert message and "\n" not in message
    return message


# ---- real files ----


@pytest.mark.parametrize(("name", "file", "num", "_"), FILES, ids=IDS)
def test_excerpts_of_real_files(name: str, file: str, num: int, _: int) -> None:
    questions = load(name, EXCERPTS / file)
    assert len(questions.rows) == num and questions.warnings == ()
    for row in questions.rows:
        prompt = row["prompt"][-1]["content"]
        assert prompt.count("boxed{}") == 1  # one instruction, theirs or the paper's
        assert row["ability"] == find_benchmark(name).kind
        assert truth_of(row["reward_model"])


needs_whole_files = pytest.mark.skipif(
    WHOLE is None, reason="RELAY_BENCHMARK_FILES names no folder with the whole files"
)


@needs_whole_files
@pytest.mark.parametrize(("name", "file", "_", "num"), FILES, ids=IDS)
def test_whole_real_files(name: str, file: str, _: int, num: int) -> None:
    assert len(load(name, Path(WHOLE or "") / file).rows) == num


@needs_whole_files
def test_the_whole_training_set(tmp_path: Path) -> None:
    source = Path(WHOLE or "") / "dapo-math-17k" / "train.parquet"
    assert prepare("dapo-math-17k", tmp_path / "a.parquet", source=source).num_read == 17917


def test_the_same_answers_in_every_copy() -> None:
    hub = truths(load("math-500", EXCERPTS / "math-500/test.jsonl"))
    assert truths(load("math-500", EXCERPTS / "math-500/question_answer.csv")) == hub  # L7: not the worked solution
    assert truths(load("math-500", EXCERPTS / "math-500/verl_suffix.parquet")) == hub
    olympiad = truths(load("olympiadbench", EXCERPTS / "olympiadbench/verl_list_gold.parquet"))
    assert len(olympiad) == 20 and all(isinstance(truth, str) for truth in olympiad)  # L1


def test_lists_of_minerva_are_spellings_of_one_answer() -> None:
    questions = load("minerva", EXCERPTS / "minerva/list_answer.json")
    assert truths(questions)[0] == "9.6"
    assert ("6630.65", "6630") in truths(questions)


def test_a_csv_field_that_lost_its_closing_quote_keeps_its_answer() -> None:
    rows = {row["Problem ID"]: row for row in excerpt("imo-answerbench/answerbench_v2.csv")}
    assert rows["imo-bench-algebra-036"]["Short Answer"] == r"$Y(x)=A+\frac{B}{x}-x$"
    assert rows["imo-bench-algebra-036"]["Category"] == "Algebra"


# ---- layouts of copies that are not here ----


def layout(name: str) -> tuple[str, list[Row], list[Any]]:
    """Benchmark, rows and truths of a layout, made from a real file."""
    math, gsm8k = excerpt("math-500/test.jsonl"), excerpt("gsm8k/test.jsonl")
    answers = [row["answer"].strip() for row in math]
    olympiad = excerpt("olympiadbench/test.jsonl")
    all_wanted = [", ".join(row["final_answer"]) for row in olympiad]
    numbers = [row["answer"].rpartition("#### ")[2] for row in gsm8k]
    aime = [row["answer"] for row in excerpt("aime-2025/test.jsonl")]
    mini = excerpt("bbeh/mini_hub_layout.parquet")
    layouts: dict[str, tuple[str, list[Row], list[Any]]] = {
        "rllm gsm8k": (
            "gsm8k",
            [{"problem": row["question"], "solution": row["answer"], "answer": None} for row in gsm8k],
            numbers,
        ),
        "EquivPruner": ("math-500", [{"problem": r["problem"], "final_answer": r["answer"]} for r in math], answers),
        "PRIME": ("math-500", [{"problem": r["problem"], "expected_answer": r["answer"]} for r in math], answers),
        "null answer next to a solution": ("math-500", [{**row, "answer": None} for row in math], answers),
        "Qwen's instruction in the question": (
            "math-500",
            [{**row, "problem": f"{row['problem']}\n{PROMPT_SUFFIX}"} for row in math],
            answers,
        ),
        "LIMO olympiad": (
            "olympiadbench",
            [{"question": r["question"], "answer": ", ".join(r["final_answer"])} for r in olympiad],
            all_wanted,
        ),
        "FiRe-OPD olympiad": (
            "olympiadbench",
            [{"problem": r["question"], "answer": r["final_answer"]} for r in olympiad],
            all_wanted,
        ),
        "float answers": (
            "aime-2025",
            [{**row, "answer": float(row["answer"])} for row in excerpt("aime-2025/test.jsonl")],
            aime,
        ),
        "TTRL": (
            "math-500",
            [
                {
                    "data_source": "MATH-TTT",
                    "problem": row["problem"],
                    "prompt": [
                        {"role": "system", "content": f"{PROMPT_SUFFIX}"},
                        {"role": "user", "content": row["problem"]},
                    ],
                    "ability": "math",
                    "reward_model": {"style": "rule", "ground_truth": [row["answer"]]},
                    "extra_info": {"split": "test", "index": index},
                }
                for index, row in enumerate(math)
            ],
            answers,
        ),
        "a bare prompt and a reward model": (
            "math-500",
            [
                {"data_source": "x", "prompt": row["problem"], "reward_model": {"ground_truth": row["answer"]}}
                for row in math
            ],
            answers,
        ),
        "Capitals": ("math-500", [{"PROBLEM": r["problem"], "Final Answer": r["answer"]} for r in math], answers),
        "MrLight bbeh": (
            "bbeh",
            [{"question": row["input"], "answer": row["target"], "task": row["task"]} for row in mini],
            [row["target"].strip() for row in mini],
        ),
    }
    return layouts[name]


LAYOUTS = (
    "rllm gsm8k",
    "EquivPruner",
    "PRIME",
    "null answer next to a solution",
    "Qwen's instruction in the question",
    "LIMO olympiad",
    "FiRe-OPD olympiad",
    "float answers",
    "TTRL",
    "a bare prompt and a reward model",
    "Capitals",
    "MrLight bbeh",
)


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
@pytest.mark.parametrize("name", LAYOUTS)
def test_layouts(name: str, suffix: str, tmp_path: Path) -> None:
    benchmark, rows, expected = layout(name)
    questions = load(benchmark, write_rows(tmp_path / f"rows{suffix}", rows))
    assert truths(questions) == expected
    for row in questions.rows:
        assert "".join(message["content"] for message in row["prompt"]).count(PROMPT_SUFFIX) == 1  # L5


def test_json_in_every_shape(tmp_path: Path) -> None:
    _, rows, expected = layout("PRIME")
    frame, path = pd.DataFrame(rows), tmp_path / "rows.json"
    shapes = {
        "a list": json.dumps(rows, indent=1),
        "lines": "".join(json.dumps(row) + "\n" for row in rows),
        "pandas' columns": frame.to_json(),
        "pandas' index": frame.to_json(orient="index"),
        "pandas' table": frame.to_json(orient="table"),
        "lists of columns": json.dumps(frame.to_dict(orient="list"), indent=2),
        "rows under a key": json.dumps({"examples": rows, "canary": "c"}),
    }
    for shape, text in shapes.items():
        path.write_text(text)
        assert truths(load("math-500", path)) == expected, shape
    path.write_text(json.dumps(rows[0]))  # one row, and so is one whose prompt is a list of objects
    assert truths(load("math-500", path)) == expected[:1]
    path.write_text(json.dumps(to_row(data_source="d", question="7*8?", ground_truth="56", id="a"), indent=1))
    assert truths(load("math-500", path)) == ["56"]


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ('{"train": [{"a": 1}], "test": [{"a": 1}]}', ["keys train, test", "rows under one key"]),
        ('{"problem": {"0": "a", "1": "b"}, "answer": {"0": 1}}', ["2 values", "1 in answer"]),
        ('{"problem": ["a", "b"], "answer": [1]}', ["2 values", "1 in answer"]),
        ("3", ["'3'", "expected a list of rows"]),
        ('{"problem": "a"', ["not JSON"]),
    ],
)
def test_json_in_no_shape_is_one_line(text: str, named: list[str], tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    path.write_text(text)
    message = message_of(lambda: load("math-500", path))
    assert all(part in message for part in [str(path), *named]), message


def test_a_csv_that_cannot_be_repaired_is_refused_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text('problem,answer,x\n"a\n,"b",c\n"d\n,"e\n')
    message = message_of(lambda: load("math-500", path))
    assert f"{path}, line " in message


# ---- copies, tasks, choices ----


def dapo_aime(wrapped: bool = True) -> list[Row]:
    """As DAPO's eval/aime-2024.parquet: verl's schema, each question 32 times."""
    before, after = WRAPPERS[1]
    rows = []
    for row in excerpt("aime-2024/test.jsonl"):
        content = f"{before}\n\n{row['problem']}\n\n{after}" if wrapped else row["problem"]
        rows.append(
            {
                "data_source": "aime-2024",
                "prompt": [{"content": content, "role": "user"}],
                "ability": "MATH",
                "reward_model": {"ground_truth": row["answer"], "style": "rule-lighteval/MATH_v2"},
                "extra_info": {"index": f"uuid-{row['id']}", "raw_problem": row["problem"]},
            }
        )
    return rows * 32


def test_copies_are_one_question(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "aime.parquet", dapo_aime())
    questions = load("aime-2024", path)
    assert len(questions.rows) == 20 and len(load("aime-2024", path, limit=7).rows) == 7
    assert any("640 rows are 20 questions" in warning for warning in questions.warnings)
    assert len(read_rows(path)) == 20  # filter and warm-up


def test_an_instruction_without_a_box_gives_way_to_the_papers(tmp_path: Path) -> None:
    questions = load("aime-2024", write_rows(tmp_path / "aime.parquet", dapo_aime()))
    bare = excerpt("aime-2024/test.jsonl")[0]["problem"]
    assert questions.rows[0]["prompt"] == [{"role": "user", "content": wrap(bare)}]
    assert any("640 prompts" in warning for warning in questions.warnings)
    kept = load("math-500", EXCERPTS / "math-500/verl_suffix.parquet").rows[0]["prompt"][0]["content"]
    assert kept.endswith("output the final answer within \\boxed{}.")  # it asks for a box, and is kept


@pytest.mark.parametrize("folder", ["bbeh_time_arithmetic/task.json", "bbeh_web_of_lies/task.json"])
def test_bbehs_folder_of_tasks(folder: str, tmp_path: Path) -> None:
    text = (EXCERPTS / "bbeh/time_arithmetic.task.json").read_text()
    for name in ("bbeh_word_sorting/task.json", folder):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text(text.replace("1999", "1998") if name == folder else text)
    tasks = [row["extra_info"]["task"] for row in load("bbeh", tmp_path).rows]
    assert set(tasks) == {"word sorting", folder.split("/")[0].removeprefix("bbeh_").replace("_", " ")}
    assert len(tasks) == 40
    official, hub = (load("bbeh", EXCERPTS / file) for file in ("bbeh/mini.json", "bbeh/mini_hub_layout.parquet"))
    assert [row["prompt"] for row in official.rows] == [row["prompt"] for row in hub.rows]
    assert "task" not in official.rows[0]["extra_info"]


GPQA: Row = {
    "Question": "Which particle?", "Correct Answer": "a muon\n", "Incorrect Answer 1": "a quark",
    "Incorrect Answer 2": "a pion", "Incorrect Answer 3": "a kaon",
}  # fmt: skip


def test_gpqas_options_are_shuffled_by_the_rows_id() -> None:
    letters = {}
    for number in range(40):
        example = read_gpqa({**GPQA, "Record ID": f"rec{number}"})
        line = next(line for line in example.question.splitlines() if line.startswith(f"{example.answer}. "))
        assert line.endswith("a muon") and example == read_gpqa({**GPQA, "Record ID": f"rec{number}"})
        letters[number] = example.answer
    assert set(letters.values()) == set("ABCD")
    assert read_gpqa(GPQA) == read_gpqa({**GPQA, "Explanation": "long"})


CHOICES: list[tuple[Row, str | None, str]] = [
    ({"question": "2*4?", "options": ["6", "8"], "answer_letter": "B", "answer": "8"}, "B", "SuperGPQA's columns"),
    ({"question": "2*4?", "choices": ["6", "8"], "answer": 1}, "B", "MMLU's number"),
    ({"question": "2*4?", "options": ["six", "eight"], "answer": "eight"}, "B", "the option's text"),
    ({"question": "2*4?", "options": "['6', '8']", "answer": "B"}, "B", "a list in a CSV file"),
    ({"question": "2*4?\nA) 6\nB) 8", "answer": "B"}, "B", "options in the question"),
    ({"question": "2*4?\n(A) 6\n(B) 8", "answer": "(B)"}, "B", "with brackets"),
    ({"question": "2*4?\nA) 6\nB) 8", "answer": "C"}, None, "a letter that is not there"),
    ({"question": "2*4?", "options": ["6", "6"], "answer": "6"}, None, "two options of one text"),
    ({"question": "2*4?", "options": ["6", "8"], "answer": None, "answer_index": 7}, None, "a number past the end"),
]


@pytest.mark.parametrize(("row", "letter", "why"), CHOICES, ids=[case[2] for case in CHOICES])
def test_multiple_choice_layouts(row: Row, letter: str | None, why: str, tmp_path: Path) -> None:
    for name in ("supergpqa", "gpqa-diamond"):
        path = write_rows(tmp_path / name / "rows.jsonl", [row])
        if letter is None:
            assert "no answer" in message_of(lambda p=path, n=name: load(n, p))  # type: ignore[misc]
        else:
            questions = load(name, path)
            assert truths(questions) == [letter]
            assert questions.rows[0]["prompt"][0]["content"].count("8") >= 1 or "eight" in str(questions.rows)


ANSWERS: list[tuple[Row, str | None, str]] = [
    ({"answer": r"\boxed{2}, \boxed{3} and \boxed{13}"}, r"\boxed{2}, \boxed{3} and \boxed{13}", "boxes side by side"),
    ({"answer": r"First \boxed{2}, and so \boxed{3}."}, "3", "a worked solution in two steps"),
    ({"answer": r"$\boxed{3}$"}, "3", "a box alone"),
    ({"answer": "", "label": "3"}, "3", "a blank column in front"),
    ({"answer": ["", None], "target": 3}, "3", "an empty list in front"),
    ({"answer": float("nan"), "solution": r"\boxed{3}"}, "3", "NaN in front"),
    ({"answer": "", "solution": ["It is", r"\boxed{3}"]}, "3", "a solution in pieces"),
    ({"answer": None, "solution": "It is 3."}, None, "a solution without a box"),
]


@pytest.mark.parametrize(("row", "truth", "why"), ANSWERS, ids=[case[2] for case in ANSWERS])
def test_the_first_column_that_says_something(row: Row, truth: str | None, why: str, tmp_path: Path) -> None:
    path = write_rows(tmp_path / "rows.jsonl", [{"problem": None, "question": "1+2?", **row}])
    if truth is None:
        assert all(part in message_of(lambda: load("math-500", path)) for part in ("row 1", "no answer"))
    else:
        assert truths(load("math-500", path)) == [truth]


# ---- the training set, and its evaluation sets ----


def test_the_training_set_with_bare_questions(tmp_path: Path) -> None:
    report = prepare("dapo-math-17k", tmp_path / "out.parquet", source=EXCERPTS / "dapo-math-17k/train.parquet")
    assert (report.num_read, report.num_written) == (20, 20)
    assert all(row["prompt"][0]["content"].endswith(f"\n{PROMPT_SUFFIX}") for row in read_rows(report.out))


def test_the_training_set_with_prompt_and_label(tmp_path: Path) -> None:
    rows = [
        {"prompt": row["prompt"], "label": row["reward_model"]["ground_truth"]}
        for row in excerpt("dapo-math-17k/train.parquet")
    ]
    report = prepare("dapo-math-17k", tmp_path / "out.parquet", source=write_rows(tmp_path / "rows.jsonl", rows))
    assert report.num_written == 20
    written = read_rows(report.out)
    assert written[0]["extra_info"]["id"] == text_id(question_of(written[0]) or "")


@pytest.mark.parametrize(("before", "after"), WRAPPERS)
def test_every_known_instruction_gives_way_to_the_papers(before: str, after: str, tmp_path: Path) -> None:
    text = f"{before}\n\nWhat is 7*8?\n\n{after}".strip()
    rows = [{"prompt": [{"role": "user", "content": text}], "label": "56"}]
    path = write_rows(tmp_path / "rows.jsonl", rows)  # slime's columns
    written = read_rows(prepare("dapo-math-17k", tmp_path / "out.parquet", source=path).out)
    assert written[0]["prompt"] == load("math-500", path).rows[0]["prompt"]
    assert written[0]["prompt"] == [{"role": "user", "content": wrap("What is 7*8?")}]


@pytest.mark.parametrize("column", [*QUESTIONS, "Question", "Problem"])
def test_every_command_knows_the_same_columns(column: str, tmp_path: Path) -> None:
    (row, *_) = excerpt("math-500/test.jsonl")
    path = write_rows(tmp_path / "rows.csv", [{column: row["problem"], "Answer": row["answer"]}])
    (loaded,) = load("math-500", path).rows  # eval --source
    (overlap,) = find_overlaps([loaded], {"e": iter_file(path)})  # data --evaluation
    assert overlap.kind == "exact"
    assert prepare("dapo-math-17k", tmp_path / "out.parquet", source=path).num_written == 1  # data --source


# ---- the command ----


@pytest.mark.parametrize("name", [name for name in BENCHMARKS if name in {n for n, *_ in FILES}])
def test_the_command_writes_a_benchmark(name: str, tmp_path: Path) -> None:
    source = EXCERPTS / next(file for benchmark, file, *_ in FILES if benchmark == name)
    out = tmp_path / "test.parquet"
    result = CliRunner().invoke(app, ["data", name, "--out", str(out), "--source", str(source)])
    assert result.exit_code == 0, result.output
    first, written = load(name, source), read_rows(out)
    assert [row["prompt"] for row in written] == [row["prompt"] for row in first.rows]
    assert [row["extra_info"]["index"] for row in written] == list(range(len(written)))
    assert load(name, out).sha256 == first.sha256
    manifest = json.loads((tmp_path / "test.parquet.manifest.json").read_text())
    assert (manifest["name"], manifest["num_written"]) == (name, len(written))
    assert set(manifest) >= {"sha256", "source", "questions_sha256", "warnings", "versions"}


def test_a_benchmark_with_accepted_answers_is_written_with_one_type(tmp_path: Path) -> None:
    source, out = EXCERPTS / "minerva/list_answer.json", tmp_path / "test.parquet"
    result = CliRunner().invoke(app, ["data", "minerva", "--out", str(out), "--source", str(source)])
    assert result.exit_code == 0, result.output
    assert truths(load("minerva", out)) == truths(load("minerva", source))
    assert load("minerva", out).sha256 == load("minerva", source).sha256


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["nothing"], ["'nothing'", "dapo-math-17k", "math-500"]),
        (["math-500", "--evaluation", "x.parquet"], ["--evaluation", "math-500"]),
        (["math-500", "--source", "hub:nothing"], ["hub:nothing", "hub:OWNER/NAME"]),
        (["math-500", "--source", "gone.jsonl"], ["gone.jsonl does not exist"]),
    ],
)
def test_bad_arguments_are_one_line(arguments: list[str], named: list[str], tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["data", *arguments, "--out", str(tmp_path / "out.parquet")])
    message = str(result.exception)
    assert isinstance(result.exception, UserError) and "\n" not in message
    assert all(part in message for part in named), message
    assert not list(tmp_path.iterdir())


def test_hub_ids_on_the_command_line() -> None:
    assert parse_source("hub:MathArena/hmmt_feb_2026@train") == HubId("MathArena/hmmt_feb_2026", None, "train")
    assert parse_source("hub:a/b:main") == HubId("a/b", "main", None)
    assert str(parse_source("hub:a/b:main@test")) == "hub:a/b:main@test"
    assert parse_source("hub/file.jsonl") == Path("hub/file.jsonl")
    assert parse_sources(["hmmt=hub:a/b"]) == {"hmmt": HubId("a/b")}


def test_another_hub_id(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    asked: list[Any] = []

    def load_dataset(*names: str, split: str) -> datasets.Dataset:
        asked.append((names, split))
        return datasets.Dataset.from_list([{"problem": "7*8?", "answer": 56}])

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    questions = load_benchmark(find_benchmark("hmmt"), HubId("MathArena/hmmt_feb_2026"))
    assert truths(questions) == ["56"] and questions.origin["hub_id"] == "MathArena/hmmt_feb_2026"
    load_benchmark(find_benchmark("hmmt"), None)
    assert asked == [(("MathArena/hmmt_feb_2026",), "train"), (("MathArena/hmmt_feb_2025",), "train")]
