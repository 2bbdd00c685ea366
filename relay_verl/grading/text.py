r"""Are two answers the same text? For benchmarks whose answers are words, letters and lists, not mathematics. Pure.

The rules are those of BIG-Bench Extra Hard's own evaluation (google-deepmind/bbeh, `evaluate.py`): case, bold, blanks
behind commas, closing stops and question marks, apostrophes, and brackets around the whole do not count, `(b)` is `b`,
and numbers are compared as numbers. Order counts: `yes, no` is not `no, yes`. The empty list `[]` is an answer; a truth
without any text is not, and nothing is equal to it.

Departures: marks and brackets are taken off both sides, in any order, where the official rule allows one of a kind on
one side; and the answer stands in a `\boxed{}`, so LaTeX around words (`\text{yes}`, `50\%`) is taken off both sides.
"""

from __future__ import annotations

import re

_TEXT_COMMAND = re.compile(r"\\(?:text|textbf|textit|texttt|textrm|mathrm|mathbf|mathit|mathtt)\s*\{([^{}]*)\}")
_ESCAPED = re.compile(r"\\([%$&#_{} ])")
_BRACKETED = re.compile(r"\[(.*)\]")
_LETTER = re.compile(r"\((.)\)")


def is_same_text(answer: str, ground_truth: str) -> bool:
    r"""Whether an answer, given without its box, is the ground truth.

    >>> is_same_text(r"\text{Yes, no}", "yes,no"), is_same_text("B", "(B)"), is_same_text("no, yes", "yes, no")
    (True, True, False)
    """
    answer, ground_truth = _normalize(answer), _normalize(ground_truth)
    return bool(ground_truth) and (answer == ground_truth or _is_same_number(answer, ground_truth))


def _normalize(text: str) -> str:
    text = _ESCAPED.sub(r"\1", _TEXT_COMMAND.sub(r"\1", text)).strip()
    if len(text) > 1 and text.startswith("$") and text.endswith("$"):
        text = text[1:-1]
    text = " ".join(text.replace("**", "").replace("'", "").lower().split())
    text = _drop_marks(re.sub(r" ?, ?", ",", text))
    letter = _LETTER.fullmatch(text)
    return letter[1] if letter else text


def _drop_marks(text: str) -> str:
    """The text without what closes or surrounds it, as long as some text is left: `[He cried.]` is `He cried`."""
    text = text.strip()
    inner = text.rstrip(".? ")
    if bracketed := _BRACKETED.fullmatch(inner):
        inner = bracketed[1].strip().rstrip(".? ") or "[]"
    return inner or re.sub(r"\s", "", text)


def _is_same_number(one: str, other: str) -> bool:
    try:
        return float(one) == float(other)
    except ValueError:
        return False
