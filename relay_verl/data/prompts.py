r"""The text around a question: what this package puts there, and what datasets of others have there. Pure.

Invariant: `unwrap(wrap(question))` is the question, without the blanks around it.

Paper: RelayLLM (arXiv 2601.05167), appendix C.1: the question, a line break, and PROMPT_SUFFIX. The same prompt serves
training and evaluation.
"""

from __future__ import annotations

import re
import string
from collections.abc import Sequence

PROMPT_SUFFIX = "Please reason step by step, and put your final answer within \\boxed{}."
"""What the paper's prompt says after the question (C.1)."""

LETTERS = string.ascii_uppercase
"""Names of options, in order; no question has more options than letters."""

_SOLVE = "Solve the following math problem step by step. The last line of your response should be of the form "
_REMEMBER = 'Remember to put your answer on its own line after "Answer:"'

WRAPPERS: tuple[tuple[str, str], ...] = (
    ("", PROMPT_SUFFIX),  # Qwen2.5-Math, DeepSeek-R1, TTRL and the paper
    (f"{_SOLVE}Answer: $Answer (without quotes) where $Answer is the answer to the problem.", f"{_REMEMBER}."),  # DAPO
    # slime's copy of DAPO-Math-17k, with and without what stands behind the question
    (f"{_SOLVE}Answer: \\boxed{{$Answer}} where $Answer is the answer to the problem.", f"{_REMEMBER}."),
    (f"{_SOLVE}Answer: \\boxed{{$Answer}} where $Answer is the answer to the problem.", ""),
    # verl's preprocessing: MATH and DeepScaleR, GSM8K, Geometry3K
    ("", "Let's think step by step and output the final answer within \\boxed{}."),
    ("", 'Let\'s think step by step and output the final answer after "####".'),
    (
        "",
        "You FIRST think about the reasoning process as an internal monologue and then provide the final answer. The "
        "reasoning process MUST BE enclosed within <think> </think> tags. The final answer MUST BE put in \\boxed{}.",
    ),
    # simple-evals: MATH, and the questions that it shares with lighteval's GPQA
    (
        f"{_SOLVE}Answer: $ANSWER (without quotes) where $ANSWER is the answer to the problem.",
        f"{_REMEMBER}, and you do not need to use a \\boxed command.",
    ),
    (
        "Answer the following multiple choice question. The last line of your response should be of the following "
        "format: 'Answer: $LETTER' (without quotes) where LETTER is one of ABCD. Think step by step before answering.",
        "",
    ),
    # Inspect
    (
        f'{_SOLVE}"ANSWER: $ANSWER" (without quotes) where $ANSWER is the answer to the problem.',
        'Remember to put your answer on its own line at the end in the form "ANSWER: $ANSWER" (without quotes) where '
        "$ANSWER is the answer to the problem, and you do not need to use a \\boxed command.\n\nReasoning:",
    ),
    # lighteval and Open-R1; then Llama 3's, which search-and-learn has, too
    (
        "Solve the following math problem efficiently and clearly. The last line of your response should be of the "
        "following format: 'Therefore, the final answer is: $\\boxed{ANSWER}$. I hope it is correct' (without quotes) "
        "where ANSWER is just the final number or expression that solves the problem. Think step by step before "
        "answering.",
        "",
    ),
    (
        "Solve the following math problem efficiently and clearly:\n\n- For simple problems (2 steps or fewer):\n"
        "Provide a concise solution with minimal explanation.\n\n- For complex problems (3 steps or more):\n"
        "Use this step-by-step format:\n\n## Step 1: [Concise description]\n[Brief explanation and calculations]\n\n"
        "## Step 2: [Concise description]\n[Brief explanation and calculations]\n\n...\n\nRegardless of the approach, "
        "always conclude with:\n\nTherefore, the final answer is: $\\boxed{answer}$. I hope it is correct.\n\n"
        "Where [answer] is just the final number or expression that solves the problem.",
        "",
    ),
    # OpenMathInstruct and NeMo-Skills
    ("Solve the following math problem. Make sure to put the answer (and only answer) inside \\boxed{}.", ""),
    ("", "Present the answer in LaTex format: \\boxed{Your answer}"),  # Eurus-2-RL-Data
    ("Return your final response within \\boxed{}.", ""),  # OpenThoughts
    ("", "Return your final response within \\boxed{}."),
)
"""Known prompts: what stands before the question and what after it."""

_INSTRUCTION = re.compile(
    r"Solve the following math problem|Answer:\s*\$Answer|Remember to put your answer|final answer (with)?in \\boxed",
    re.IGNORECASE,
)


class UnknownWrapperError(ValueError):
    """A prompt holds instructions that WRAPPERS does not list; the one-line message quotes it."""


def wrap(question: str) -> str:
    """The paper's prompt for a question."""
    return f"{question.strip()}\n{PROMPT_SUFFIX}"


def with_options(question: str, options: Sequence[str]) -> str:
    """A multiple-choice question: the question, its options as lettered lines, and what the answer is.

    The paper (C.1) has no prompt of its own for multiple choice. This is ours: PROMPT_SUFFIX asks for the answer in a
    box, and the line before it says that the answer is a letter.

    >>> print(with_options("7*8?", ["54", "56"]))
    7*8?
    A. 54
    B. 56
    The answer is the letter of one of the options.
    """
    lines = [f"{letter}. {option.strip()}" for letter, option in zip(LETTERS, options, strict=False)]
    return "\n".join([question.strip(), *lines, "The answer is the letter of one of the options."])


def strip_wrapper(text: str) -> str:
    r"""The text without the known wrappers around it, and without blanks around; text in no known wrapper is kept.

    Case and blanks inside an instruction do not matter, nor does its last stop. It must stand alone: at the text's
    start or end, and on its own line or as its own sentence. A text with several is stripped of all of them, so that
    `strip_wrapper(strip_wrapper(text)) == strip_wrapper(text)`.

    >>> strip_wrapper(wrap("What is 7*8?")), strip_wrapper("What is 7*8?")
    ('What is 7*8?', 'What is 7*8?')
    >>> strip_wrapper("What is 7*8? Let's think step by step and output the final answer within \\boxed{}.")
    'What is 7*8?'
    """
    text = text.strip()
    while (question := _strip_once(text)) is not None:
        text = question
    return text


def _strip_once(text: str) -> str | None:
    """What is inside the first wrapper that is around the text; None if none is."""
    for before, after in _PATTERNS:
        start, end = 0, len(text)
        if before is not None:
            if (match := before.match(text)) is None:
                continue
            start = match.end()
        if after is not None:
            if (match := after.search(text, start)) is None or not _ends_sentence(text[start : match.start()]):
                continue
            end = match.start()
        return text[start:end].strip()
    return None


def _ends_sentence(question: str) -> bool:
    """Whether what follows is a sentence of its own, and nothing that the question quotes or introduces."""
    shown = question.rstrip()
    is_on_its_own_line = "\n" in question[len(shown) :]
    is_apart = question != shown or not shown[-1:].isalnum()
    return not shown or is_on_its_own_line or (is_apart and shown[-1] not in ":\"'`“‘«(")


def _pattern_of(instruction: str, *, is_before: bool) -> re.Pattern[str] | None:
    if not instruction:
        return None
    words = map(re.escape, instruction.removesuffix(".").split())
    spelled = r"\s+".join(words).replace(r"\\boxed", r"\\{1,2}boxed")
    spelled = spelled.replace("'", "['’]").replace('"', '["“”]')
    if not is_before:
        return re.compile(rf"{spelled}\.?\s*\Z", re.IGNORECASE)
    # Without its stop the sentence may continue, unless the line ends.
    stop = r"\.(?!\w)" if instruction.endswith(".") else r"(?!\w)"
    return re.compile(rf"{spelled}(?:{stop}|(?=\s*\n|\s*\Z))", re.IGNORECASE)


_PATTERNS = tuple(
    (_pattern_of(before, is_before=True), _pattern_of(after, is_before=False)) for before, after in WRAPPERS
)


def unwrap(text: str, *, should_have_wrapper: bool) -> str:
    """The question in a prompt.

    should_have_wrapper: whether a text in no known wrapper is an error, rather than a bare question.

    Raises:
        UnknownWrapperError: the wrapper is none of WRAPPERS, or instructions are left next to the question.
    """
    question = strip_wrapper(text)
    is_bare = question == text.strip()
    if _INSTRUCTION.search(question) or (is_bare and should_have_wrapper and question):
        raise UnknownWrapperError(f"the text around the question is not known: {quote(text)}")
    return question


def quote(text: str, max_chars: int = 160) -> str:
    """Both ends of a text, in quotes and without line breaks."""
    half = max_chars // 2
    return repr(text) if len(text) <= max_chars else f"{text[:half]!r} ... {text[-half:]!r}"
