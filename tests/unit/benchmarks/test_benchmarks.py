"""Benchmarks: the schemas they have on the hub, the prompts they become, and how their responses are graded."""

from pathlib import Path
from typing import Any

import datasets
import huggingface_hub
import pytest

from relay_verl.benchmarks.registry import BENCHMARKS, Questions, find_benchmark, load_benchmark, parse_sources
from relay_verl.data.schema import PROMPT_SUFFIX, question_of, text_id, to_row, write_parquet
from relay_verl.grading import grade, kind_of
from tests.helpers.errors import one_line
from tests.helpers.rows import write_rows

OPTIONS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]

Row = dict[str, Any]

HUB: dict[str, list[Row]] = {
    "math-500": [
        {"problem": "Convert $(0,3)$.", "solution": r"So $\boxed{\left( 3, \frac{\pi}{2} \right)}.$",
         "answer": r"\left( 3, \frac{\pi}{2} \right)", "subject": "Precalculus", "level": 2,
         "unique_id": "test/precalculus/807.json"},
        {"problem": "Half of $7$?", "solution": r"$\boxed{3.5}$", "answer": r"\frac{7}{2}", "subject": "Algebra",
         "level": 1, "unique_id": "test/algebra/1.json"},
    ],
    "gsm8k": [
        {"question": "Eggs?", "answer": "She sells 16 - 7 = <<16-7=9>>9 eggs.\n#### 18"},
        {"question": "Dollars?", "answer": "Much.\n#### 70,000"},
    ],
    "minerva": [
        {"question": "How many ergs?", "answer": "4.5e33"},
        {"question": "Which $I(t)$?", "answer": r"I(0) e^{-\frac{t}{R C}}"},
    ],
    "olympiadbench": [
        {"id": 1606, "question": "How many?", "solution": ["..."], "final_answer": ["2"], "context": None,
         "modality": "Text-only", "is_multiple_answer": False, "unit": None, "error": None, "language": "English"},
        {"id": 1612, "question": "Find all $n$.", "solution": ["..."], "final_answer": ["$1$", "$7$"],
         "context": "Let $n$ be odd.", "modality": "Text-only", "is_multiple_answer": True, "unit": None,
         "error": None, "language": "English"},
    ],
    "aime-2024": [
        {"id": 60, "problem": "How long?", "solution": r"$\boxed{204}$", "answer": "204", "url": "u", "year": "2024"},
        {"id": 61, "problem": "How many?", "solution": r"$\boxed{025}$", "answer": "025", "url": "u", "year": "2024"},
    ],
    "aime-2025": [
        {"problem": "Sum of all bases?", "answer": "70", "id": "0"},
        {"problem": "Area?", "answer": "588", "id": "1"},
    ],
    "bbeh": [
        {"task": "web of lies", "input": "Do they lie?", "target": "yes, no, yes", "mini": 1},
        {"task": "boardgame qa", "input": "Is it so?", "target": "disproved", "mini": 0},
        {"task": "disambiguation qa", "input": "Which?\n(A) x\n(B) y", "target": "(B)", "mini": 1},
    ],
    "mmlu-pro": [
        {"question_id": 70, "question": "3*3?", "options": OPTIONS, "answer": "J", "answer_index": 9,
         "cot_content": "", "category": "math", "src": "s"},
        {"question_id": 71, "question": "1+1?", "options": OPTIONS[:3], "answer": "C", "answer_index": 2,
         "cot_content": "", "category": "math", "src": "s"},
    ],
    "supergpqa": [
        {"uuid": "ab1", "question": "2*4?", "options": OPTIONS, "answer": "eight", "answer_letter": "I",
         "discipline": "Science", "field": "f", "subfield": "s", "difficulty": "easy", "is_calculation": True},
        {"uuid": "ab2", "question": "1-1?", "options": OPTIONS[:4], "answer": "zero", "answer_letter": "A",
         "discipline": "Science", "field": "f", "subfield": "s", "difficulty": "easy", "is_calculation": True},
    ],
    "gsm8k-platinum": [
        {"question": "Hens?", "answer": "4 + 3 = <<4+3=7>>7 hens.\n#### 7", "cleaning_status": "verified"},
        {"question": "Cows?", "answer": "1,000 + 200\n#### 1,200", "cleaning_status": "revised"},
    ],
    "gpqa-diamond": [
        {"Record ID": "rec1", "Question": "Which particle?", "Correct Answer": "a muon\n",
         "Incorrect Answer 1": "a quark", "Incorrect Answer 2": "a pion", "Incorrect Answer 3": "a kaon",
         "Explanation": "e", "Subdomain": "Physics"},
        {"Record ID": "rec2", "Question": "How many?", "Correct Answer": "12", "Incorrect Answer 1": "4",
         "Incorrect Answer 2": "8", "Incorrect Answer 3": "16", "Explanation": "e", "Subdomain": "Chemistry"},
    ],
    "aime-2026": [
        {"problem_idx": 1, "answer": 277, "problem": "How far?"},
        {"problem_idx": 2, "answer": 62, "problem": "How few?"},
    ],
    "hmmt": [
        {"problem_idx": 1, "answer": "103", "problem_type": ["Number Theory"], "problem": "Sum of divisors?"},
        {"problem_idx": 2, "answer": r"1-\frac{2}{\pi}", "problem_type": ["Geometry"], "problem": "Which area?"},
    ],
    "tiny": [
        to_row(data_source="tiny/add", question="7+8", ground_truth="15", id="add-0", split="test"),
        to_row(data_source="tiny/mul", question="7*8", ground_truth="56", id="mul-0", split="test"),
    ],
}  # fmt: skip
"""A few rows of each benchmark with the columns that it has on the hub."""

OTHER_LAYOUTS: list[tuple[str, Row, str, str]] = [
    ("math-500", {"Question": "Half of $7$?", "Answer": "3.5"}, "3.5", "simple-evals' file"),
    ("minerva", {"problem": "Which?", "type": "t", "solution": r"First \boxed{1}, then \boxed{2}.", "idx": 0}, "2",
     "Minerva's own: the last box of the solution"),
    ("minerva", {"problem": "Which?", "answer": "3", "solution": r"\boxed{4}"}, "3", "an answer next to the solution"),
    ("aime-2024", {"ID": "2024-I-1", "Problem": "How long?", "Solution": "s", "Answer": 204}, "204", "capitals"),
    ("aime-2024", {"id": 0, "problem": "How long?", "solution": r"\boxed{204}"}, "204", "the answer in a box"),
    ("aime-2025", {"question": "Area?", "answer": "588"}, "588", "a question, not a problem"),
    ("bbeh", {"question": "Lie?", "answer": "no, yes", "task": "web of lies"}, "no, yes", "a copy with other names"),
    ("olympiadbench", {"question": "How many?", "final_answer": "2", "context": ""}, "2", "one answer as text"),
    ("tiny", {"question": "7+8", "answer": 15}, "15", "a plain file"),
]  # fmt: skip

GRADED: list[tuple[str, int, str, str, str]] = [
    ("math-500", 0, r"\boxed{(3, \frac{\pi}{2})}", r"\boxed{(\frac{\pi}{2}, 3)}", "a pair has an order"),
    ("math-500", 1, r"\boxed{3.5}", r"\boxed{7}", "a decimal for a fraction"),
    ("gsm8k", 0, r"She has 9. \boxed{18}", r"She has 18. \boxed{9}", "the number behind the hashes"),
    ("gsm8k", 1, r"\boxed{70000}", r"\boxed{70}", "a thousands comma"),
    ("minerva", 0, r"\boxed{4.5 \times 10^{33}}", r"\boxed{4.5 \times 10^{32}}", "a power of ten"),
    ("minerva", 0, r"\boxed{4.50e33}", r"\boxed{4.5}", "the same, in e notation"),
    ("minerva", 1, r"\boxed{I(0) e^{-t/(RC)}}", r"\boxed{I(0) e^{t/(RC)}}", "an expression"),
    ("olympiadbench", 0, r"\boxed{2}", r"\boxed{3}", "one answer"),
    ("olympiadbench", 1, r"\boxed{7, 1}", r"\boxed{7}", "all answers, in any order"),
    ("aime-2024", 0, r"\boxed{204}", r"\boxed{205}", "an integer"),
    ("aime-2024", 1, r"\boxed{25}", r"\boxed{250}", "AIME's leading zero"),
    ("aime-2025", 1, r"\boxed{588}", r"588", "without a box nothing is said"),
    ("bbeh", 0, r"\boxed{\text{Yes, no, yes}}", r"\boxed{no, yes, yes}", "a list of words has an order"),
    ("bbeh", 1, r"\boxed{disproved}", r"\boxed{proved}", "a word"),
    ("bbeh", 2, r"\boxed{B}", r"\boxed{(A)}", "a letter"),
    ("mmlu-pro", 0, r"\boxed{J}", r"\boxed{A}", "the tenth letter"),
    ("mmlu-pro", 1, r"The answer is (C).", r"\boxed{2}", "a letter without a box"),
    ("supergpqa", 0, r"\boxed{I. eight}", r"\boxed{H}", "a letter and its option"),
    ("supergpqa", 1, r"\boxed{\text{A}}", r"\boxed{\text{B}}", "a letter in LaTeX"),
    ("gsm8k-platinum", 1, r"\boxed{1200}", r"\boxed{200}", "as GSM8K"),
    ("aime-2026", 0, r"\boxed{277}", r"\boxed{27}", "a number, not a text"),
    ("hmmt", 1, r"\boxed{\frac{\pi-2}{\pi}}", r"\boxed{\frac{2}{\pi}}", "an expression"),
    ("tiny", 1, r"\boxed{56}", r"\boxed{15}", "the tiny world"),
]  # fmt: skip


def load_rows(name: str, rows: list[Row], tmp_path: Path, file: str = "rows.jsonl", **options: Any) -> Questions:
    return load_benchmark(find_benchmark(name), write_rows(tmp_path / name / file, rows), **options)


# ---- the registry ----


def test_the_papers_benchmarks_in_the_order_of_its_tables() -> None:
    assert [benchmark.title for benchmark in BENCHMARKS.values()] == [
        "Minerva", "MATH500", "GSM8K", "Olympiad", "AIME25", "AIME24", "BBEH", "MMLU-Pro", "SuperGPQA",
        "GSM8K-Platinum", "GPQA-Diamond", "AIME26", "HMMT25", "tiny world",
    ]  # fmt: skip
    assert set(BENCHMARKS) == set(HUB)


def test_pass_at_1_is_greedy_and_avg_at_32_is_not() -> None:
    for name, benchmark in BENCHMARKS.items():
        is_small = name.startswith(("aime", "hmmt"))
        assert benchmark.num_samples == (32 if is_small else 1)
        assert (benchmark.sampling["temperature"] > 0) == is_small  # 32 greedy samples would be one


def test_names() -> None:
    assert find_benchmark("MATH-500").name == "math-500"
    message = one_line(lambda: find_benchmark("math500"))
    assert "'math500'" in message and all(name in message for name in BENCHMARKS)


def test_sources_of_a_command_line() -> None:
    assert parse_sources([]) == {}
    sources = parse_sources(["GSM8K=a.jsonl", "tiny=b/c=d.parquet"])
    assert sources == {"gsm8k": Path("a.jsonl"), "tiny": Path("b/c=d.parquet")}


BAD_SOURCES = [
    (["gsm8k"], "'gsm8k' is not NAME=PATH", "no path"),
    (["gsm8k="], "'gsm8k=' is not NAME=PATH", "an empty path"),
    (["=a.jsonl"], "'=a.jsonl' is not NAME=PATH", "no name"),
    (["gsm=a.jsonl"], "unknown benchmark 'gsm'; allowed: minerva, math-500", "an unknown name"),
    (["tiny=a", "TINY=b"], "tiny has two copies: a and b", "a name given twice"),
]


@pytest.mark.parametrize(("values", "named", "why"), BAD_SOURCES, ids=[case[2] for case in BAD_SOURCES])
def test_bad_sources_are_one_line(values: list[str], named: str, why: str) -> None:
    assert named in one_line(lambda: parse_sources(values))


# ---- rows ----


@pytest.mark.parametrize("file", ["rows.parquet", "rows.jsonl", "rows.json"])
@pytest.mark.parametrize("name", HUB)
def test_the_hubs_schema_in_every_kind_of_file(name: str, file: str, tmp_path: Path) -> None:
    loaded = load_rows(name, HUB[name], tmp_path, file)
    assert len(loaded.rows) == len(HUB[name])
    for row in loaded.rows:
        assert row["prompt"][-1]["content"].endswith(f"\n{PROMPT_SUFFIX}")
        assert row["ability"] == find_benchmark(name).kind
        assert row["extra_info"]["split"] == find_benchmark(name).split
        assert name == "tiny" or row["data_source"] == name
    assert loaded.origin["path"] == str(tmp_path / name / file)
    assert len(loaded.origin["files"][0]["sha256"]) == 64


def test_the_tiny_world_keeps_its_families(tmp_path: Path) -> None:
    loaded = load_rows("tiny", HUB["tiny"], tmp_path, "test.parquet")
    assert [row["data_source"] for row in loaded.rows] == ["tiny/add", "tiny/mul"]
    assert [row["extra_info"]["id"] for row in loaded.rows] == ["add-0", "mul-0"]


def test_ids_are_the_datasets_own(tmp_path: Path) -> None:
    ids = {name: [row["extra_info"]["id"] for row in load_rows(name, HUB[name], tmp_path).rows] for name in HUB}
    assert ids["math-500"] == ["test/precalculus/807.json", "test/algebra/1.json"]
    assert ids["olympiadbench"] == ["1606", "1612"]
    assert (ids["aime-2024"], ids["aime-2025"]) == (["60", "61"], ["0", "1"])
    assert (ids["mmlu-pro"], ids["supergpqa"]) == (["70", "71"], ["ab1", "ab2"])
    assert ids["gsm8k"] == [text_id("Eggs?"), text_id("Dollars?")]  # it has none


@pytest.mark.parametrize(("name", "row", "truth", "why"), OTHER_LAYOUTS, ids=[case[3] for case in OTHER_LAYOUTS])
@pytest.mark.parametrize("file", ["rows.csv", "rows.jsonl"])
def test_other_layouts(name: str, row: Row, truth: str, why: str, file: str, tmp_path: Path) -> None:
    (made,) = load_rows(name, [row], tmp_path, file).rows
    assert made["reward_model"]["ground_truth"] == truth
    assert question_of(made) in row.values()


def test_the_prompt_of_a_choice_has_its_options(tmp_path: Path) -> None:
    (row,) = load_rows("mmlu-pro", HUB["mmlu-pro"][1:], tmp_path).rows
    assert row["prompt"] == [
        {
            "role": "user",
            "content": "1+1?\nA. zero\nB. one\nC. two\nThe answer is the letter of one of the options.\n"
            "Please reason step by step, and put your final answer within \\boxed{}.",
        }
    ]


def test_a_passage_stands_before_the_questions_it_is_for(tmp_path: Path) -> None:
    alone, with_context = load_rows("olympiadbench", HUB["olympiadbench"], tmp_path).rows
    assert (question_of(alone), question_of(with_context)) == ("How many?", "Let $n$ be odd.\nFind all $n$.")


@pytest.mark.parametrize(
    ("name", "index", "right", "wrong", "why"), GRADED, ids=[f"{case[0]}: {case[4]}" for case in GRADED]
)
def test_responses_are_graded_by_the_rows(
    name: str, index: int, right: str, wrong: str, why: str, tmp_path: Path
) -> None:
    row = load_rows(name, HUB[name], tmp_path, "rows.parquet").rows[index]
    truth, kind = row["reward_model"]["ground_truth"], kind_of(row["ability"])
    assert grade(f"Let me think. {right}", truth, kind).is_correct
    assert not grade(f"Let me think. {wrong}", truth, kind).is_correct


# ---- files in verl's schema ----


def test_a_file_in_verls_schema_is_taken_as_it_is(tmp_path: Path) -> None:
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "7*8? Box it."}]
    given = {"data_source": "DigitalLearningGmbH/MATH-lighteval", "prompt": messages, "ability": "MATH"}
    rows = [{**given, "reward_model": {"ground_truth": 56}, "extra_info": {"index": 4, "split": "x"}}]
    (row,) = load_rows("math-500", rows, tmp_path).rows
    assert row == {
        "data_source": "math-500",  # results are told apart by it
        "prompt": messages,
        "ability": "math",
        "reward_model": {"ground_truth": "56"},
        "extra_info": {"id": "4", "index": 4, "split": "x"},
    }


def test_a_choice_in_verls_schema_is_graded_as_one(tmp_path: Path) -> None:
    rows = [to_row(data_source="d", question="q", ground_truth="B", id=str(i), ability=a) for i, a in enumerate("xy")]
    rows[1]["ability"] = "math"  # what a row says of itself holds
    assert [row["ability"] for row in load_rows("mmlu-pro", rows, tmp_path).rows] == ["choice", "math"]


def test_what_a_loaded_benchmark_is_written_as_can_be_its_source(tmp_path: Path) -> None:
    for name in HUB:
        first = load_rows(name, HUB[name], tmp_path)
        write_parquet(tmp_path / f"{name}.parquet", first.rows)
        again = load_benchmark(find_benchmark(name), tmp_path / f"{name}.parquet")
        assert again.rows == first.rows and again.sha256 == first.sha256


def test_the_hash_is_of_the_questions_and_not_of_the_file(tmp_path: Path) -> None:
    rows = HUB["aime-2025"]
    first = load_rows("aime-2025", rows, tmp_path).sha256
    assert load_rows("aime-2025", rows, tmp_path, "rows.parquet").sha256 == first
    assert load_rows("aime-2025", rows, tmp_path, limit=1).sha256 != first
    assert load_rows("aime-2025", [rows[0], {**rows[1], "answer": "589"}], tmp_path).sha256 != first


def test_limit_takes_the_first_rows_and_reads_no_further(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "rows.jsonl", HUB["bbeh"])
    path.write_text(path.read_text() + "rubbish\n")
    (row,) = load_benchmark(find_benchmark("bbeh"), path, limit=1).rows
    assert question_of(row) == "Do they lie?"
    assert "rows.jsonl, line 4 is not JSON" in one_line(lambda: load_benchmark(find_benchmark("bbeh"), path))
    assert "limit is 0" in one_line(lambda: load_benchmark(find_benchmark("bbeh"), path, limit=0))


def test_equal_questions_without_ids_stay_apart(tmp_path: Path) -> None:
    rows = [HUB["gsm8k"][0], HUB["gsm8k"][1], HUB["gsm8k"][0]]
    id = text_id("Eggs?")
    assert [row["extra_info"]["id"] for row in load_rows("gsm8k", rows, tmp_path).rows] == [
        id,
        text_id("Dollars?"),
        f"{id}-2",
    ]


# ---- what cannot be loaded ----

BAD_ROWS: list[tuple[str, list[Row], list[str], str]] = [
    ("gsm8k", [{"q": "Eggs?", "a": "18"}], ["row 1", "columns q, a", "question", "answer", "data_source, prompt"],
     "missing columns"),
    ("gsm8k", [*HUB["gsm8k"], {"question": "Hens?"}], ["row 3", "columns question;", "question", "answer"],
     "a column that a later row lacks"),
    ("gsm8k", [{"question": "Eggs?", "answer": "Many.\n#### "}], ["row 1", "no answer"], "nothing behind the hashes"),
    ("gsm8k", [{"question": " ", "answer": "#### 1"}], ["row 1 has no question"], "a blank question"),
    ("math-500", [{**HUB["math-500"][0], "answer": None, "solution": "It is 2."}],
     ["row 1", "test/precalculus/807.json", "no answer"], "no answer and a solution without a box"),
    ("minerva", [{"problem": "Which?", "solution": "It is 2."}], ["row 1", "no answer"], "a solution without a box"),
    ("olympiadbench", [{**HUB["olympiadbench"][0], "final_answer": []}], ["row 1", "'1606'", "no answer"],
     "an empty list of answers"),
    ("mmlu-pro", [{**HUB["mmlu-pro"][1], "answer": "D"}], ["row 1", "'71'", "no answer"], "a letter without an option"),
    ("mmlu-pro", [{**HUB["mmlu-pro"][1], "options": "A) 1 B) 2"}], ["row 1", "no answer"], "options as one text"),
    ("supergpqa", [{**HUB["supergpqa"][0], "question": None}], ["row 1 has no question"], "options without a question"),
    ("aime-2025", [*HUB["aime-2025"], {**HUB["aime-2025"][0], "problem": "Else?"}],
     ["aime-2025", "1 ids occur more than once", "'0'"], "an id of the dataset's own twice"),
    ("tiny", [{**HUB["tiny"][0], "reward_model": {"ground_truth": " "}}], ["row 1", "'add-0'", "no answer"],
     "verl's schema without an answer"),
    ("tiny", [{**HUB["tiny"][0], "prompt": [{"role": "user"}]}], ["row 1", "not a list of messages"],
     "verl's schema, a message without content"),
    ("bbeh", [], ["bbeh", "rows.jsonl has no rows"], "an empty file"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "rows", "named", "why"), BAD_ROWS, ids=[case[3] for case in BAD_ROWS])
def test_bad_rows_are_one_line(name: str, rows: list[Row], named: list[str], why: str, tmp_path: Path) -> None:
    message = one_line(lambda: load_rows(name, rows, tmp_path))
    assert all(part in message for part in named), message


def test_a_copy_that_is_not_there_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    message = one_line(lambda: load_benchmark(find_benchmark("gsm8k"), tmp_path / "gone.jsonl"))
    assert "gone.jsonl does not exist" in message and "--source gsm8k=PATH" in message
    monkeypatch.setenv("RELAY_TINY_DIR", str(tmp_path / "nothing"))
    message = one_line(lambda: load_benchmark(find_benchmark("tiny"), None))
    assert str(tmp_path / "nothing" / "test.parquet") in message and "--source tiny=PATH" in message


def test_the_tiny_world_is_found_by_its_environment_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_parquet(tmp_path / "test.parquet", HUB["tiny"])
    monkeypatch.setenv("RELAY_TINY_DIR", str(tmp_path))
    loaded = load_benchmark(find_benchmark("tiny"), None)
    assert loaded.rows == HUB["tiny"] and loaded.origin["path"] == str(tmp_path / "test.parquet")


def test_a_hub_out_of_reach_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path)
    message = one_line(lambda: load_benchmark(find_benchmark("olympiadbench"), None))
    assert all(part in message for part in ("Hothan/OlympiadBench", "hub", "--source olympiadbench=PATH"))


def test_the_hub_is_asked_for_one_configuration_and_split(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[tuple[str, ...], str]] = []

    def load_dataset(*names: str, split: str) -> datasets.Dataset:
        asked.append((names, split))
        return datasets.Dataset.from_list(HUB["gsm8k" if "gsm8k" in names[0] else "bbeh"])

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    loaded = load_benchmark(find_benchmark("gsm8k"), None)
    assert [row["reward_model"]["ground_truth"] for row in loaded.rows] == ["18", "70,000"]
    assert (loaded.origin["hub_id"], loaded.origin["config"], loaded.origin["split"]) == (
        "openai/gsm8k",
        "main",
        "test",
    )
    load_benchmark(find_benchmark("bbeh"), None, limit=2)
    assert asked == [(("openai/gsm8k", "main"), "test"), (("BBEH/bbeh",), "train")]
