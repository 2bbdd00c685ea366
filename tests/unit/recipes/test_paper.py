"""The paper's numbers tie to each other, and where they do not, the data file says so."""

import math
from decimal import ROUND_HALF_UP, Decimal

import pytest

from relay_verl.errors import UserError
from relay_verl.recipes.paper import find_row, paper, rows


def rounded(values: list[float]) -> float:
    """The mean as a table prints it: two decimals, half up."""
    mean = sum(Decimal(str(value)) for value in values) / len(values)
    return float(mean.quantize(Decimal("0.01"), ROUND_HALF_UP))


def mean_of(table: str, row: str, group: str) -> float:
    values = paper().find(table, row)
    return rounded([values[benchmark] for benchmark in paper().groups[group]])


FULL_LINES = [(table, row.name) for table in ("Table 1", "Table 6") for row in rows() if paper().find(table, row.name)]


@pytest.mark.parametrize(("table", "row"), FULL_LINES)
def test_averages_are_means_of_the_benchmarks(table: str, row: str) -> None:
    assert paper().find(table, row)["average"] == mean_of(table, row, "average")


def test_every_line_is_there() -> None:
    assert len(FULL_LINES) == 11 + 4
    of_table = {table: sum(e.table == table for e in paper().entries) for table in ("Table 2", "Table 3", "Table 5")}
    assert of_table == {"Table 2": 11, "Table 3": 4, "Table 5": 4}


@pytest.mark.parametrize("row", ["1.7b/grpo", "1.7b/relay_simple", "1.7b/relay"])
def test_table_4_follows_from_table_1(row: str) -> None:
    assert dict(paper().find("Table 4", row)) == {group: mean_of("Table 1", row, group) for group in ("easy", "hard")}


SHARED = [
    ("Table 3", "Table 1", "1.7b/relay", "the ablation's reference"),
    ("Table 5", "Table 1", "1.7b/relay", "the fixed lengths' reference"),
    ("Table 1", "Table 6", "1.7b/relay", "all eight columns"),
    *(("Table 5", "Table 6", f"1.7b/fixed_{n}", "the summary of Table 6") for n in (20, 100, 500)),
]


@pytest.mark.parametrize(("table", "other", "row", "why"), SHARED)
def test_tables_that_share_a_row_agree(table: str, other: str, row: str, why: str) -> None:
    whole = paper().find(other, row)
    values = paper().find(table, row)
    assert values and values == {measure: whole[measure] for measure in values}, why


def average(row: str) -> float:
    return paper().find("Table 1", row)["average"]


def test_claims_of_the_text() -> None:
    base, relay, teacher = average("1.7b/base"), average("1.7b/relay"), average("8b/teacher")
    ratio = paper().find("Table 1", "1.7b/relay")["call_ratio"] / 100
    assert round(100 * (1 - ratio / ((relay - base) / (teacher - base))), 1) == 98.2, "abstract and section 1"
    assert round(relay - (base + ratio * (teacher - base)), 1) == 6.9, "sections 1 and 7"
    assert round(100 * (relay - base) / (teacher - base)) == 60, "section 4.4"
    minerva = [paper().find("Table 1", f"0.6b/{method}")["minerva"] for method in ("relay", "base")]
    assert round(100 * (minerva[0] / minerva[1] - 1), 1) == 48.8, "section 4.4"


NUM_QUESTIONS = {
    "minerva": 272,
    "math-500": 500,
    "gsm8k": 1319,
    "olympiadbench": 675,
    "aime-2025": 30,
    "aime-2024": 30,
}
"""Of the benchmarks whose size the paper's numbers fit."""


def is_a_count(percent: float, num_responses: int) -> bool:
    """Whether some whole number of right answers is printed as this percentage (either rounding of a half)."""
    near = percent * num_responses / 100
    return any(abs(100 * count / num_responses - percent) < 0.00501 for count in (math.floor(near), math.ceil(near)))


def not_counts(table: str, row: str) -> str:
    values = paper().find(table, row)
    odd = []
    for benchmark in paper().benchmarks.values():
        if benchmark.name in NUM_QUESTIONS and benchmark.name in values:
            num_responses = NUM_QUESTIONS[benchmark.name] * benchmark.num_samples
            if not is_a_count(values[benchmark.name], num_responses):
                odd.append(benchmark.title)
    return ", ".join(odd)


def test_discrepancies_are_the_ones_listed() -> None:
    found = {}
    if any(e.values["call_ratio"] >= 1 for e in paper().entries if e.table == "Table 1" and e.row == "1.7b/relay"):
        found["call_ratio_below_1"] = "1.07"
    free = [paper().find("Table 4", f"1.7b/{m}", policy="teacher_free")["easy"] for m in ("relay_simple", "relay")]
    if max(free) < (easy := mean_of("Table 1", "1.7b/citer", "easy")):
        found["teacher_free_above_baselines"] = f"{easy}"
    odd = {(table, row): text for table, row in FULL_LINES if (text := not_counts(table, row))}
    assert odd.pop(("Table 1", "0.6b/citer")) == "Minerva, Olympiad, AIME25, AIME24"
    assert odd.pop(("Table 1", "1.7b/citer")) == "Minerva, MATH500, Olympiad, AIME25, AIME24"
    assert odd == {("Table 6", f"1.7b/fixed_{n}"): "Olympiad, AIME25" for n in (20, 100, 500)}
    found |= {
        "citer_not_counts_0.6b": "Minerva, Olympiad, AIME25 and AIME24",
        "citer_not_counts_1.7b": "Minerva, MATH500, Olympiad, AIME25 and AIME24",
        "fixed_not_counts": "Olympiad and AIME25",
    }
    assert set(found) == set(paper().discrepancies)
    assert all(text in paper().discrepancies[name].but for name, text in found.items())


def test_every_entry_names_a_row_and_measures_that_exist() -> None:
    measures = {*paper().benchmarks, *paper().groups, "call_ratio"}
    for entry in paper().entries:
        assert find_row(entry.row).name == entry.row
        assert set(entry.values) <= measures
        assert all(0 < value <= 100 for value in entry.values.values())
    assert all(set(group) <= set(paper().benchmarks) for group in paper().groups.values())


def test_rows() -> None:
    assert (find_row("1.7b/relay").title, find_row("1.7b/relay").size_title) == (
        "RelayLLM (Difficulty-Aware)",
        "Qwen3-1.7B",
    )
    assert {"0.6b/base", "8b/teacher", "tiny/fixed_25", "tiny/teacher"} <= {row.name for row in rows()}
    with pytest.raises(
        UserError,
        match=r"row: '1\.7b/relai' .*is not one of 0\.6b/base, .*tiny/teacher",
    ) as caught:
        find_row("1.7b/relai")
    assert "\n" not in str(caught.value)


def test_a_line_that_is_not_there_is_empty() -> None:
    assert paper().find("Table 1", "tiny/relay") == {}
    assert paper().find("Table 4", "1.7b/grpo", policy="teacher_free") == {}
