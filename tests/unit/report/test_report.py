"""The report on made-up results: grouping and refusals, every table, the directions, both renderings."""

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from relay_verl.cli.main import app
from relay_verl.errors import UserError
from relay_verl.recipes.attempts import attempts
from relay_verl.recipes.paper import find_row, paper
from relay_verl.report import write_report
from relay_verl.report.comparison import NOT_MEASURED, measure_of
from relay_verl.report.cost import calls_table, judge_table, time_table
from relay_verl.report.directions import directions, directions_table, verdict
from relay_verl.report.document import Document, Picture, Section, Table, document_to_markdown, to_html
from relay_verl.report.drawing import draw, standalone
from relay_verl.report.figures import router_figure
from relay_verl.report.groups import Groups
from relay_verl.report.headline import headlines
from relay_verl.report.random_router import RouterComparison, our_comparison, paper_comparison, router_table
from relay_verl.report.statistics import Estimate
from relay_verl.report.tables import own_tables, paper_tables, teachers_lines, teachers_table
from relay_verl.report.write import make_document
from relay_verl.traces.records import ResponseRecord
from relay_verl.traces.results import MANIFEST, Result, read_result
from tests.helpers.records import alone, call, record
from tests.helpers.results import TINY, answer, make, read, row_of

HOSTILE = "</table><script>alert(1)</script>| `x` *b* [a](b) <img src=x> {{ 7 * 7 }} \u2028\n日本"


# ---- groups ----


def test_seeds_of_a_row_are_one_group(tmp_path: Path) -> None:
    for seed, right in enumerate((5, 6, 7)):
        make(tmp_path / f"{seed}", "tiny/relay", seed=seed, right=right)
    make(tmp_path / "free", "tiny/relay", policy="teacher_free")
    make(tmp_path / "other", "tiny/relay", teacher="small")
    groups = read(tmp_path)
    assert [(g.policy, g.teacher, len(g.seeds)) for g in groups.groups] == [
        ("learned", "small", 1),
        ("learned", "teacher", 3),
        ("teacher_free", None, 1),
    ]
    assert groups.reference_teacher("tiny") == "small"  # both teachers answered in one group, the first one counts
    group = groups.find("tiny/relay", teacher="teacher")
    assert group is not None and len(group.seeds) == 3
    assert groups.find("tiny/grpo") is None


def test_the_papers_teacher_is_the_one_of_training(tmp_path: Path) -> None:
    for name in ("Qwen3-14B", "Qwen3-8B", "Qwen3-0.6B"):
        make(tmp_path / name, "1.7b/relay", teacher=name)
    groups = read(tmp_path)
    assert groups.reference_teacher("1.7b") == "Qwen3-8B"
    assert [line.label for line in teachers_lines(groups, "1.7b")] == ["none", "Qwen3-0.6B", "Qwen3-8B", "Qwen3-14B"]


def test_benchmarks_of_one_student_may_lie_apart(tmp_path: Path) -> None:
    make(tmp_path / "a", "tiny/relay", benchmarks=TINY[:1])
    make(tmp_path / "b", "tiny/relay", benchmarks=TINY[1:])
    (group,) = read(tmp_path).groups
    assert (len(group.seeds), group.benchmarks) == (1, TINY)
    assert len(group.records[0]) == 30


def test_a_base_model_is_itself_without_a_teacher_only(tmp_path: Path) -> None:
    make(tmp_path / "relayed", "tiny/base")
    assert read(tmp_path).find("tiny/base") is None
    make(tmp_path / "alone", "tiny/base", policy="student_alone")
    found = read(tmp_path).find("tiny/base")
    assert found is not None and found.policy == "student_alone"


def test_the_teacher_alone_may_be_recorded_with_a_student(tmp_path: Path) -> None:
    make(tmp_path, "tiny/relay", policy="teacher_alone")
    assert read(tmp_path).find("tiny/teacher") is not None
    assert read(tmp_path).find("8b/teacher") is None


REFUSALS: list[tuple[dict[str, Any], str, str]] = [
    ({"limits": {"max_calls": 5, "max_response_tokens": 100}}, r"limits\.max_calls", "other limits"),
    ({"benchmarks": TINY[:2]}, r"benchmarks \(tiny/hash\)", "a benchmark less"),
    ({"num_questions": 9}, r"questions of tiny/add", "a question less"),
    ({"records": [answer(n, i, is_correct=True, tokens=0) for n in TINY for i in (*range(10), 9)]}, "samples", "twice"),
]


@pytest.mark.parametrize(("changes", "field", "why"), REFUSALS, ids=[case[2] for case in REFUSALS])
def test_results_that_do_not_fit_are_refused(changes: dict[str, Any], field: str, why: str, tmp_path: Path) -> None:
    one, other = make(tmp_path / "one", "tiny/relay"), make(tmp_path / "other", "tiny/relay", seed=1, **changes)
    with pytest.raises(UserError, match=f"tiny/relay: {field}.* differs between {one} and {other}") as caught:
        read(one, other)
    assert "\n" not in str(caught.value)


def test_another_version_of_a_benchmark_is_refused_between_rows(tmp_path: Path) -> None:
    make(tmp_path / "a", "tiny/relay")
    manifest = json.loads((make(tmp_path / "b", "tiny/grpo") / MANIFEST).read_text())
    manifest["job"]["benchmarks"]["tiny/mul"]["sha256"] = "b"
    (tmp_path / "b" / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(UserError, match=r"benchmarks\.tiny/mul\.sha256 differs between .*/a and .*/b"):
        read(tmp_path)


def test_the_same_student_twice_is_no_second_seed(tmp_path: Path) -> None:
    make(tmp_path / "a", "tiny/relay")
    make(tmp_path / "b", "tiny/relay")
    with pytest.raises(UserError, match=r"/a and .*/b both hold this student and seed on tiny/add: give one"):
        read(tmp_path)


def test_an_unknown_row_names_its_folder(tmp_path: Path) -> None:
    make(tmp_path / "a", "tiny/relais")
    with pytest.raises(UserError, match=r"/a: row: 'tiny/relais' .*is not one of .*tiny/relay"):
        read(tmp_path)


def test_results_without_a_row_are_told_apart_by_their_student(tmp_path: Path) -> None:
    make(tmp_path / "a", None, seed=0)
    make(tmp_path / "b", None, seed=1, num_questions=3)
    assert [(group.family, group.words, len(group.seeds)) for group in read(tmp_path).groups] == [
        ("None-0", "commands served", 1),
        ("None-1", "commands served", 1),
    ]


# ---- tables ----


MATH = (*paper().groups["average"], "average", "call_ratio")
SHOWS_ATTEMPTS = {
    "Table 1": MATH,
    "Table 3": ("average", "call_ratio"),
    "Table 4": ("easy", "hard"),
    "Table 5": ("average", "call_ratio"),
    "Table 6": MATH,
}
"""What others measured stands in every table that has its row and its columns."""


def test_every_paper_table_stands_empty() -> None:
    tables = paper_tables(Groups(()))
    assert [table.title.partition(":")[0] for table in tables] == [
        *("Table 1", "Table 1", "Table 2", "Table 2", "Table 3", "Table 4", "Table 5", "Table 6"),
    ]
    text = [cell for table in tables for row in table.rows for cell in row]
    numbers = [f"{v:.2f}" for e in paper().entries if e.table != "Figure 3" for v in e.values.values()]
    rows = {table: {e.row for e in paper().entries if e.table == table and not e.policy} for table in SHOWS_ATTEMPTS}
    numbers += [
        f"{attempt.values[measure]:.2f}"
        for table, measures in SHOWS_ATTEMPTS.items()
        for attempt in attempts()
        if attempt.row in rows[table]
        for measure in measures
        if measure in attempt.values
    ]
    assert sorted(cell for cell in text if re.fullmatch(r"[0-9.]+", cell)) == sorted(numbers)  # each number once
    assert text.count("ours") == text.count(NOT_MEASURED) == len([e for e in paper().entries if e.table != "Figure 3"])


def test_ours_stands_beside_the_papers(tmp_path: Path) -> None:
    math = paper().groups["average"]
    for seed, right in enumerate((5, 6, 7)):
        make(tmp_path / f"{seed}", "1.7b/relay", seed=seed, right=right, tokens=2, benchmarks=math, teacher="Qwen3-8B")
    make(tmp_path / "free", "1.7b/relay", policy="teacher_free", right=4, benchmarks=math)
    make(tmp_path / "part", "1.7b/grpo", policy="student_alone", right=4, benchmarks=math[:1], teacher=None)
    tables = {(table.title, i): table for i, table in enumerate(paper_tables(read(tmp_path)))}
    one = next(table for (title, _), table in tables.items() if title.startswith("Table 1: Qwen3-1.7B"))
    relay = row_of(one, "RelayLLM (Difficulty-Aware)")
    assert relay["paper"] == ("43.75", "81.40", "86.28", "55.70", "12.71", "17.29", "49.52", "1.07", "–")
    assert relay["ours, 3 seeds"] == (*["60.00"] * 7, "2.00", "2.00")
    assert relay["95% interval"][0] == "35.16–84.84"  # t of 2 degrees times 0.1 / sqrt(3)
    assert relay["95% interval"][-1] == "2.00–2.00"
    assert relay["difference"] == ("+16.25", "-21.40", "-26.28", "+4.30", "+47.29", "+42.71", "+10.48", "+0.93", "")
    grpo = row_of(one, "GRPO")
    assert grpo["ours"] == ("40.00", *[NOT_MEASURED] * 6, "–", "–")
    assert grpo["difference"] == ("+4.34", *[""] * 8)
    four = next(table for (title, _), table in tables.items() if title.startswith("Table 4"))
    assert row_of(four, "RelayLLM (Difficulty-Aware), w/o Teacher")["ours"] == ("40.00", "40.00")
    assert row_of(four, "RelayLLM (Simple), w/o Teacher") == {"paper": ("61.12", "13.13"), "ours": (NOT_MEASURED,)}


def tokens_of(benchmark: str, teacher: int, total: int, **changes: Any) -> ResponseRecord:
    """A response of `total` tokens, `teacher` of them the teacher's."""
    facts: dict[str, Any] = {"benchmark": benchmark, "num_tokens": total, "num_teacher_tokens": teacher}
    return record(id="0", question="q", calls=[call("served", teacher, teacher)], **{**facts, **changes})


def test_the_papers_call_ratio_is_the_mean_over_benchmarks_and_the_pooled_one_stands_next_to_it(tmp_path: Path) -> None:
    math = paper().groups["average"]
    records = [tokens_of(name, 0, 100) for name in math[:4]] + [tokens_of(name, 60, 1000) for name in math[4:]]
    for method in ("relay", "no_filter", "fixed_20"):
        policy = "fixed_20" if method == "fixed_20" else "learned"
        make(tmp_path / method, f"1.7b/{method}", policy=policy, records=records, benchmarks=math, teacher="Qwen3-8B")
    groups = read(tmp_path)
    average, pooled = f"{100 * (2 * 0.06) / 6:.2f}", f"{100 * 120 / 2400:.2f}"
    tables = {table.title.partition(":")[0]: table for table in paper_tables(groups) if "0.6B" not in table.title}
    tables["Figure 3"] = teachers_table(groups, "1.7b", "t")
    rows = {"Table 1": "relay", "Table 3": "no_filter", "Table 5": "fixed_20", "Table 6": "fixed_20"}
    for name, table in tables.items():
        if name in ("Table 2", "Table 4"):
            assert "Avg. call ratio" not in table.head
            continue
        assert table.head[-2:] == ("Avg. call ratio", "Pooled call ratio"), name
        assert "averaged over benchmarks" in table.note, name
        label = find_row(f"1.7b/{rows[name]}").title if name in rows else "Qwen3-8B"
        lines = row_of(table, label)
        assert lines["ours"][-2:] == (average, pooled), name
        if name in rows:
            printed = paper().find(name, f"1.7b/{rows[name]}")["call_ratio"]
            assert lines["paper"][-2:] == (f"{printed:.2f}", "–"), "the paper's stands over the average"
            assert lines["difference"][-2:] == (f"{float(average) - printed:+.2f}", "")
            assert all(lines["95% interval"][-2:]), "both have an interval"
    compared = our_comparison(read(*made_with_ends(tmp_path, math)), "1.7b")
    assert compared is not None and f"{100 * compared.ratio:.2f}" == average, "Figure 1 counts as the paper's column"


def made_with_ends(folder: Path, math: tuple[str, ...]) -> list[Path]:
    """The folder with both ends of the random router's line."""
    ends = [("1.7b/base", "student_alone"), ("8b/teacher", "teacher_alone")]
    for row, policy in ends:
        records = [alone(benchmark=name, id="0", question="q") for name in math]
        make(folder / policy, row, policy=policy, records=records, benchmarks=math)
    return [folder]


def test_avg_at_k_says_its_k(tmp_path: Path) -> None:
    math = paper().groups["average"]

    def write(num_samples: int) -> Groups:
        records = [
            record(benchmark=name, id="0", question="q", sample=sample)
            for name in math
            for sample in range(num_samples if name.startswith("aime") else 1)
        ]
        folder = tmp_path / f"{num_samples}"
        return read(make(folder, "1.7b/relay", records=records, benchmarks=math, teacher="Qwen3-8B"))

    as_the_papers, fewer = (paper_tables(write(num_samples)) for num_samples in (32, 4))
    ones = [next(t for t in tables if t.title.startswith("Table 1: Qwen3-1.7B")) for tables in (as_the_papers, fewer)]
    assert all(table.head[6:8] == ("AIME25 avg@32", "AIME24 avg@32") for table in ones)
    assert "avg@" not in ones[0].note
    assert "Ours on AIME25 is avg@4, not avg@32." in ones[1].note
    three = next(table for table in fewer if table.title.startswith("Table 3"))
    assert "Ours on AIME24 is avg@4, not avg@32." in three.note, "also where AIME is only in the average"


def test_bbeh_has_its_official_score_where_tasks_are_known(tmp_path: Path) -> None:
    facts: dict[str, Any] = {"benchmark": "bbeh", "question": "q"}
    records = [alone(id=str(i), task="ab"[i % 2], is_correct=i % 2 == 0, **facts) for i in range(8)]
    of_tasks = read(make(tmp_path / "tasks", "1.7b/relay", records=records, benchmarks=("bbeh",)))
    table = next(t for t in paper_tables(of_tasks) if t.title.startswith("Table 2: Qwen3-1.7B"))
    assert table.head[2:] == ("BBEH", "BBEH harmonic mean", "MMLU-Pro", "SuperGPQA")
    lines = row_of(table, "RelayLLM (Difficulty-Aware)")
    assert lines["ours"] == ("50.00", "1.98", NOT_MEASURED, NOT_MEASURED)  # 2 / (1/101 + 1/1)
    assert lines["paper"] == ("12.46", "–", "59.03", "29.93")
    assert "over 2 of its 23 tasks" in table.note
    unknown = [replace(one, task=None) for one in records]
    without = read(make(tmp_path / "none", "1.7b/relay", records=unknown, benchmarks=("bbeh",)))
    tables = [t for t in paper_tables(without) if t.title.startswith("Table 2")]
    assert all(t.head[2:] == ("BBEH", "MMLU-Pro", "SuperGPQA") for t in tables)


def test_the_teacher_of_the_tables_answered_the_same_as_the_students(tmp_path: Path) -> None:
    math = paper().groups["average"]
    greedy, sampled = ({"sha256": "a", "sampling": {"temperature": value}} for value in (0.0, 0.7))
    make(tmp_path / "relay", "1.7b/relay", benchmarks=math)
    make(tmp_path / "0.6b", "0.6b/relay", num_questions=9, benchmarks=math)
    assert read(tmp_path), "students of two sizes are not in one table"
    for name, facts in (("relay", greedy), ("teacher", sampled)):
        row, policy = ("1.7b/relay", "learned") if name == "relay" else ("8b/teacher", "teacher_alone")
        folder = make(tmp_path / name, row, policy=policy, benchmarks=math)
        manifest = json.loads((folder / MANIFEST).read_text())
        manifest["job"]["benchmarks"] = dict.fromkeys(math, facts)
        (folder / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(UserError, match=r"8b/teacher: benchmarks\.minerva\.sampling\.temperature differs"):
        read(tmp_path / "relay", tmp_path / "teacher")


def make_tiny_world(folder: Path) -> Groups:
    """Three seeds a row that differ by one question, in the paper's directions but for the filter and Fixed-25."""
    rows = {
        "grpo": (2, 0),
        "relay_simple": (4, 4),
        "relay": (6, 10),
        "no_filter": (6, 10),
        "no_independence": (6, 30),
        "no_exploration": (4, 5),
        "fixed_3": (5, 20),
        "fixed_6": (5, 20),
        "fixed_25": (1, 20),
    }
    for method, (right, tokens) in rows.items():
        policy = method if method.startswith("fixed") else "student_alone" if method == "grpo" else "learned"
        for seed in range(3):
            facts: dict[str, Any] = {"seed": seed, "right": right + seed, "tokens": tokens and tokens + seed}
            make(folder / f"{method}{seed}", f"tiny/{method}", policy=policy, **facts)
    make(folder / "base", "tiny/base", policy="student_alone", right=0)
    make(folder / "teacher", "tiny/teacher", policy="teacher_alone", right=10)
    make(folder / "router", "tiny/base", policy="router_0.3", right=3, tokens=30)
    return read(folder)


def test_directions_on_the_tiny_world(tmp_path: Path) -> None:
    table = directions_table(make_tiny_world(tmp_path), "tiny")
    rows = {row[0]: row for row in table.rows}
    relay = "RelayLLM (Difficulty-Aware)"
    assert {name: row[-1] for name, row in rows.items()} == {
        "GRPO: higher accuracy than Base Model": "shown",
        "RelayLLM (Simple): higher accuracy than GRPO": "not shown",  # 2 questions apart, and seeds differ by 1
        f"{relay}: higher accuracy than GRPO": "shown",
        f"{relay}: higher accuracy than RelayLLM (Simple)": "not shown",
        f"{relay}: higher call ratio than RelayLLM (Simple)": "shown",
        f"w/o Data Filtering: higher call ratio than {relay}": "not shown",  # the same
        f"w/o Data Filtering: lower accuracy than {relay}": "not shown",
        f"w/o Indep. Incentive: higher call ratio than {relay}": "shown",
        f"w/o Explor. Reward: lower call ratio than {relay}": "shown",
        f"w/o Explor. Reward: lower accuracy than {relay}": "not shown",
        **{f"Fixed-{n}: higher call ratio than {relay}": "shown" for n in (3, 6, 25)},
        f"Fixed-25: higher accuracy than {relay}": "opposite",
    }
    rest = directions_table(make_tiny_world(tmp_path), "tiny", is_measured=False)
    assert [(row[0], row[-1]) for row in rest.rows] == [
        (f"{relay} without the teacher: lower accuracy than {relay}", NOT_MEASURED),
        (f"RelayLLM (Simple) without the teacher: higher accuracy than {relay} without the teacher", NOT_MEASURED),
    ]
    assert rows[f"{relay}: higher accuracy than GRPO"][2:] == ("+40.00", "+17.33 to +62.67", "3", "seeds", "shown")
    assert rows["GRPO: higher accuracy than Base Model"][4:6] == ("1", "questions")


def test_a_verdict_on_one_training_run_says_so(tmp_path: Path) -> None:
    make(tmp_path / "base", "tiny/base", policy="student_alone", right=0)
    for seed in range(3):
        make(tmp_path / f"relay{seed}", "tiny/relay", seed=seed, right=8 + seed % 2)
    make(tmp_path / "grpo", "tiny/grpo", policy="student_alone", right=2)
    directions = {row[0]: row[-1] for row in directions_table(read(tmp_path), "tiny").rows}
    assert directions["RelayLLM (Difficulty-Aware): higher accuracy than GRPO"] == "shown in one seed"
    assert directions["GRPO: higher accuracy than Base Model"] == "shown in one seed", (
        "GRPO is trained, the base is not"
    )
    for seed in (1, 2):
        make(tmp_path / f"grpo{seed}", "tiny/grpo", policy="student_alone", right=2, seed=seed)
    directions = {row[0]: row[-1] for row in directions_table(read(tmp_path), "tiny").rows}
    assert directions["GRPO: higher accuracy than Base Model"] == "shown"


VERDICTS = [
    (0.1, 0.2, 1, "shown", "above as claimed"),
    (-0.2, -0.1, -1, "shown", "below as claimed"),
    (-0.1, 0.2, 1, "not shown", "zero inside"),
    (0.0, 0.2, 1, "not shown", "zero at the edge"),
    (-0.2, -0.1, 1, "opposite", "below, not above"),
    (0.1, 0.2, -1, "opposite", "above, not below"),
]


@pytest.mark.parametrize(("low", "high", "sign", "word", "why"), VERDICTS, ids=[case[4] for case in VERDICTS])
def test_verdicts(low: float, high: float, sign: int, word: str, why: str) -> None:
    assert verdict(Estimate((low + high) / 2, low, high, 1, "questions"), sign) == word


def test_the_paper_shows_its_own_directions() -> None:
    """Each claim's sign is that of the paper's own numbers."""
    assert directions_table(Groups(()), "1.7b").rows == ()
    table = directions_table(Groups(()), "1.7b", is_measured=False)
    numbers = {}
    for claim, row in zip(directions("1.7b"), table.rows, strict=True):
        assert row[0] == claim.text and row[3] == NOT_MEASURED
        if row[2] != "–":
            numbers[claim.of, claim.to, claim.measure] = float(row[2]) * claim.sign
    assert len(numbers) == 14 and min(numbers.values()) > 0
    assert {claim.of for claim in directions("0.6b")} == {"grpo", "relay_simple", "relay", "relay/teacher_free"} | {
        "relay_simple/teacher_free"
    }


def test_a_report_opens_with_the_teacher_of_training(tmp_path: Path) -> None:
    for name, right in (("another", 2), ("teacher", 8)):
        make(tmp_path / name, "tiny/relay", teacher=name, right=right)
    make(tmp_path / "router", "tiny/base", policy="router_0.3", right=3, tokens=30)
    (sentence,) = headlines(read(tmp_path))
    assert "with its teacher the student is right on 80.0%" in sentence


def test_the_average_is_over_all_families_that_were_measured(tmp_path: Path) -> None:
    """Those of the graded world are more than the plain one's, and stand in the tables, too."""
    families = ("tiny/sub", "tiny/add", "tiny/mul", "tiny/pow", "tiny/hash", "tiny/own")
    make(tmp_path, "tiny/relay", benchmarks=families)
    groups = read(tmp_path)
    group = groups.find("tiny/relay")
    assert group is not None and group.average == families
    measured = measure_of(group, "tiny")
    assert measured is not None and len(measured.strata) == len(families)
    assert {"sub", "add", "mul", "pow", "hash"} <= set(" ".join(own_tables(groups, "tiny")[0].head).split())


def test_tiny_tables(tmp_path: Path) -> None:
    tables = own_tables(make_tiny_world(tmp_path), "tiny")
    assert len(tables) == 5
    relay = row_of(tables[0], "RelayLLM (Difficulty-Aware)")
    assert relay["ours, 3 seeds"] == ("70.00", "70.00", "70.00", "70.00", "100.00", "11.00", "11.00")
    assert "difference" not in relay and "paper" not in relay
    assert row_of(tables[0], "teacher alone")["ours"] == ("100.00",) * 4 + ("–", "–", "–")
    assert row_of(tables[-1], "none") == {"ours": (NOT_MEASURED,)}


def test_cost_tables(tmp_path: Path) -> None:
    for seed, tokens in enumerate((2, 4)):
        make(tmp_path / f"{seed}", "tiny/relay", seed=seed, tokens=tokens)
    make(tmp_path / "free", "tiny/relay", policy="teacher_free", num_questions=1)
    groups = read(tmp_path / "0", tmp_path / "1")
    calls = dict(zip(calls_table(groups).head, calls_table(groups).rows[0], strict=True))
    assert calls == {
        "condition": "trained relay, 2 seeds",
        "seeds": "2",
        "responses": "30",
        **dict.fromkeys(("pooled", "mean", "average", "requested", "delivered"), "3.00"),
        "calls": "1.00",
        "read": "20.00",
        "prefilled": "4.00",
        "cached": "16.00",
    }
    assert time_table(groups).rows[0] == (
        "trained relay, 2 seeds",
        "6,000",
        "180",
        "1.0",
        "6,000.0",
        "0.50",
        "0.50",
    )
    free = calls_table(read(tmp_path / "free")).rows[0]
    assert free[:7] == ("trained relay, without teacher", "1", "3", "–", "–", "–", "0.00")


def test_a_cache_that_does_not_say(tmp_path: Path) -> None:
    silent = call("served", 2, 2) | {"num_cached": None}
    make(tmp_path, "tiny/relay", records=[record(calls=[silent])])
    assert calls_table(read(tmp_path)).rows[0][-3:] == ("20.00", "not said", "not said")


# ---- the random router ----


def test_the_papers_router() -> None:
    compared = paper_comparison("1.7b")
    assert compared is not None and compared.matched_p is not None and compared.cost_reduction is not None
    assert round(100 * compared.cost_reduction, 1) == 98.2, "abstract and section 1"
    assert round(100 * compared.gain, 1) == 6.9, "sections 1 and 7"
    assert compared.router_at(compared.matched_p) == pytest.approx(compared.relay)
    assert paper_comparison("tiny") is None


def test_our_router(tmp_path: Path) -> None:
    groups = make_tiny_world(tmp_path)
    compared = our_comparison(groups, "tiny")
    assert compared is not None
    assert (compared.student, compared.teacher) == (0.0, 1.0)
    assert (compared.relay, compared.ratio) == (pytest.approx(0.7), pytest.approx(0.11))
    assert (compared.gain, compared.matched_p) == (pytest.approx(0.59), pytest.approx(0.7))
    assert compared.cost_reduction == pytest.approx(1 - 0.11 / 0.7)
    figure = router_figure(groups, "tiny")
    assert figure is not None and figure.name == "figure_1_tiny"


NO_MATCH = [
    ((0.5, 0.4, 0.9, 0.1), "a relay below the student"),
    ((0.5, 0.95, 0.9, 0.1), "a relay above the teacher"),
    ((0.5, 0.6, 0.5, 0.1), "a teacher no better than the student"),
]


@pytest.mark.parametrize(("numbers", "why"), NO_MATCH, ids=[case[1] for case in NO_MATCH])
def test_no_router_is_as_accurate(numbers: tuple[float, float, float, float], why: str) -> None:
    compared = RouterComparison(*numbers)
    assert (compared.matched_p, compared.cost_reduction) == (None, None)


def test_a_router_table_of_nothing() -> None:
    table = router_table(Groups(()), "1.7b", "t")
    assert {row[2] for row in table.rows} == {NOT_MEASURED}
    assert table.rows[-1][1] == "98.23"


# ---- documents ----


class Page(HTMLParser):
    """What an HTML parser sees of a page."""

    def __init__(self, html: str):
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_data(self, data: str) -> None:
        if self.tags and self.tags[-1] != "style":
            self.text += data


def a_document(text: str) -> Document:
    picture = Picture(
        "p", text, draw(lambda figure: figure.text(0.1, 0.5, text.replace("\n", " ")) and None, size=(3, 1)), text
    )
    table = Table(text, ("", text), ((text, text), ("", text), (text,)), note=text)
    return Document(text, text, (Section(text, (table, picture), text),))


def test_hostile_text_stays_text() -> None:
    harmless, hostile = Page(to_html(a_document("plain"))), Page(to_html(a_document(HOSTILE)))
    outside = [tag for tag in hostile.tags if tag not in ("path", "use", "g", "defs")]
    assert outside == [tag for tag in harmless.tags if tag not in ("path", "use", "g", "defs")]
    assert "script" not in hostile.tags and "img" not in hostile.tags
    assert "{{ 7 * 7 }}" in hostile.text and "alert(1)" in hostile.text
    markdown = document_to_markdown(a_document(HOSTILE))
    lines = [line for line in markdown.splitlines() if line.startswith("| ")]
    assert len(lines) == 5 and {len(re.findall(r"(?<!\\)\|", line)) for line in lines} == {3}
    assert not re.search(r"(?<!\\)<|(?<!\\)`", markdown)


def test_a_short_line_spans_the_rest() -> None:
    table = Table("t", ("", "a", "b"), (("x", "1", "2"), ("y", NOT_MEASURED)))
    html = to_html(Document("d", "", (Section("s", (table,)),)))
    assert re.search(rf'<td class="span" colspan="2">{NOT_MEASURED}</td>', html)
    assert table.groups == [[("x", "1", "2")], [("y", NOT_MEASURED)]]
    assert f"| y   | {NOT_MEASURED} |     |" in document_to_markdown(Document("d", "", (Section("s", (table,)),)))


def test_a_picture_follows_the_page(tmp_path: Path) -> None:
    def paint(figure: Any) -> None:
        figure.subplots().plot([0, 1], [0, 1])

    svg = draw(paint, size=(3, 2))
    assert svg == draw(paint, size=(3, 2))
    assert svg.startswith("<svg") and "var(--soft)" in svg and "metadata" not in svg
    assert not re.search(r"<svg[^>]* (width|height)=", svg)
    assert "#040506" not in svg and "var(" not in standalone(svg)


# ---- the whole ----


def test_the_whole_report(tmp_path: Path) -> None:
    make_tiny_world(tmp_path / "results")
    (tmp_path / "log.jsonl").write_text('{"step": 1, "data": {"relay/accuracy": 0.5}}\n')
    out = tmp_path / "new" / "report"
    text = write_report([tmp_path / "results"], out, metrics={"a run": tmp_path / "log.jsonl"})
    assert text == (out / "report.md").read_text()
    html = (out / "report.html").read_text()
    page = Page(html)
    assert "default-src 'none'" in dict(page.attributes)["content"] or "default-src 'none'" in html
    outside = [value for name, value in page.attributes if name in ("src", "href", "xlink:href") and value[:1] != "#"]
    assert outside == [] and "@import" not in html and not re.search(r"url\((?!#)", html)
    names = re.findall(r"!\[[^\]]*\]\(([^)]*)\)", text)
    assert set(names) == {p.name for p in out.iterdir()} - {"report.md", "report.html", "curves.png"}
    assert page.tags.count("svg") == len(names) == 8
    for heading in (
        "Table 1",
        "Table 2",
        "Table 3",
        "Table 4",
        "Table 5",
        "Table 6",
        "Figure 1",
        "Figure 3",
        "Learning",
    ):
        assert heading in page.text and heading in text
    first = {path.name: path.read_bytes() for path in out.iterdir()}
    write_report([tmp_path / "results"], out, metrics={"a run": tmp_path / "log.jsonl"})
    assert {path.name: path.read_bytes() for path in out.iterdir()} == first


def test_hostile_results_make_a_report(tmp_path: Path) -> None:
    records = [answer("tiny/add", 0, is_correct=True, tokens=5)]
    make(tmp_path / "a", None, teacher=HOSTILE, records=records, student=HOSTILE, policy="learned")
    make(tmp_path / "b", "tiny/relay", teacher=HOSTILE.replace("\n", " "))
    write_report([tmp_path / "a", tmp_path / "b"], tmp_path / "out")
    tags = Page((tmp_path / "out" / "report.html").read_text()).tags
    assert "script" not in tags and "img" not in tags


def test_the_judges_table(tmp_path: Path) -> None:
    says = {"reply": "", "error": ""}
    verdicts = [True, True, False, False, None]  # of responses that the rule finds right
    judged = [record(id=str(i), judge={"is_correct": verdict, **says}) for i, verdict in enumerate(verdicts)]
    make(tmp_path / "judged", "tiny/relay", records=judged)
    make(tmp_path / "not", "tiny/grpo", records=[record(id=str(i)) for i in range(5)])
    table = judge_table(read(tmp_path))
    assert table is not None
    [row] = table.rows
    assert row[:5] == ("trained relay", "4", "100.00", "50.00", "50.00")
    assert row[-1] == "1", "without a verdict"
    assert judge_table(read(tmp_path / "not")) is None


def judged(folder: Path, row: str, verdicts: list[bool | None], *, model: str = "gpt-4o-mini", **changes: Any) -> Path:
    """Results that are all right by rule, with a judge's verdicts; None where it was not heard."""
    says = {"reply": "", "error": ""}
    records = [
        record(benchmark=name, id=str(i), question="q", judge={"is_correct": verdict, **says})
        for name in TINY
        for i, verdict in enumerate(verdicts)
    ]
    return make(folder, row, records=records, judge={"model": model, "base_url": str(folder)}, **changes)


def report_on(*arguments: str | Path) -> Any:
    return CliRunner().invoke(app, ["report", *map(str, arguments)])


def test_a_report_by_judge(tmp_path: Path) -> None:
    judged(tmp_path / "results", "tiny/relay", [True, True, True, False])
    by_rule, by_judge = (
        report_on(tmp_path / "results", "--out", tmp_path / by, "--by", by).output for by in ("rule", "judge")
    )
    assert re.search(r"\| ours +\| +100\.00 \|", by_rule) and "Accuracy is by rule" in by_rule
    assert "--by judge" in by_rule, "the paper's metric is there for the asking"
    assert re.search(r"\| ours +\| +75\.00 \| +75\.00 \| +75\.00 \| +75\.00 \|", by_judge)
    assert "Accuracy is by the LLM judge gpt-4o-mini" in by_judge and "Accuracy is by rule" not in by_judge
    assert "0 have no answer" in by_judge
    for text in (by_rule, by_judge):
        assert re.search(r"\| trained relay +\| +12 \| +100\.00 \| +75\.00 \|", text), "both, side by side"


def test_every_table_and_picture_on_accuracy_says_whose_verdicts_count(tmp_path: Path) -> None:
    make_tiny_world(tmp_path)
    math = paper().groups["average"]
    make(tmp_path / "math", "1.7b/relay", benchmarks=math, tokens=2, teacher="Qwen3-8B")
    document = make_document(read(tmp_path))
    sections = {section.title: section for section in document.sections}
    for title in ("Tables of the paper", "Qwen3-1.7B", "Tiny world"):
        assert sections[title].blocks
        for block in sections[title].blocks:
            assert "Accuracy: ours is by rule" in block.note or "Accuracy is by rule." in block.note, block.title
    assert "GPT-4o-mini" in sections["Tables of the paper"].blocks[0].note


UNJUDGED = [
    ([True, None, False], "3 of 9 responses", "a judge that was not heard"),
    (None, "30 of 30 responses", "no judge was asked"),
]


@pytest.mark.parametrize(("verdicts", "count", "why"), UNJUDGED, ids=[case[2] for case in UNJUDGED])
def test_by_judge_without_verdicts_is_a_one_line_error(
    verdicts: list[bool | None] | None, count: str, why: str, tmp_path: Path
) -> None:
    folder = tmp_path / "results"
    judged(folder, "tiny/relay", verdicts) if verdicts else make(folder, "tiny/relay")
    done = report_on(folder, "--out", tmp_path / "out", "--by", "judge")
    assert isinstance(done.exception, UserError)
    line = str(done.exception)
    assert line.startswith(f"--by judge: {count} in {folder} ") and "\n" not in line
    assert not (tmp_path / "out").exists()
    assert report_on(folder, "--out", tmp_path / "out").exit_code == 0, "by rule is the default"


def test_two_judges_are_not_mixed(tmp_path: Path) -> None:
    judged(tmp_path / "a", "tiny/relay", [True, False])
    judged(tmp_path / "b", "tiny/grpo", [True, False])
    words = [alone(benchmark="mmlu-pro", id=str(i)) for i in range(3)]
    make(tmp_path / "words", "1.7b/relay", records=words, benchmarks=("mmlu-pro",))
    done = report_on(tmp_path, "--out", tmp_path / "out", "--by", "judge")
    assert done.exit_code == 0, "only the address differs, and letters need no judge"
    judged(tmp_path / "b", "tiny/grpo", [True, False], model="other")
    done = report_on(tmp_path / "a", tmp_path / "b", "--out", tmp_path / "out", "--by", "judge")
    assert re.search(r"--by judge: judge\.model differs between .*/a and .*/b", str(done.exception))
    assert report_on(tmp_path / "a", tmp_path / "b", "--out", tmp_path / "out").exit_code == 0


def test_the_command(tmp_path: Path) -> None:
    make(tmp_path / "results", "tiny/relay", tokens=3)
    out = tmp_path / "out"
    done = CliRunner().invoke(app, ["report", str(tmp_path / "results"), "--out", str(out)])
    assert done.exit_code == 0 and "Your evaluations" in done.output
    assert (out / "report.html").exists()


BAD_COMMANDS = [
    (["--metrics", "relay"], r"--metrics: 'relay' is not LABEL=PATH", "no path"),
    (["--by", "gpt"], r"--by: 'gpt' is not one of rule, judge", "an unknown judge"),
    (["--metrics", "a=none.jsonl"], r"--metrics: .*none\.jsonl", "no such log"),
]


@pytest.mark.parametrize(("options", "message", "why"), BAD_COMMANDS, ids=[case[2] for case in BAD_COMMANDS])
def test_bad_options(options: list[str], message: str, why: str, tmp_path: Path) -> None:
    make(tmp_path / "results", "tiny/relay")
    done = CliRunner().invoke(app, ["report", str(tmp_path / "results"), "--out", str(tmp_path / "out"), *options])
    assert isinstance(done.exception, UserError) and re.search(message, str(done.exception))


def test_a_result_is_read_back(tmp_path: Path) -> None:
    result = read_result(make(tmp_path, "tiny/relay"))
    assert isinstance(result, Result) and result.row == "tiny/relay"
    assert len(result.records) == 30
