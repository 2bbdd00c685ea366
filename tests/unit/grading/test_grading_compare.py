"""The comparison of mathematical answers: kinds of answers, properties, and the labelled tables of two libraries."""

import json
import subprocess
import sys
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relay_verl.grading import Grader, VerdictStatus
from relay_verl.grading.answers import boxed_answer
from relay_verl.grading.equivalence import is_equivalent, is_readable
from relay_verl.grading.latex import words
from tests.helpers.grading_compare_cases import BOXES, COMPARISONS

ROWS = [(kind, *row) for kind, rows in COMPARISONS.items() for row in rows]
TABLES = [json.loads(line) for line in (Path(__file__).parents[2] / "data/grading/hf_test_tables.jsonl").open()]
REFUSED = {
    "lighteval_tests-95": "x = 5+5+1 = 7 = 11 contradicts itself",
    "lighteval_tests-97": "x = 5+5+1 = 1/3 contradicts itself",
    "mathverify_tests_all-109": "z = 3+3 = 2 contradicts itself",
    "mathverify_tests_all-104": "the truth has an unknown command, and 1 = 0 in it",
    "lighteval_tests-163": "a list with one solution twice",
}
"""Undisputed rows that are labelled right and are refused here, by decision."""


@pytest.fixture(scope="module")
def grader() -> Iterator[Grader]:
    with Grader(timeout_s=30.0, num_workers=1) as grader:
        yield grader


@pytest.mark.parametrize(
    ("kind", "answer", "truth", "is_correct"), ROWS, ids=[f"{r[0]}: {r[1]} | {r[2]}" for r in ROWS]
)
def test_comparison(grader: Grader, kind: str, answer: str, truth: str, is_correct: bool) -> None:
    verdict = grader.grade(rf"Therefore $\boxed{{{answer}}}$.", truth)
    assert (verdict.is_correct, verdict.status) == (is_correct, VerdictStatus.GRADED), kind


def test_each_kind_has_right_and_wrong_pairs() -> None:
    for kind, rows in COMPARISONS.items():
        assert len({row[:2] for row in rows}) == len(rows), kind
        assert min(sum(row[2] for row in rows), sum(not row[2] for row in rows)) >= 5, kind


@pytest.mark.parametrize(("response", "truth", "is_correct"), BOXES, ids=[f"{row[0]} | {row[1]}" for row in BOXES])
def test_boxes(grader: Grader, response: str, truth: str, is_correct: bool) -> None:
    assert grader.grade(response, truth).is_correct == is_correct


@pytest.mark.parametrize("row", [row for row in TABLES if row["disputed"] is None], ids=lambda row: row["id"])
def test_labelled_tables(grader: Grader, row: dict[str, str]) -> None:
    is_correct = grader.grade(row["response"], row["gold"]).is_correct
    assert is_correct == (row["label"] and row["id"] not in REFUSED), REFUSED.get(row["id"])


def test_no_labelled_row_is_wrongly_accepted_and_most_agree(grader: Grader) -> None:
    verdicts = {row["id"]: grader.grade(row["response"], row["gold"]).is_correct for row in TABLES}
    assert not [row["id"] for row in TABLES if verdicts[row["id"]] and not row["label"]]
    undisputed = [row for row in TABLES if row["disputed"] is None]
    num_agreed = sum(verdicts[row["id"]] == row["label"] for row in undisputed)
    assert num_agreed / len(undisputed) >= 0.97


READABLE = [
    (r"\frac{1}{2}", True),
    ("52_8", True),
    (r"\text{Evelyn}", True),
    (r"x \in [-2,7]", True),
    (r"E_{1},E_{2}", True),
    (r"\frac{dM}{dt}=\frac{10^{5} L_{\odot}}{0.007 c^{2} M_{\odot}^{6}} M^{6}", True),
    (r"m_{\max }=n^{2}-n-1", True),
    (r"1,2,\ldots,1235", False),
    ("(2k-1)!!", False),
    (r"n \equiv 1 \pmod 4", False),
    ("1 if triangle is isosceles, otherwise 2", False),
    (r"\frac{1}{2", False),
    ("", False),
]


@pytest.mark.parametrize(("truth", "is_read"), READABLE)
def test_what_is_readable(truth: str, is_read: bool) -> None:
    assert is_readable(truth) == is_read
    if truth.strip():
        assert is_equivalent(truth, truth) or truth.count("{") != truth.count("}")


# ---- properties ----

rationals = st.fractions(min_value=-(10**6), max_value=10**6, max_denominator=10**4)
exponents = st.integers(min_value=-400, max_value=400)


def spell(value: Fraction) -> str:
    return rf"\frac{{{value.numerator}}}{{{value.denominator}}}"


@given(rationals, rationals, exponents)
def test_rational_numbers_are_equal_only_if_they_are(one: Fraction, other: Fraction, exponent: int) -> None:
    scale = rf"\cdot 10^{{{exponent}}}"
    assert is_equivalent(spell(one) + scale, spell(other) + scale) == (one == other)
    assert is_equivalent(spell(one) + scale, spell(one * 3) + scale + r"\cdot\frac{1}{3}")


@given(rationals.filter(bool), exponents, st.sampled_from([r"\sqrt{2}", r"\pi", r"e^{2}", r"\ln 3", r"\sin 1"]))
def test_a_small_difference_of_irrational_numbers_is_a_difference(value: Fraction, exponent: int, other: str) -> None:
    term = rf"{spell(value)}\cdot 10^{{{exponent}}}"
    assert not is_equivalent(rf"{other}+{term}", other)
    assert is_equivalent(rf"{other}+{term}-{other}", term)


formulas = st.recursive(
    st.sampled_from(["x", "y", "n", r"\pi", "e", "2", "7", r"\frac{1}{3}", "0.5", "i"]),
    lambda part: st.one_of(
        st.tuples(part, part).map(r"({0[0]}+{0[1]})".format),
        st.tuples(part, part).map(r"({0[0]}-{0[1]})".format),
        st.tuples(part, part).map(r"({0[0]}\cdot {0[1]})".format),
        st.tuples(part, st.sampled_from(["2", "x", r"\pi", "y+z"])).map(
            lambda pair: rf"\frac{{{pair[0]}}}{{{pair[1]}}}"
        ),
        part.map(lambda one: rf"\sqrt{{{one}}}"),
        part.map(lambda one: rf"\left({one}\right)^{{2}}"),
        part.map(lambda one: rf"\sin({one})"),
    ),
    max_leaves=6,
)


@settings(deadline=None)
@given(formulas, formulas)
def test_equality_is_symmetric_and_a_sum_has_no_order(one: str, other: str) -> None:
    assert is_equivalent(one, other) == is_equivalent(other, one)
    assert is_equivalent(rf"{one}+{other}", rf"{other}+{one}")
    assert is_equivalent(rf"\frac{{{one}}}{{3}}", rf"\frac{{1}}{{3}}\cdot {one}")


@settings(deadline=None)
@given(st.lists(st.integers(-5, 5), min_size=2, max_size=6), st.sampled_from([",", ", "]))
def test_lists_have_no_order_and_count_repetitions(values: list[int], comma: str) -> None:
    spelled = comma.join(map(str, values))
    assert is_equivalent(", ".join(map(str, sorted(values))), spelled)
    assert not is_equivalent(f"{spelled}, {values[0]}", spelled)
    assert not is_equivalent(", ".join(map(str, [values[0] + 1, *values[1:]])), spelled)
    assert is_equivalent(rf"\{{{spelled}, {values[0]}\}}", rf"\{{{spelled}\}}")


@settings(deadline=None)
@given(st.lists(st.integers(-99, 99), min_size=2, max_size=5), st.sampled_from([", ", " and ", " or ", "; "]))
def test_boxes_are_right_together_or_not_at_all(values: list[int], joiner: str) -> None:
    boxes = [rf"$\boxed{{{value}}}$" for value in values]
    answer = boxed_answer(f"Thus {joiner.join(boxes)}.")
    assert answer is not None
    is_one = len(set(values)) == 1
    for value in values:
        assert is_equivalent(answer, str(value)) == is_one
    if len(set(values)) == len(values):
        assert is_equivalent(answer, ", ".join(map(str, values)))
    assert boxed_answer(f"{boxes[0]} is a step. So {boxes[1]}.") == str(values[1])


mathlike = st.text(st.sampled_from(list("0123456789xyiefn+-*/^_(){}[]|,;:.=<>%!&~ \\'\n")), max_size=25)
commands = words(
    r"\frac \sqrt \text{a} \left( \right) \pm \cup \in \sum_{k=1}^{9} \binom \le \begin{pmatrix} \end{pmatrix} \\ & { }"
    r" \{ \} 1 x ^ _ , ="
)
latex = st.lists(st.sampled_from(sorted(commands)), max_size=12).map("".join)


@settings(max_examples=300, deadline=None)
@given(mathlike | latex, mathlike | latex)
def test_any_text_is_compared_without_an_error(answer: str, truth: str) -> None:
    assert is_equivalent(answer, truth) in (True, False)
    assert is_readable(answer) in (True, False)


BOUNDED = [
    (r"9^{9^{9^9}}", "a tower of powers"),
    (r"10^{10^{10}}+1", "a sum with a huge power"),
    (r"(10^9)!", "a huge factorial"),
    (r"((10^5)!)!", "a factorial of a factorial"),
    (r"\binom{10^9}{10^8}", "a huge binomial"),
    (r"\binom{x}{10^9}", "a binomial of a variable"),
    (r"\sum_{k=1}^{10^9}k", "a sum with many terms"),
    (r"\prod_{k=1}^{10^9}k", "a product with many factors"),
    (r"\sum_{k=1}^{10^9}\sum_{j=1}^{10^9}kj", "a sum of sums"),
    (r"2^{-10^{12}}", "a tiny power"),
    (r"\gcd(2^{10^6},3^{10^6})", "a divisor of huge numbers"),
    (r"\lfloor 10^{10^7}\rfloor", "an integer part of a huge number"),
    (r"\sin(10^{10^7})", "an angle that is huge"),
    (r"\log_{2}(10^{10^9})", "a logarithm of a huge number"),
    (r"x^{10^{12}}", "a huge power of a variable"),
    (r"\frac{1}{1+" * 100 + "1" + "}" * 100, "a hundred nested fractions"),
    ("(" * 2000 + "1" + ")" * 2000, "two thousand parentheses"),
    (r"\{" * 500 + "1" + r"\}" * 500, "five hundred sets in sets"),
    (r"\pm 1" * 200, "two hundred signs"),
    ("1," * 400 + "1", "four hundred ones"),
]


@pytest.mark.parametrize(("answer", "why"), BOUNDED, ids=[case[1] for case in BOUNDED])
def test_evaluation_is_bounded(grader: Grader, answer: str, why: str) -> None:
    verdict = grader.grade(rf"\boxed{{{answer}}}", "7")
    assert (verdict.is_correct, verdict.status) == (False, VerdictStatus.GRADED), why


def test_the_mutations_program_prints_its_table(tmp_path: Path) -> None:
    """One truth that is read and one that is not; each number of the first is changed by one."""
    truths = tmp_path / "truths.jsonl"
    truths.write_text('{"truth": "\\\\frac{3}{7}"}\n{"truth": "1,2,\\\\ldots,9"}\n')
    program = [sys.executable, str(Path(__file__).parents[2] / "grading_mutations.py"), f"small={truths}:truth"]
    table = subprocess.run(program, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert table.returncode == 0, table.stderr
    assert "| small | 2 | 1 | 0 | 0 | 5 | 0 |" in table.stdout
