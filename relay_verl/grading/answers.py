r"""Where a response's answer is: the last box, a choice's letter, a stated choice; and what stands around it. Pure.

Invariant: every function takes time linear in its text, whatever the text is.
"""

from __future__ import annotations

import re

_BOX_OR_BRACE = re.compile(r"\\{1,2}boxed\s*\{|\\[\\{}]|[{}]")
_LATEX_COMMAND = re.compile(r"\\[A-Za-z]+")
_CHOICE = re.compile(  # 'B', '(B)', 'B.', 'B) text', '{(B)}\ 12', 'Option B'
    r"[\s{(\[$*]*(?:(?i:option|choice|answer)\b\s{0,8}:?[\s{(\[$*]{0,8})?([A-Za-z])(?=[\s$*]*(?:$|[)\].:}]))"
)
_STATED_CHOICE = re.compile(  # every repetition is bounded, which keeps the search linear
    r"(?i:answer)[\s*_]{0,8}(?:(?i:is)\b|:)[\s*_:$]{0,8}(?:(?i:option|choice)[\s*_$]{0,8})?"
    r"(?:\\(?:text|textbf|mathrm|mathbf)\{)?(?:\(([A-Za-z])\)|[(\[]?([A-Z])(?![A-Za-z0-9'’]))"
    r"(?![\s)\]*_$}]{0,8}(?:or\b|/)[\s(\[*_$]{0,8}[A-Za-z](?![A-Za-z]))"  # 'A or B' is no choice
)
_DELIMITERS = (("$$", "$$"), ("$", "$"), (r"\(", r"\)"), (r"\[", r"\]"))


def last_boxed(text: str) -> str | None:
    r"""Content of the last complete, non-empty `\boxed{...}`, without surrounding blanks; None if there is none.

    >>> last_boxed(r"\boxed{1} \boxed{\frac{2}{3}} \boxed{} \boxed{4")
    '\\frac{2}{3}'
    """
    last: tuple[int, str] | None = None
    opened: list[int] = []  # where the content of each open brace starts; -1 for a brace that is no box
    for match in _BOX_OR_BRACE.finditer(text, max(0, text.find(r"\boxed") - 1)) if r"\boxed" in text else ():
        token = match[0]
        if token == "}":
            start = opened.pop() if opened else -1
            if start >= 0 and (last is None or start > last[0]) and (content := text[start : match.start()].strip()):
                last = start, content
        elif token == "{":
            opened.append(-1)
        elif token.endswith("{") and len(token) > 2:
            opened.append(match.end())
    return last[1] if last else None


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
