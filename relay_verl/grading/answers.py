r"""Where a response's answer is: the last box, a choice's letter, a stated choice; and what stands around it. Pure.

Invariant: every function takes time linear in its text, whatever the text is.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

MAX_GAP_CHARS = 60
"""Longest text between two boxes that is looked at for a joining word."""

_BOX_OR_BRACE = re.compile(r"\\{1,2}boxed\s*\{|\\[\\{}]|[{}]")
_LATEX_COMMAND = re.compile(r"\\[A-Za-z]+")
_CHOICE = re.compile(  # 'B', '(B)', 'B.', 'B) text', '{(B)}\ 12', 'Option B'
    r"[\s{(\[$*]*(?:(?i:option|choice|answer)\b\s{0,8}:?[\s{(\[$*]{0,8})?([A-Za-z])(?=[\s$*]*(?:$|[)\].:}]))"
)
_STATED_CHOICE = re.compile(  # every repetition is bounded, which keeps the search linear
    r"(?i:answer)[\s*_]{0,8}(?:(?i:is)\b|:)[\s*_:$]{0,8}(?:(?i:option|choice)[\s*_$]{0,8})?"
    r"(?:\\(?:text|textbf|mathrm|mathbf)\{)?(?:\(([A-Za-z])\)|[(\[]?([A-Z])(?![A-Za-z0-9'’]))"
    r"(?![\s)\]*_$}]{0,8}(?:or\b|/)[\s(\[*_$]{0,8}[A-Za-z](?![A-Za-z]))"  # 'A or B' chooses nothing
)
_BETWEEN_BOXES = re.compile(  # what only delimits formulas, and the commands around a joining word
    r"\$|\\[()\[\],;:! ]|\\q?quad(?![A-Za-z])|\\(?:text|mathrm|textrm|mbox)\s*\{\s*(?=(?:,|and|or)[\s,]*\})|[{}*~]"
)
_NAME_BEFORE_BOX = re.compile(r"(?<![A-Za-z])[A-Za-z](?:_(?:\w|\{\w{1,8}\}))?\s*=\s*$")  # 'and $x_2 = \boxed{...'
_DELIMITERS = (("$$", "$$"), ("$", "$"), (r"\(", r"\)"), (r"\[", r"\]"))


def last_boxed(text: str) -> str | None:
    r"""Content of the last complete, non-empty `\boxed{...}`, without surrounding blanks; None if there is none.

    >>> last_boxed(r"\boxed{1} \boxed{\frac{2}{3}} \boxed{} \boxed{4")
    '\\frac{2}{3}'
    """
    boxes = _boxes(text)
    return boxes[-1].content if boxes else None


def boxed_answer(text: str, *, is_truth: bool = False) -> str | None:
    r"""The last box, or the last boxes as one list, where a comma, `and` or `or` is all that joins them.

    A response that boxes one solution at a time means all of them, and one that offers `\boxed{2}` or `\boxed{3}` has
    not decided: in both cases the last box alone is not the answer. Words between two boxes end the list. Boxes of a
    truth (`is_truth`) are joined also where nothing stands between them. Repeated boxes count once.

    >>> boxed_answer(r"Thus $\boxed{-2}$ and $\boxed{1}$."), boxed_answer(r"\boxed{4}, so the sum is \boxed{9}")
    ('-2, 1', '9')
    """
    boxes = _boxes(text)
    if not boxes:
        return None
    contents, joiners = [boxes[-1].content], list[str]()
    for box, following in zip(boxes[-2::-1], boxes[:0:-1], strict=True):
        gap = text[box.end : following.begin]
        joiner = _joiner(gap, is_truth=is_truth) if len(gap) <= MAX_GAP_CHARS else None
        if joiner is None:
            break
        if box.content != contents[0]:
            contents.insert(0, box.content)
            joiners.insert(0, joiner)
    return contents[0] + "".join(joiner + content for joiner, content in zip(joiners, contents[1:], strict=True))


def _joiner(gap: str, *, is_truth: bool) -> str | None:
    """How the text between two boxes joins them; None if it does not."""
    words = _BETWEEN_BOXES.sub(" ", _NAME_BEFORE_BOX.sub("", gap)).replace(",", " , ").replace(";", " , ").split()
    if not set(words) <= {",", "and", "or"} or not (words or is_truth):
        return None
    return r" \text{ or } " if "or" in words else ", "


@dataclass(frozen=True)
class _Box:
    begin: int
    end: int
    content: str


def _boxes(text: str) -> list[_Box]:
    """Complete, non-empty boxes in their order; of nested ones the innermost that opens last."""
    boxes: list[_Box] = []
    opened: list[tuple[int, int]] = []  # of each open brace: where its box begins, or -1, and where its content starts
    last_start = -1
    for match in _BOX_OR_BRACE.finditer(text, max(0, text.find(r"\boxed") - 1)) if r"\boxed" in text else ():
        token = match[0]
        if token == "}":
            begin, start = opened.pop() if opened else (-1, -1)
            # A box that opens before the last one encloses it. Each character is stripped at most once.
            if begin >= 0 and start > last_start and (content := text[start : match.start()].strip()):
                boxes.append(_Box(begin, match.end(), content))
                last_start = start
        elif token == "{":
            opened.append((-1, -1))
        elif token.endswith("{") and len(token) > 2:
            opened.append((match.start(), match.end()))
    return boxes


def choice_letter(text: str) -> str | None:
    match = _CHOICE.match(_LATEX_COMMAND.sub("", text))
    return match[1].upper() if match else None


def stated_choice(response: str) -> str | None:
    letter = None
    for match in _STATED_CHOICE.finditer(response):
        letter = (match[1] or match[2]).upper()
    return letter


def trim(text: str) -> str:
    r"""The text without the blanks, math delimiters and closing punctuation around it.

    >>> trim(r" $\frac{1}{2}$. ")
    '\\frac{1}{2}'
    """
    text = _drop_closing_punctuation(text)
    for opening, closing in _DELIMITERS:
        inner = text[len(opening) : -len(closing)].strip()
        if text.startswith(opening) and text.endswith(closing) and inner and "$" not in inner:
            text = inner
    return _drop_closing_punctuation(text)


def _drop_closing_punctuation(text: str) -> str:
    text = text.strip()
    while text.endswith((".", ",", ";")) and not text.endswith((r"\right.", r"\,", r"\;")):
        text = text[:-1].rstrip()
    return text
