"""Which training questions count as an evaluation set's, and why."""

import random
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay_verl.data.alignment import align
from relay_verl.data.overlap import (
    MAX_EVALUATION_QUESTIONS,
    MAX_TRAINING_QUESTIONS,
    Overlap,
    find_overlaps,
    normalize,
)
from relay_verl.data.prompts import WRAPPERS
from relay_verl.data.schema import to_row
from relay_verl.errors import UserError

TRAIN = (
    "A farmer has 17 sheep and buys 25 more at the market on Monday and sells 9 of them on Friday. How many are left?"
)


def row(question: str, id: str = "t") -> dict[str, Any]:
    return to_row(data_source="train", question=question, ground_truth="1", id=id)


def overlaps(question: str, *evaluation: str, **options: Any) -> list[Overlap]:
    return find_overlaps([row(question)], {"set": [{"problem": text} for text in evaluation]}, **options)


EXACT = [
    ("What is 7*8?", "what  IS\n7 * 8", "case, blanks and the question mark"),
    (r"Find $\left(\dfrac{1}{2}\right)^{2}$.", r"Find \( ( \frac{1}{2} )^2 \)", "LaTeX's sizes and delimiters"),
    (r"If $x\,=\,3$,\quad find $x$", "If $x=3$ find $x$", "LaTeX's blanks"),
    ("Find the ﬁrst x²", "Find the first x^2", "ligatures and exponents in Unicode"),
    ("Compute 5−3", "Compute 5-3", "the minus sign"),
    (r"The \textbf{area} of it", "The area of it", "fonts"),
    ("Compute 2x", "Compute 2 x", "a number before a letter"),
    ("STRASSE 1", "straße 1", "case beyond one letter"),
    (
        "Positive integers $x, y, z$ satisfy $xy + z = 160$. Compute the smallest possible value of $x + yz$.",
        "Positive integers $x, y, z$ satisfy $x y+z=160$. Compute the smallest possible value of $x+y z$.",
        "letters of formulas apart",
    ),
    ("Simplify $\\sqrt{242}$. Express your answer in simplest radical form.", "Simplify $√242$", "an answer's form"),
    *(
        (
            "Simplify $\\sqrt{242}$.",
            "\n".join(filter(None, (before, "Simplify $\\sqrt{242}$.", after))),
            f"wrapper {number}",
        )
        for number, (before, after) in enumerate(WRAPPERS)
    ),
]


@pytest.mark.parametrize(("question", "evaluation", "why"), EXACT, ids=[case[2] for case in EXACT])
def test_exact_overlaps(question: str, evaluation: str, why: str) -> None:
    found = overlaps(question, "Something else?", evaluation)
    assert [(o.kind, o.share, o.benchmark, o.benchmark_id) for o in found] == [("exact", 1.0, "set", "row 2")]
    assert (found[0].id, found[0].question) == ("t", question)


DIFFERENT = [
    ("What is 3+5?", "What is 3-5?", "another operator"),
    ("What is 3*5?", "What is 3*6?", "another number"),
    (r"Find $2^{10}$", r"Find $2_{10}$", "a power and an index"),
    (r"Solve $x \le 3$", r"Solve $x \ge 3$", "another relation"),
    ("求一个数的平方", "求一个数的立方", "two of seven characters"),
    ("Find 5!", "Find 5", "a factorial"),
    ("? ...", "!?", "no word to compare"),
    ("Find $x/y$", "Find $xy$", "a bar"),
    ("If $a=3$ and $b=4$, find $a+b$", "If $a=3$ and $b=4$, find $b+a+b$", "what is asked for"),
    ("Find the sum of three integers", "Find the sum of four integers", "a numeral in letters"),
]


@pytest.mark.parametrize(("question", "evaluation", "why"), DIFFERENT, ids=[case[2] for case in DIFFERENT])
def test_short_questions_that_differ(question: str, evaluation: str, why: str) -> None:
    assert overlaps(question, evaluation) == []


SHARED = [  # TRAIN has 25 words, so 13 runs
    (f"{TRAIN} Explain why.", "ngram", 1.0, "words added behind"),
    (f"Consider this. {TRAIN}", "ngram", 1.0, "words added in front"),
    (f"{TRAIN} Please provide the answer when n = 3.", "ngram", 1.0, "numbers in what is added"),
    (TRAIN.replace("How many are left", "Find their number"), "ngram", 9 / 12, "another ending"),
    (TRAIN.replace("Friday", "Sunday"), "ngram", 8 / 13, "one word near the end: the runs before it are shared"),
    (TRAIN.replace("Monday", "Sunday"), "lcs", 48 / 50, "one word in the middle breaks most runs"),
    (TRAIN.replace("at the market", "in the shop"), "lcs", 46 / 50, "several words in the middle"),
    (TRAIN.replace("Monday and", "Monday, a day of rain and wind, and"), "lcs", 1.0, "a clause in the middle"),
    (TRAIN.replace("25", "26"), None, 0, "the same template with another number"),
    (TRAIN.replace("9 of", "nine of"), "exact", 1.0, "a number that is written out"),
    (TRAIN.replace("9 of", "eight of"), None, 0, "another one that is written out"),
    (" ".join(TRAIN.split()[:13]), "ngram", 1.0, "the shorter question is a part of it"),
    (" ".join(TRAIN.split()[:12]), None, 0, "12 words, which are compared exactly only"),
    (" ".join(reversed(TRAIN.split())), None, 0, "the same words in another order"),
]


@pytest.mark.parametrize(("evaluation", "kind", "share", "why"), SHARED, ids=[case[3] for case in SHARED])
def test_questions_that_share_most_words(evaluation: str, kind: str | None, share: float, why: str) -> None:
    for training, other in ((TRAIN, evaluation), (evaluation, TRAIN)):
        reported = overlaps(training, other)
        assert [o.kind for o in reported] == ([kind] if kind else [])
        assert not kind or reported[0].share == pytest.approx(share)


HYPERBOLA = "hyperbola {} can be written as $\\frac{{(x-h)^2}}{{a^2}} - \\frac{{(y-k)^2}}{{b^2}} = 1$. Find $h+k+a+b$."
FORMULA = "Let $z$ be a complex number such that $z^4 {} z^2 + 1 = 0$ and its real part is {} positive. Find ${}z$."
DIFFERENT_PROBLEMS = [
    (FORMULA.format("+", "", r"\sin "), FORMULA.format("-", "", r"\sin "), "another operator"),
    (FORMULA.format("+", "", r"\sin "), FORMULA.format("+", "", r"\cos "), "another function"),
    (
        "Determine the number of ways to arrange the letters of the word TARTAR.",
        "Determine the number of ways to arrange the letters of the word ELLIPSE.",
        "one word of few",
    ),
    (
        "The repeating decimal $2.0151515\\ldots$ can be expressed as $\\frac{m}{n}$, where $m$ and $n$ are relatively "
        "prime positive integers. Find $m + n$.",
        "Eight circles of radius $34$ are sequentially tangent, and two of the circles are tangent to $AB$ and $BC$ of "
        "triangle $ABC$, respectively. The inradius of triangle $ABC$ can be expressed as $\\tfrac{m}{n}$, where $m$ "
        "and $n$ are relatively prime positive integers. Find $m+n$.",
        "boilerplate of a short question",
    ),
    (
        "How far is it from the school to the house of the girl? Express your answer as a common fraction in lowest "
        "terms. Write your answer as a decimal rounded to the nearest hundredth.",
        "What does the boy pay? Express your answer as a common fraction in lowest terms. Write your answer as a "
        "decimal rounded to the nearest hundredth.",
        "boilerplate on the answer's form",
    ),
    (
        f"The equation of the {HYPERBOLA.format('shown below')} [asy] draw((-1,0)--(1,0)); [/asy]",
        "Let $F_1=(10,2)$ and $F_2=(-16,2)$. Then the set of points $P$ such that $|PF_1 - PF_2| = 24$ form a "
        f"hyperbola. The equation of this {HYPERBOLA.format('')}",
        "the text that goes with a figure",
    ),
]


@pytest.mark.parametrize(("training", "evaluation", "why"), DIFFERENT_PROBLEMS, ids=[c[2] for c in DIFFERENT_PROBLEMS])
def test_other_problems_that_share_many_words(training: str, evaluation: str, why: str) -> None:
    assert overlaps(training, evaluation) == overlaps(evaluation, training) == []


def many_questions(num: int, phrase: str) -> list[str]:
    """Questions that have nothing in common but the phrase."""
    rng = random.Random(0)
    return [" ".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=30)) + f" {phrase}" for _ in range(num)]


FRAME = "read the following problem with care and reply with one letter out of all those given and nothing else at all"


def test_a_phrase_of_several_evaluation_questions_does_not_count() -> None:
    questions = many_questions(MAX_EVALUATION_QUESTIONS + 1, FRAME)
    training = f"Which animal barks: {FRAME}"
    assert overlaps(training, *questions[:-1], min_share=0.1)
    assert overlaps(training, *questions, min_share=0.1) == []
    assert [o.kind for o in overlaps(questions[3], *questions)] == ["exact"]


def test_a_phrase_of_many_training_questions_does_not_count() -> None:
    questions = many_questions(MAX_TRAINING_QUESTIONS + 1, FRAME)
    evaluation = {"set": [{"problem": f"Which animal barks: {FRAME}"}]}
    few = find_overlaps([row(question, str(n)) for n, question in enumerate(questions[:-1])], evaluation)
    many = find_overlaps([row(question, str(n)) for n, question in enumerate(questions)], evaluation)
    assert (len(few), len(many)) == (MAX_TRAINING_QUESTIONS, 0)


def test_a_set_that_lists_each_question_many_times() -> None:
    found = overlaps(f"{TRAIN} Explain why.", *[TRAIN] * (MAX_EVALUATION_QUESTIONS + 1))
    assert [(o.kind, o.benchmark_id) for o in found] == [("ngram", "row 1")]


def test_a_question_that_many_sets_have_is_named_in_each() -> None:
    sets = {f"set {n}": [{"problem": TRAIN, "id": n}] for n in range(MAX_EVALUATION_QUESTIONS + 1)}
    reported = find_overlaps([row(f"{TRAIN} Explain why.")], sets)
    assert [(o.kind, o.benchmark, o.benchmark_id) for o in reported] == [
        ("ngram", name, str(rows[0]["id"])) for name, rows in sets.items()
    ]


def test_the_best_of_each_set_is_named() -> None:
    other_ending = TRAIN.replace("How many are left", "Find their number")
    sets = {
        "near": [{"question": other_ending, "id": 1}, {"question": f"{TRAIN} Why?", "id": 2}],
        "both": [{"prompt": f"{TRAIN} Why?", "id": 3}, row(TRAIN, id="4")],
        "far": [{"problem": "What is 7*8?"}],
        "same": [row(TRAIN, id="5")],
    }
    found = find_overlaps([row("Else?", "s"), row(TRAIN)], sets)
    assert {(o.id, o.benchmark, o.benchmark_id, o.kind) for o in found} == {
        ("t", "near", "2", "ngram"),
        ("t", "both", "4", "exact"),
        ("t", "same", "5", "exact"),
    }


def test_rows_are_read_one_by_one() -> None:
    def stream() -> Iterator[dict[str, Any]]:
        for n in range(100):
            yield row(f"What is {n}+1?", str(n))

    found = find_overlaps(stream(), {"set": iter([{"problem": "What is 7 + 1"}])})
    assert [o.id for o in found] == ["7"]


@pytest.mark.parametrize(
    ("options", "named"),
    [({"ngram": 0}, "ngram=0"), ({"min_share": 0.0}, "min_share=0.0"), ({"min_share": 1.5}, "min_share=1.5")],
)
def test_bad_numbers(options: dict[str, Any], named: str) -> None:
    with pytest.raises(UserError, match=named):
        overlaps("a", "b", **options)


def test_an_evaluation_row_without_a_question_is_named() -> None:
    with pytest.raises(UserError) as caught:
        find_overlaps([], {"set": [{"problem": "a"}, {"text": "b", "answer": "c"}]})
    message = str(caught.value)
    assert "\n" not in message and "set: row 2" in message and "text, answer" in message and "problem" in message


@given(st.text())
def test_normalizing_twice_changes_nothing(question: str) -> None:
    assert normalize(normalize(question)) == normalize(question)


QUESTIONS = st.text(st.characters(max_codepoint=0x7E, min_codepoint=0x20)).filter(normalize)


@given(QUESTIONS, st.randoms(use_true_random=False))
def test_a_question_overlaps_with_itself_in_other_case_and_blanks(question: str, rng: random.Random) -> None:
    other = "".join(c.swapcase() if rng.random() < 0.5 else c for c in question)
    other = "".join(c + " " * rng.randrange(3) if c.isspace() else c for c in f" {other} ")
    assert [o.kind for o in overlaps(question, other)] == ["exact"]


WORDS = st.lists(st.sampled_from(["let", "x", "y", "+", "=", "1", "2", "sin", "find", "the", "sum"]), max_size=30)


@given(WORDS, WORDS)
def test_an_alignment_is_symmetric_and_full_with_itself(first: list[str], second: list[str]) -> None:
    assert align(first, first).is_same_formula and align(first, first).share == (1.0 if first else 0.0)
    assert 0 <= align(first, second).share <= 1
    assert (align(first, second).share == 1) >= (first == second != [])


@given(QUESTIONS, st.lists(QUESTIONS, max_size=3))
def test_shares_are_shares(question: str, evaluation: list[str]) -> None:
    for overlap in overlaps(question, *evaluation, ngram=1, min_share=0.01):
        assert 0 < overlap.share <= 1
