r"""A command never changes a verdict: whoever judges a response reads it without its commands (design invariant 8)."""

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relay_verl.grading import Grader, Verdict, VerdictStatus, grade
from relay_verl.protocol import format_call, strip_attempted_calls
from tests.helpers.grading_cases import CASES

COMMANDS = st.one_of(
    st.integers(min_value=0, max_value=10**12).map(format_call),  # served, n = 0 or past a limit: the text is the same
    st.sampled_from(
        [
            "<call> 20\n</call>",
            "<call></call>",
            "<call>x</call>",
            "<call>-3</call>",
            "<call>2.5</call>",
            "<call>20 tokens</call>",
            "<call>４２</call>",
            "<call>" + "9" * 40 + "</call>",
        ]
    ),
)
JUDGED = [(case.response, case.ground_truth, case.kind) for case in CASES if len(case.response) < 200] + [
    (r"So it is \boxed{17.5} minutes.", "17.5", "math"),
    (r"\boxed{yes, no, yes}", "yes,no, yes", "text"),
    (r"Hence \boxed{(B)} holds", "B", "choice"),
    ("The answer is (C).", "C", "choice"),
]
"""Real shapes of responses, with boxes and without, of every kind."""


@pytest.fixture(scope="module")
def grader() -> Iterator[Grader]:
    with Grader(timeout_s=30.0, num_workers=1) as grader:
        yield grader


def insert(text: str, commands: list[tuple[float, str]]) -> str:
    """`text` with each command at its share of the way through the text."""
    places = sorted(((round(share * len(text)), command) for share, command in commands), reverse=True)
    for place, command in places:
        text = text[:place] + command + text[place:]
    return text


PLACES = st.lists(st.tuples(st.floats(min_value=0, max_value=1), COMMANDS), min_size=1, max_size=4)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(JUDGED), PLACES)
def test_the_verdict_is_that_of_the_response_without_commands(
    grader: Grader, case: tuple[str, str, Any], commands: list[tuple[float, str]]
) -> None:
    response, truth, kind = case
    assert grader.grade(insert(response, commands), truth, kind) == grader.grade(response, truth, kind)


@settings(max_examples=300, deadline=None)
@given(st.text(st.sampled_from(list("<>/cal0142{}\\x \n")), max_size=40), PLACES)
def test_inserted_commands_leave_no_trace_in_any_text(text: str, commands: list[tuple[float, str]]) -> None:
    assert strip_attempted_calls(insert(text, commands)) == strip_attempted_calls(text)


EVERY_PLACE = r"Then \boxed{-12.5} follows"


@pytest.mark.parametrize("place", range(len(EVERY_PLACE) + 1))
@pytest.mark.parametrize("command", ["<call>5</call>", "<call>five</call>", "<call>5</call><call>300</call>"])
def test_a_command_at_each_place_of_a_response(place: int, command: str) -> None:
    response = EVERY_PLACE[:place] + command + EVERY_PLACE[place:]
    assert grade(response, "-12.5") == Verdict(True, "-12.5", VerdictStatus.GRADED)
    assert not grade(response, "-12.6").is_correct


@pytest.mark.parametrize(
    ("text", "stripped", "why"),
    [
        (r"\boxed{<call>5</call>42}", r"\boxed{42}", "inside the box"),
        (r"\boxed<call>5</call>{42}", r"\boxed{42}", "between the box and its brace"),
        (r"\bo<call>5</call>xed{42}", r"\boxed{42}", "inside the command's name"),
        ("<ca<call>1</call>ll>20</call>", "", "a command that appears once another one is gone"),
        ("<call>20</ca<call>x</call>ll>", "", "the same for its closing tag"),
        (r"<call>\boxed{42}</call>", r"\boxed{42}", "an answer between tags is the response's own"),
        ("<call>" + "so the sum is then 42 " * 5 + "</call>", "so the sum is then 42 " * 5, "words between tags"),
        ("4</call>2<call>", "42", "tags without a partner"),
        ("<call>" + "1" * 5000 + "</call>", "", "a number of any length"),
        ("a<b and b>c", "a<b and b>c", "relations are not tags"),
    ],
    ids=lambda value: value[:30],
)
def test_what_goes_and_what_stays(text: str, stripped: str, why: str) -> None:
    assert strip_attempted_calls(text) == stripped, why


@pytest.mark.parametrize("text", ["</call>" * 50_000, "<call>" * 50_000, "<call>x</call>" * 50_000, ">" * 500_000])
def test_a_text_full_of_tags_is_read_in_linear_time(text: str) -> None:
    assert strip_attempted_calls(text) in ("", text)


# ---- several accepted answers ----


@pytest.mark.parametrize(
    ("response", "truths", "is_correct"),
    [
        (r"\boxed{0.5}", ["1/3", "1/2"], True),
        (r"\boxed{7}", ["7", "8"], True),
        (r"\boxed{7, 8}", ["7", "8"], False),
        (r"\boxed{9}", ["7", "8"], False),
        (r"\boxed{9}", ("9",), True),
    ],
)
def test_one_of_several_accepted_answers_is_enough(response: str, truths: Any, is_correct: bool) -> None:
    verdict = grade(response, truths)
    assert (verdict.is_correct, verdict.status) == (is_correct, VerdictStatus.GRADED)


def test_without_an_accepted_answer_there_is_no_judgement() -> None:
    assert grade(r"\boxed{9}", []).status == VerdictStatus.ERROR
    assert grade(r"\boxed{9}", ["", "8"]).status == VerdictStatus.ERROR  # the empty one could have been right
    assert grade(r"\boxed{8}", ["", "8"]).is_correct
    assert grade("no box", ["7", "8"]).status == VerdictStatus.NO_ANSWER
