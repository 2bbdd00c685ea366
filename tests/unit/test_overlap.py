"""Which training questions count as an evaluation set's, and why."""

import random
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay_verl.config import ConfigError
from relay_verl.data.overlap import MAX_QUESTIONS_PER_NGRAM, Overlap, find_overlaps, normalize
from relay_verl.data.schema import to_row

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
    ("Find the ﬁrst x²", "Find the first x2", "ligatures and exponents in Unicode"),
    ("Compute 5−3", "Compute 5-3", "the minus sign"),
    (r"The \textbf{area} of it", "The area of it", "fonts"),
    ("Compute 2x", "Compute 2 x", "a number before a letter"),
    ("STRASSE 1", "straße 1", "case beyond one letter"),
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
]


@pytest.mark.parametrize(("question", "evaluation", "why"), DIFFERENT, ids=[case[2] for case in DIFFERENT])
def test_short_questions_that_differ(question: str, evaluation: str, why: str) -> None:
    assert overlaps(question, evaluation) == []


NGRAM = [  # TRAIN has 25 words, so 13 runs
    (f"{TRAIN} Explain why.", 1.0, "words added behind"),
    (f"Consider this. {TRAIN}", 1.0, "words added in front"),
    (TRAIN.replace("How many are left", "Find their number"), 9 / 12, "another ending"),
    (TRAIN.replace("Friday", "Sunday"), 8 / 13, "one word near the end: the runs before it are shared"),
    (TRAIN.replace("Monday", "Sunday"), None, "one word in the middle breaks most runs"),
    (" ".join(TRAIN.split()[:13]), 1.0, "the shorter question is a part of it"),
    (" ".join(TRAIN.split()[:12]), None, "12 words, which are compared exactly only"),
    (" ".join(reversed(TRAIN.split())), None, "the same words in another order"),
]


@pytest.mark.parametrize(("evaluation", "share", "why"), NGRAM, ids=[case[2] for case in NGRAM])
def test_shared_runs(evaluation: str, share: float | None, why: str) -> None:
    found = overlaps(TRAIN, evaluation)
    assert [o.kind for o in found] == ["ngram"] * (share is not None)
    assert share is None or found[0].share == pytest.approx(share)


def test_a_phrase_that_many_questions_have_is_not_enough() -> None:
    phrase = "The answer is m over n where m and n are relatively prime positive integers, find m plus n"
    rng = random.Random(0)
    questions = [" ".join(str(rng.randrange(10**6)) for _ in range(30)) + " " + phrase for _ in range(2)]
    assert overlaps(questions[0], questions[1]) == []
    assert len(overlaps(questions[0], questions[1], min_share=0.1)) == 1


def test_instructions_of_a_benchmark_do_not_count() -> None:
    frame = "Read the following problem with care and reply with one letter out of A to J and nothing else at all."
    many = [f"{frame} Question {n}?" for n in range(MAX_QUESTIONS_PER_NGRAM + 1)]
    assert overlaps(f"{frame} Another one?", *many[:10])  # few have it: as far as one can tell, their text
    assert overlaps(f"{frame} Another one?", *many) == []
    assert [o.kind for o in overlaps(many[3], *many)] == ["exact"]


def test_a_set_that_lists_each_question_many_times() -> None:
    found = overlaps(f"{TRAIN} Explain why.", *[TRAIN] * (MAX_QUESTIONS_PER_NGRAM + 1))
    assert [(o.kind, o.benchmark_id) for o in found] == [("ngram", "row 1")]


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
    with pytest.raises(ConfigError, match=named):
        overlaps("a", "b", **options)


def test_an_evaluation_row_without_a_question_is_named() -> None:
    with pytest.raises(ConfigError) as caught:
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


@given(QUESTIONS, st.lists(QUESTIONS, max_size=3))
def test_shares_are_shares(question: str, evaluation: list[str]) -> None:
    for overlap in overlaps(question, *evaluation, ngram=1, min_share=0.01):
        assert 0 < overlap.share <= 1
