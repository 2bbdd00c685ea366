"""The report on a pair of our own, on results of any label, and the summary of each result; made-up responses."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay_verl.errors import UserError
from relay_verl.recipes.paper import find_row, paper, rows
from relay_verl.report.conditions import benchmarks_table, conditions_table, names_of
from relay_verl.report.differences import differences_table
from relay_verl.report.document import Document, Table
from relay_verl.report.groups import Groups
from relay_verl.report.share_figure import share_figure
from relay_verl.report.statistics import accuracy, difference, mix
from relay_verl.report.summary import write_summary
from relay_verl.report.write import make_document, write_report
from relay_verl.traces.results import SUMMARY, find_results
from relay_verl.traces.words import condition_words, natural_policies
from tests.helpers.records import alone, record
from tests.unit.report.test_report import TINY, answer, make, make_tiny_world, read

# row, policy, right of ten questions, teacher tokens of each hundred
REAL = [
    ("base", "student_alone", 2, 0),
    ("base", "router_0.25", 3, 25),
    ("base", "router_0.5", 5, 50),
    ("base", "random_0.02", 3, 20),
    ("warm", "learned", 2, 4),
    ("relay", "learned", 6, 8),
    ("relay", "teacher_free", 2, 0),
    ("relay", "fixed_20", 5, 12),
    ("relay", "fixed_100", 7, 40),
    ("grpo", "student_alone", 3, 0),
    ("teacher", "teacher_alone", 9, 100),
]


def make_real_pair(folder: Path, conditions: Any = REAL) -> Groups:
    """Results of the real pair, as its example measures them."""
    for method, policy, right, tokens in conditions:
        facts: dict[str, Any] = {"right": right, "tokens": tokens, "condition": f"{method} {policy}"}
        teacher = "qwen2.5-coder-1.5b-instruct" if tokens or policy == "learned" else None
        path = folder / f"{method}-{policy}"
        make(path, f"real/{method}", policy=policy, teacher=teacher, benchmarks=("gsm8k",), **facts)
    return read(folder)


def column(table: Table, name: str) -> list[str]:
    return [row[table.head.index(name)] for row in table.rows]


def titles(document: Document) -> list[str]:
    return [section.title for section in document.sections]


# ---- sizes and words ----


def test_a_pair_of_ours_is_data() -> None:
    assert {row.method: row.recipe for row in rows() if row.size == "real"} == {
        "base": None,
        "warm": "warmup_real",
        "grpo": "grpo_real",
        "relay_simple": "relay_real_simple",
        "relay": "relay_real",
        "teacher": None,
    }
    assert [size.name for size in paper().students(is_in_paper=False)] == ["tiny", "real"]
    assert [size.name for size in paper().students(is_in_paper=True)] == ["0.6b", "1.7b"]
    for size in paper().sizes.values():
        assert size.average in paper().groups
        assert find_row(size.teacher).method == "teacher"
        assert size.is_in_paper == any(entry.row.startswith(f"{size.name}/") for entry in paper().entries)


WORDS = [
    ("real/base", "student_alone", "student alone"),
    ("real/base", "learned", "student, commands served"),
    ("real/base", "router_0.25", "random router (25%)"),
    ("real/base", "random_0.02", "random calls (2% of tokens)"),
    ("real/warm", "learned", "student after warm-up"),
    ("real/grpo", "student_alone", "GRPO"),
    ("real/grpo", "learned", "GRPO, commands served"),
    ("real/relay", "learned", "trained relay"),
    ("real/relay", "teacher_free", "trained relay, without teacher"),
    ("real/relay", "fixed_100", "trained relay, fixed 100 tokens"),
    ("real/relay", "router_0.5", "trained relay, random router (50%)"),
    ("real/teacher", "teacher_alone", "teacher alone"),
    ("real/relay", "teacher_alone", "teacher alone"),
    ("tiny/fixed_3", "fixed_3", "Fixed-3"),
    (None, "learned", "commands served"),
    (None, "student_alone", "student alone"),
    (None, "router_0.125", "random router (12.5%)"),
]


@pytest.mark.parametrize(("row", "policy", "words"), WORDS)
def test_conditions_in_words(row: str | None, policy: str, words: str) -> None:
    assert condition_words(find_row(row) if row else None, policy) == words


@given(st.sampled_from(rows()), st.lists(st.sampled_from([policy for _, policy, _ in WORDS]), unique=True))
def test_policies_of_a_row_have_names_of_their_own(row: Any, policies: list[str]) -> None:
    asked = [policy for policy in policies if policy not in natural_policies(row.method)[1:]]
    words = [condition_words(row, policy) for policy in asked]
    assert len(set(words)) == len(words)
    assert not any("_" in one for one in words)


# ---- tables ----


def test_every_condition_has_its_line(tmp_path: Path) -> None:
    table = conditions_table("t", make_real_pair(tmp_path).groups)
    assert column(table, "condition") == [
        "student alone",
        "random calls (2% of tokens)",
        "random router (25%)",
        "random router (50%)",
        "student after warm-up",
        "GRPO",
        "trained relay",
        "trained relay, fixed 20 tokens",
        "trained relay, fixed 100 tokens",
        "trained relay, without teacher",
        "teacher alone",
    ]
    line = dict(zip(table.head, table.rows[6], strict=True))
    assert re.fullmatch(r"60\.0 \(\d\d\.0–\d\d\.0\)", line.pop("accuracy (%)"))
    assert line == {
        "condition": "trained relay",
        "right": "6 of 10",
        "call rate (%)": "100.0 (72.2–100.0)",
        "call ratio, pooled (%)": "8.00",
        "call ratio, mean (%)": "8.00",
        "student's tokens": "92.0",
        "teacher's tokens": "8.0",
        "seconds": "0",
    }
    assert "GSM8K" in table.note


def test_results_of_any_label_have_their_line(tmp_path: Path) -> None:
    make(tmp_path / "a", "tiny/relay", right=6, tokens=4)
    make(tmp_path / "b", None, policy="learned", student="/m/mine", student_sha256="m", condition="x")
    make(tmp_path / "c", None, policy="learned", student="/m/mine", student_sha256="m", condition="y")
    for name in ("one", "two"):  # the student that takes no part is not said
        facts: dict[str, Any] = {"student": None, "student_sha256": None, "teacher_sha256": name, "teacher": name}
        make(tmp_path / name, None, policy="teacher_alone", **facts)
    make(tmp_path / "d", None, policy="student_alone", student="/m/mine", benchmarks=TINY[:1], teacher=None)
    groups = read(tmp_path)
    table = conditions_table("t", groups.groups)
    models = [row[0] for row in table.rows]
    assert [model for model in models if model] == ["Tiny world", "mine", "one", "two"]
    assert column(table, "condition") == [
        "trained relay",
        "x",
        "y",
        "student alone",
        "teacher alone",
        "teacher alone",
    ]
    assert column(table, "questions of") == ["3 benchmarks"] * 3 + ["add"] + ["3 benchmarks"] * 2
    by_benchmark = benchmarks_table("t", groups.groups)
    assert by_benchmark is not None
    assert by_benchmark.head == ("model", "condition", "add", "mul", "hash")
    assert by_benchmark.rows[3][3:] == ("–", "–")


def test_several_seeds_say_so(tmp_path: Path) -> None:
    names = names_of(make_tiny_world(tmp_path).groups)
    assert "trained relay, 3 seeds" in names
    assert len(set(names)) == len(names)


def test_a_result_without_responses_is_left_out(tmp_path: Path) -> None:
    make(tmp_path / "empty", None, records=[])
    with pytest.raises(UserError, match=r"/empty: expected responses"):
        write_report([tmp_path / "empty"], tmp_path / "out")
    make(tmp_path / "relay", "tiny/relay")
    assert "30 responses of 1 evaluations" in write_report([tmp_path], tmp_path / "out")
    write_summary(tmp_path / "empty")
    assert json.loads((tmp_path / "empty" / SUMMARY).read_text())["all_benchmarks"] == {"num_responses": 0}


def test_differences_are_paired(tmp_path: Path) -> None:
    table = differences_table(make_real_pair(tmp_path), "real")
    assert table is not None
    found = {row[1]: row[2:] for row in table.rows[:-2]}
    assert found["student alone"][0] == "+40.0"
    assert found["random router (50%)"][0] == "+10.0"
    assert found["trained relay, fixed 100 tokens"][0] == "-10.0"
    # 20 + 8% of the way to 90 is 25.6
    assert found["random router with as large a share (8.00%)"][0] == "+34.4"
    assert found["student alone"][-1] == "higher"
    assert "teacher alone" not in found
    assert [row[:3] for row in table.rows[-2:]] == [
        ("student after warm-up", "student alone", "+0.0"),
        ("GRPO", "student alone", "+10.0"),
    ]


ONLY = [
    ([REAL[0]], None, "one condition"),
    ([REAL[0], REAL[9]], 1, "no relay"),
    ([REAL[0], REAL[5]], 1, "no teacher"),
    ([REAL[4], REAL[5]], 1, "no student alone"),
]


@pytest.mark.parametrize(("conditions", "num_rows", "why"), ONLY, ids=[case[2] for case in ONLY])
def test_differences_of_what_there_is(conditions: Any, num_rows: int | None, why: str, tmp_path: Path) -> None:
    groups = make_real_pair(tmp_path, conditions)
    table = differences_table(groups, "real")
    assert (table and len(table.rows)) == num_rows
    assert share_figure(groups, "real") is not None
    assert make_document(groups).sections[0].title == "Your evaluations"


@given(st.floats(0, 1), st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=20))
def test_a_mixture_lies_between_its_sides(share: float, answers: list[tuple[bool, bool]]) -> None:
    one, other = (
        accuracy([[record(id=str(i), is_correct=pair[side]) for i, pair in enumerate(answers)]], ["tiny/mul"])
        for side in (0, 1)
    )
    mixed = mix(one, other, share)
    assert mixed.value == pytest.approx((1 - share) * one.value + share * other.value)
    assert difference(mix(one, other, 0.0), one).value == 0
    assert difference(mix(one, other, 1.0), other).value == 0


def test_a_mixture_needs_the_same_questions() -> None:
    one, other = (accuracy([[record(id=id)]], ["tiny/mul"]) for id in "ab")
    with pytest.raises(ValueError, match="same questions"):
        mix(one, other, 0.5)


# ---- the whole ----


def test_the_report_opens_with_what_was_measured(tmp_path: Path) -> None:
    make_real_pair(tmp_path / "results")
    out = tmp_path / "out"
    write_report([tmp_path / "results"], out)
    document = make_document(read(tmp_path / "results"))
    assert titles(document) == [
        "Your evaluations",
        "Real pair (Qwen2.5-Coder 0.5B and 1.5B)",
        "What it took",
        "Tables of the paper that nothing was measured for",
        "The paper's numbers",
        "Terms",
    ]
    assert [section.title for section in document.sections if section.is_folded] == titles(document)[3:]
    (headline,) = document.headlines
    assert re.match(r"Real pair \(.*\): with its teacher the student is right on 60.0% \(", headline)
    assert "the teacher alone on 90.0%" in headline and headline.endswith("the teacher wrote 8.00% of the tokens.")
    facts = dict(document.provenance)
    assert facts["evaluated"] == "1970-01-01" and facts["teachers"] == "qwen2.5-coder-1.5b-instruct"
    assert "relay-verl eval" in facts["commands"] and "/models/" not in "".join(facts.values())
    real = document.sections[1]
    assert not any("Every condition" in block.title for block in real.blocks), "it is the table above"
    assert all(block.is_measured for block in real.blocks)
    text = [cell for block in real.blocks if isinstance(block, Table) for row in block.rows for cell in row]
    assert "not measured" not in text
    assert {"shares_real.svg", "calls_real.svg"} <= {path.name for path in out.iterdir()}


def test_two_pairs_have_a_section_each(tmp_path: Path) -> None:
    make_real_pair(tmp_path / "real")
    make(tmp_path / "tiny", "tiny/relay", tokens=4)
    document = make_document(read(tmp_path))
    assert titles(document)[:3] == ["Your evaluations", "Tiny world", "Real pair (Qwen2.5-Coder 0.5B and 1.5B)"]
    for section in document.sections[1:3]:
        assert section.blocks[0].title.startswith("Every condition")


def test_a_paper_table_is_where_its_measurements_are(tmp_path: Path) -> None:
    math = paper().groups["average"]
    make(tmp_path / "relay", "1.7b/relay", benchmarks=math, tokens=2, teacher="Qwen3-8B")
    sections = {section.title: section for section in make_document(read(tmp_path)).sections}
    measured = [block.title.partition(",")[0] for block in sections["Tables of the paper"].blocks]
    rest = [block.title for block in sections["Tables of the paper that nothing was measured for"].blocks]
    assert "Table 1: Qwen3-1.7B" in measured and "Table 1: Qwen3-0.6B" not in measured
    assert any(title.startswith("Table 1: Qwen3-0.6B") for title in rest)
    assert any(title.startswith("Table 2: Qwen3-1.7B") for title in rest), "measured, but on other benchmarks"
    everything = [block.title for section in sections.values() for block in section.blocks]
    assert sum(title.startswith("Table ") for title in everything) == 8, "each stands once"


def test_the_picture_has_every_condition_and_its_reference_lines(tmp_path: Path) -> None:
    picture = share_figure(make_real_pair(tmp_path), "real")
    assert picture is not None
    comments = set(re.findall(r"<!-- (.*?) -->", picture.svg))
    names = {"student alone", "teacher alone", "trained relay", "random router, any share", "accuracy (%)"}
    assert names <= comments


# ---- summaries ----


def test_a_summary_says_its_units(tmp_path: Path) -> None:
    facts = {"started_at": 10.0, "latency_s": 2.0}
    records = [replace(answer("gsm8k", i, is_correct=i < 3, tokens=5 * (i < 2)), **facts) for i in range(4)]
    records.append(alone(benchmark="math-500", id="0", is_correct=False, status="aborted", **facts))
    make(tmp_path, "real/relay", records=records, benchmarks=("gsm8k", "math-500"), condition="mine")
    write_summary(tmp_path)
    summary = json.loads((tmp_path / SUMMARY).read_text())
    assert (summary["condition"], summary["in_words"], summary["row"]) == ("mine", "trained relay", "real/relay")
    of_gsm8k, of_all = summary["benchmarks"]["gsm8k"], summary["all_benchmarks"]
    assert of_gsm8k["accuracy_percent_low"] < of_gsm8k["accuracy_percent"] < of_gsm8k["accuracy_percent_high"]
    for numbers, expected in (
        (of_gsm8k, {"accuracy_percent": 75.0, "call_rate_percent": 50.0, "num_responses": 4, "num_right": 3}),
        (of_gsm8k, {"pooled_call_ratio_percent": 2.5, "num_teacher_tokens": 10, "num_student_tokens": 390}),
        (of_gsm8k, {"wall_seconds": 2.0, "median_response_seconds": 2.0, "tokens_per_second": 200.0}),
        (of_all, {"accuracy_percent": 37.5, "num_responses": 5, "num_questions": 5, "num_not_completed": 1}),
        (of_all, {"average_call_ratio_percent": 1.25, "pooled_call_ratio_percent": round(100 * 10 / 410, 4)}),
    ):
        assert {key: numbers[key] for key in expected} == expected
    assert "accuracy_by_judge_percent" not in of_all
    assert find_results([tmp_path]) == [tmp_path], "it is not a result of its own"


def test_a_summary_has_the_judges_accuracy(tmp_path: Path) -> None:
    says = {"reply": "No", "error": ""}
    records = [record(id=str(i), judge={"is_correct": i == 0, **says}) for i in range(4)]
    make(tmp_path, None, records=records, benchmarks=("tiny/mul",), judge={"model": "m"})
    write_summary(tmp_path)
    numbers = json.loads((tmp_path / SUMMARY).read_text())["all_benchmarks"]
    assert (numbers["accuracy_percent"], numbers["accuracy_by_judge_percent"]) == (100.0, 25.0)


def test_a_summary_that_cannot_be_written_is_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    make(tmp_path, "tiny/relay")
    (tmp_path / SUMMARY).mkdir()
    write_summary(tmp_path)
    assert SUMMARY in caplog.text
