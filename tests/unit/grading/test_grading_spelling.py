"""What an answer's spelling means: the table of cases, and that no spelling swallows, joins or changes a number."""

import doctest
import importlib
import re
import time
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relay_verl.grading import Grader, VerdictStatus
from relay_verl.grading.arguments import brace_arguments
from relay_verl.grading.spelling import respell, respell_pair
from relay_verl.grading.unit_table import parse_unit
from tests.helpers.grading_spelling_cases import SPELLINGS

ROWS = [(kind, *row) for kind, rows in SPELLINGS.items() for row in rows]
MODULES = (
    "arguments characters degrees markup numerals percentages python_math quantities spelling unit_table units words"
)


@pytest.fixture(scope="module")
def patient() -> Iterator[Grader]:
    with Grader(timeout_s=30.0, num_workers=1) as grader:
        yield grader


# ---- verdicts ----


@pytest.mark.parametrize(("kind", "answer", "truth", "is_right"), ROWS)
def test_verdict(patient: Grader, kind: str, answer: str, truth: str, is_right: bool) -> None:
    verdict = patient.grade(rf"So it is $\boxed{{{answer}}}$.", truth)
    assert (verdict.is_correct, verdict.status) == (is_right, VerdictStatus.GRADED), kind


def test_each_kind_has_ten_rows_of_both_verdicts() -> None:
    for kind, rows in SPELLINGS.items():
        if kind != "left to the parser":
            assert len(rows) >= 9, kind
            assert {is_right for _, _, is_right in rows} == {True, False}, kind
    assert len({row[1:3] for row in ROWS}) == len(ROWS), "a pair is there twice"


# ---- no spelling swallows, joins or changes a number ----

CONTEXTS = [
    "{}",
    r"{} \text{{ cm}}",
    "{} apples",
    "{} km/h",
    r"\text{{The answer is }}{}",
    "Answer: {}",
    r"\mathbf{{{}}}",
    r"\text{{{}}}",
    r"\text{{{} cm}}",
    r"\frac{{{}}}7",
    r"\frac{{{}}}{{7}}\text{{ hours}}",
    r"\sqrt{{{}}}",
    "2^{}",
    "{}^\\circ",
    "{}%",
    "{} percent",
    r"\${}",
    "{}e30",
    r"{} \times 10^{{30}}",
    "{}th",
    "x={}",
    "({},5)",
    r"5, {} \text{{ apples}}",
    r"5 \text{{ hours }} {} \text{{ minutes}}",
    r"{} \text{{ hours }} 5 \text{{ minutes}}",
    r"{}\mathrm{{ft}}\times 12\mathrm{{ft}}",
    "{} million",
    r"x+{}y",
    r"\sin {}^\circ",
    "np.sqrt({})",
    "{}**2",
    "３{}",
    "7 {:0>3}",
    r"{}\frac{{1}}{{3}}",
]
numbers = st.integers(1, 999).map(str) | st.integers(10**3, 10**12).map(str)


@settings(max_examples=60, deadline=None)
@given(numbers, st.sampled_from(CONTEXTS), st.data())
def test_another_digit_is_another_answer(patient: Grader, number: str, context: str, data: st.DataObject) -> None:
    position = data.draw(st.integers(0, len(number) - 1))
    digit = data.draw(st.sampled_from([d for d in "123456789" if d != number[position]]))
    other = f"{number[:position]}{digit}{number[position + 1 :]}"
    answer, truth = context.format(number), context.format(other)
    if context.startswith(r"\sin") and (int(number) - int(other)) * (180 - int(number) - int(other)) % 360 == 0:
        return  # the same sine, maybe
    verdict = patient.grade(rf"\boxed{{{answer}}}", truth)
    assert not verdict.is_correct
    assert patient.grade(rf"\boxed{{{answer}}}", answer).is_correct


JOINTS = [
    " ", "  ", ", ", "; ", "$ $", "$", r"\quad ", r"\text{ and }", r"\text{ cm}", r"\text{ cm }", r"\mathrm{m}", " cm ",
    " apples ", "'", "''", r"\text{ or }", "^\\circ ", r"\%", "% ", r"\text{th}", "th ", r"\$", " $ ", "\u200b,", "·",
    r"\mathbf{}", r"\text{}", r"\\", "–", "°", "e", "E", "x", "*", "/", ":", "|", r"\ldots ", "~~", r"\, \,",
]  # fmt: skip


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 99).map(str), st.integers(1, 99).map(str))
def test_two_numbers_stay_two(one: str, other: str) -> None:
    """One or two digits on each side are never thousands: whatever stands between them, it is not nothing."""
    for joint in JOINTS:
        for text in (f"{one}{joint}{other}", f"{{{one}}}{joint}{{{other}}}"):
            assert not re.search(rf"(?<!\d){one}{other}(?!\d)", respell(text)), text


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.sampled_from(
            [
                *"0123456789.,;{}()[]^_+-*/=' $%~",
                r"\text{",
                r"\frac",
                r"\mathrm{",
                "cm",
                " apples ",
                r"\circ",
                "th",
                "million",
                "and ",
                "np.",
                "e",
                "°",
                "²",
                "½",
                "\\",
                r"\sqrt",
                "x",
            ]
        ),
        max_size=40,
    )
)
def test_any_text_is_respelled_and_its_plain_digits_stay(pieces: list[str]) -> None:
    text = "".join(pieces)
    respelled = respell(text)
    assert isinstance(respelled, str)
    if text.isascii() and not re.search(r"e|million|'|\^|\\overline|/", text):  # what writes digits of its own
        assert (
            re.sub(r"\D", "", respelled) == re.sub(r"\D", "", text)
            or r"\circ" in text
            or "%" in text
            or "\\text" in text
        )


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.sampled_from(["1", "2", "x", "+", "-", "(", ")", r"\frac{1}{2}", r"\sqrt{3}", r"\pi ", ","]), max_size=20
    )
)
def test_math_that_parses_is_left_alone(pieces: list[str]) -> None:
    """Digits that are apart in well-formed mathematics come back as they were, blanks apart."""
    text = "".join(pieces)
    if re.search(r"\d\\frac|,\d{3}|^\(|[()]", text):
        return  # mixed numbers and thousands are rewritten; parentheses may be an interval's
    assert respell(text).replace(" ", "") == text.replace(" ", "").strip()


def test_a_pair_is_read_as_its_sides_where_nothing_depends_on_the_other() -> None:
    assert respell_pair(r"\frac12", "0.5") == (respell(r"\frac12"), respell("0.5"))
    assert respell_pair("5 cm", "5 kg") is None
    assert respell_pair("5 cm", "5") == ("5", "5")


def test_a_percentage_ends_with_its_sign() -> None:
    for text in ("28 pct", "28%", r"28\%", r"28 \text{ percent}", "28 percentage", "28 per cent", r"\textbf{28\%}"):
        assert respell(text).replace(" ", "") == r"28\%", text


@pytest.mark.parametrize(
    ("text", "is_unit", "is_known"),
    [
        ("cm", True, True),
        (" square feet ", True, True),
        ("m/s^2", True, True),
        ("apples", True, False),
        ("red marbles", True, False),
        ("liters of water", True, True),
        ("or more", False, False),
        ("if n is odd", False, False),
        ("dozen", False, False),
        ("squared", False, False),
        ("x", False, False),
        ("(base 8)", False, False),
        ("", False, False),
    ],
)
def test_what_a_unit_is(text: str, is_unit: bool, is_known: bool) -> None:
    unit = parse_unit(text)
    assert (unit is not None) == is_unit
    assert (unit is not None and unit.is_known) == is_known


# ---- linear time ----

PIECES = [
    "9", " ", "1 ", "{", "}", "(", "[", "\\", r"\text{cm}", r"5\text{ cm}", "5 cm, ", r"\frac", r"\frac1", "^", "_",
    "a ", "the answer is ", r"\text{the }", "7th", "7^{", "°", r"30^\circ 15'", "5'10''", "'", "$", r"\$", "5%,",
    "1e5", "1e",
    r"0.\overline{3}", "½", "４", "12 345 ", r"\mathbf{", r"\mathbf{1}", r"\text{", r"5\text{ hours } ", "5 million ",
    "sqrt(", r"\sin", "and ", r"\ldots", r"\text{ km}/", "np.", "**", "2 1/2 ", r"2\frac{1}{2}", "apple ", "ab/", "{1}",
]  # fmt: skip
NESTED = [("{", "}"), ("(", ")"), (r"\frac{1}{", "}"), (r"\mathbf{", "}"), (r"\sqrt{", "}"), ("^{", "}"), ("[", ")")]


@pytest.mark.parametrize(
    "text",
    [*(piece * (100_000 // len(piece)) for piece in PIECES), *(a * 9_000 + "1" + b * 9_000 for a, b in NESTED)],
    ids=[*PIECES, *("".join(pair) for pair in NESTED)],
)
def test_a_hundred_kilobytes_take_linear_time(text: str) -> None:
    start = time.process_time()
    respell(text)
    assert time.process_time() - start < 15.0  # 2 s at most; quadratic time would be minutes


def test_arguments_at_any_depth() -> None:
    depth = 5_000
    text = r"\frac{1}" * depth + "2"
    assert brace_arguments(text) == r"\frac{1}{" * depth + "2" + "}" * depth


@pytest.mark.parametrize("name", MODULES.split())
def test_docstring_examples(name: str) -> None:
    results = doctest.testmod(importlib.import_module(f"relay_verl.grading.{name}"))
    assert results.failed == 0
