"""The instructions around questions: which are known, and where they are taken off."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay_verl.data.prompts import PROMPT_SUFFIX, WRAPPERS, strip_wrapper, unwrap, wrap

QUESTION = "What is $7 \\cdot 8$?"
VERL = "Let's think step by step and output the final answer within \\boxed{}."
KNOWN = [
    f"{QUESTION} {VERL}",
    f"{QUESTION}\n{VERL}",
    f"{QUESTION} {VERL.replace(chr(39), '’')}",
    f"{QUESTION} {VERL.removesuffix('.')}",
    f"{QUESTION}{VERL}",
    f'{QUESTION} Let\'s think step by step and output the final answer after "####".',
    f"{QUESTION}\nPlease reason step by step, and put your final answer within \\\\boxed{{}}.",
    f"{QUESTION}\n{PROMPT_SUFFIX}\n{PROMPT_SUFFIX}",
    f"{QUESTION} {VERL}\n{PROMPT_SUFFIX}",
    f"{QUESTION}\nplease  reason step by step,\nand put your final answer within \\boxed{{}}.",
    f"Return your final response within \\boxed{{}}. {QUESTION}",
    f"Return your final response within \\boxed{{}}\n{QUESTION}",
    f"{QUESTION}\n\nPresent the answer in LaTex format: \\boxed{{Your answer}}",
]


@pytest.mark.parametrize("text", KNOWN)
def test_known_instructions_are_taken_off(text: str) -> None:
    assert strip_wrapper(text) == QUESTION
    assert unwrap(text, should_have_wrapper=True) == QUESTION


@pytest.mark.parametrize(("before", "after"), WRAPPERS)
def test_each_wrapper_on_lines_of_its_own_or_on_the_questions(before: str, after: str) -> None:
    for separator in ("\n\n", "\n", " "):
        assert strip_wrapper(separator.join(filter(None, (before, QUESTION, after)))) == QUESTION


def test_the_papers_instruction_is_never_doubled() -> None:
    for text in KNOWN:
        assert wrap(strip_wrapper(text)).count(PROMPT_SUFFIX) == 1


KEPT = [
    f'What does "{PROMPT_SUFFIX}" ask for?',
    f"{VERL} is an instruction of verl. Who wrote it?",
    f"Translate into German: {VERL}",
    f'Complete the text "{VERL}',
    "Return your final response within \\boxed{} and only the letter. Which one is it?",
    "I say: please reason step by step",
    "What is 7*8? Explain your answer.",
]


@pytest.mark.parametrize("text", KEPT)
def test_an_instruction_that_does_not_stand_alone_is_kept(text: str) -> None:
    assert strip_wrapper(text) == text


@given(st.text(), st.sampled_from(WRAPPERS), st.sampled_from(WRAPPERS))
def test_stripping_twice_is_stripping_once(question: str, wrapper: tuple[str, str], outer: tuple[str, str]) -> None:
    text = f"{outer[0]}\n{wrapper[0]}\n{question}\n{wrapper[1]}\n{outer[1]}"
    assert strip_wrapper(text) == strip_wrapper(strip_wrapper(text)) == question.strip()
