"""Answers that are text: BIG-Bench Extra Hard's own rules, and what LaTeX in a box adds to them."""

import pytest

from relay_verl.grading import VerdictStatus, grade, kind_of

SAME = [
    ("unknown", "unknown", "equal"),
    ("Unknown.", "unknown", "case and a closing stop"),
    ("yes, no, yes", "yes,no, yes", "blanks behind commas"),
    ("**proved**", "proved", "bold"),
    ("(B)", "B", "a letter in brackets"),
    ("b", "(B)", "a letter whose truth has brackets"),
    ("[3, 90]", "3,90", "brackets around the whole"),
    ("3,90", "[3, 90]", "brackets around the whole of the truth"),
    ("12.0", "12", "numbers"),
    ("dogs tail", "dog's tail", "apostrophes"),
    ("why?", "why", "a question mark"),
    (r"\text{Yes, no}", "yes, no", "LaTeX around words"),
    (r"\textbf{(C)}", "(C)", "LaTeX around a letter"),
    (r"50\%", "50%", "an escaped sign"),
    ("$17$", "17", "dollars around the whole"),
    ("[]", "[]", "the empty list"),
    ("[ ]", "[]", "the empty list with a blank"),
    (r"\text{[]}", "[]", "the empty list as text"),
    ("[He cried.]", "He cried.", "a stop inside brackets"),
    ("He cried.", "[He cried.]", "a stop inside the truth's brackets"),
    ("[He cried].", "He cried.", "a stop behind brackets"),
    ("Why??", "why?", "a question mark behind another"),
    ("He cried.?", "He cried.", "a question mark behind a stop"),
    ("He cried..", "He cried.", "a stop behind another"),
    ("[friday,thursday]?", "[friday, thursday]", "a question mark behind brackets"),
]
DIFFERENT = [
    ("no, yes, yes", "yes, no, yes", "order counts: math-verify compares sets"),
    ("1,0,0", "0,1,1", "the same for numbers"),
    ("yes, no, no", "yes, no, yes", "the same words, another number of each"),
    ("B", "(C)", "another letter"),
    ("BC", "(B)", "more letters"),
    ("13", "12", "another number"),
    ("proved", "disproved", "a part of the truth"),
    ("nan", "(A)", "what float reads as no number"),
    (r"\text{}", "unknown", "nothing inside LaTeX"),
    ("[]", "unknown", "the empty list for a word"),
    ("unknown", "[]", "a word for the empty list"),
    ("[0]", "[]", "a list of zero"),
    ("...", "?", "marks alone are compared as they are"),
]


@pytest.mark.parametrize(("answer", "truth", "why"), SAME, ids=[case[2] for case in SAME])
def test_the_same_text(answer: str, truth: str, why: str) -> None:
    verdict = grade(rf"It is \boxed{{0}}, or rather \boxed{{{answer}}}.", truth, "text")
    assert (verdict.is_correct, verdict.answer, verdict.status) == (True, answer, VerdictStatus.GRADED)


@pytest.mark.parametrize(("answer", "truth", "why"), DIFFERENT, ids=[case[2] for case in DIFFERENT])
def test_another_text(answer: str, truth: str, why: str) -> None:
    verdict = grade(rf"\boxed{{{answer}}}", truth, "text")
    assert (verdict.is_correct, verdict.status) == (False, VerdictStatus.GRADED)


def bbeh_targets() -> list[str]:
    """Targets in the spellings that the benchmark's files have, one of each kind, and the empty list."""
    return ["[emma, lily]", "unanswerable", "07-27-2002", "[]", "[friday, thursday]", "(A)", "yes, no, unknown", "0.5"]


@pytest.mark.parametrize("target", bbeh_targets())
def test_a_target_is_right_against_itself(target: str) -> None:
    assert grade(rf"\boxed{{{target}}}", target, "text").is_correct
    assert grade(rf"\boxed{{\text{{{target}.}}}}", target, "text").is_correct


def test_text_without_a_box_is_no_answer() -> None:
    assert grade("The answer is unknown", "unknown", "text").status == VerdictStatus.NO_ANSWER
    assert not grade(r"\boxed{\text{ }}", "", "text").is_correct  # an empty truth has no right answer


def test_a_rows_ability_is_its_kind() -> None:
    abilities = ["text", "choice", "math", "MATH", "general", None, 3]
    assert [kind_of(ability) for ability in abilities] == ["text", "choice", "math", "math", "math", "math", "math"]
