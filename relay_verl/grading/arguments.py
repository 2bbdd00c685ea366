r"""The arguments of LaTeX commands, put into the braces that TeX lets a writer leave out. Pure.

Invariant: takes time linear in the text, at any depth of braces, and changes nothing but braces, blanks in front of an
argument, and the parentheses in `\sqrt(x)` and `2^(x)`, which become braces.

Departures from TeX, each what writers mean: `2^10` is `2^{10}`, `\sqrt12` is `\sqrt{12}`.
"""

from __future__ import annotations

import re

_TOKEN = re.compile(
    r"\\[A-Za-z]+\s*|\\.|\s+|[0-9]+(?:\.[0-9]+)?|.",
    re.DOTALL,
)
_NUM_ARGUMENTS = {r"\frac": 2, r"\binom": 2, r"\sqrt": 1, "^": 1, "_": 1}
_FONTS = frozenset(
    rf"\{name}" for name in ("text", "mathrm", "mathbf", "mathbb", "mathcal", "overline", "operatorname")
)
_SYNONYMS = {
    r"\dfrac": r"\frac",
    r"\tfrac": r"\frac",
    r"\cfrac": r"\frac",
    r"\dbinom": r"\binom",
    r"\tbinom": r"\binom",
    r"\lbrace": r"\{",
    r"\rbrace": r"\}",
}
_CLOSING = {"{": "}", "(": ")", "[": "]"}
_OPENING = {closing: opening for opening, closing in _CLOSING.items()}
_NO_ARGUMENT = frozenset("}])&=<>,;+*/") | {r"\\", r"\}"}

Atom = list["str | Atom"]
"""A token, or tokens that belong together: nested lists, so that no text is copied at each depth."""


def brace_arguments(text: str) -> str:
    r"""The text with braces around each argument of `\frac`, `\binom`, `\sqrt`, `^` and `_`.

    >>> brace_arguments(r"\frac{a+1}c"), brace_arguments(r"\frac12x"), brace_arguments(r"2^\frac12")
    ('\\frac{a+1}{c}', '\\frac{1}{2}x', '2^{\\frac{1}{2}}')
    """
    tokens = [_spell(token) for token in _TOKEN.findall(text)]
    partners = _partners(tokens)
    # From the right: what follows a command is complete when the command is reached, however deep it is.
    rows: list[list[Atom]] = [[]]  # of each open group, its atoms, the last one first
    for position in range(len(tokens) - 1, -1, -1):
        token = tokens[position]
        if token in _OPENING and position in partners:
            rows.append([])
        elif token in _CLOSING and position in partners:
            inside = rows.pop()
            rows[-1].append([token, *reversed(inside), _CLOSING[token]])
        elif token.rstrip() in _NUM_ARGUMENTS:
            previous = tokens[position - 1].rstrip() if position else ""
            rows[-1].append(_with_arguments(token, rows[-1], is_digit_only=previous in (r"\frac", r"\log")))
        elif token.rstrip() in _FONTS and rows[-1] and len(rows[-1][-1]) > 1 and rows[-1][-1][0] == "{":
            rows[-1].append([token.rstrip(), rows[-1].pop()])
        else:
            rows[-1].append([token])
    return _flatten(rows[0])


def _spell(token: str) -> str:
    return _SYNONYMS.get(token.rstrip(), token)


def _partners(tokens: list[str]) -> set[int]:
    """Where the brackets are that have a partner of their own kind. Intervals such as `[0,1)` have none."""
    opened: list[int] = []
    partners: set[int] = set()
    for position, token in enumerate(tokens):
        if token in _CLOSING:
            opened.append(position)
        elif token in _OPENING:
            if token == "}":  # a brace closes whatever was left open inside it
                while opened and tokens[opened[-1]] != "{":
                    opened.pop()
            if opened and tokens[opened[-1]] == _OPENING[token]:
                partners |= {opened.pop(), position}
            elif opened and tokens[opened[-1]] != "{":
                opened.pop()
    return partners


def _with_arguments(command: str, following: list[Atom], *, is_digit_only: bool) -> Atom:
    """The command with its arguments, which are taken from what follows it; without braces where one is missing."""
    name = command.rstrip()
    taken: list[Atom] = []
    result: Atom = [name]
    if name == r"\sqrt":
        _skip_blanks(following)
        if following and following[-1][0] == "[":  # the index of a root
            result.append(following.pop())
    for _ in range(_NUM_ARGUMENTS[name]):
        argument = _take_argument(name, following, is_digit_only=is_digit_only)
        if argument is None:
            following.extend(reversed(taken))
            return [command]
        taken.append(argument)
    for argument in taken:
        result.extend([argument] if argument[0] == "{" else ["{", argument, "}"])
    return result


def _take_argument(name: str, following: list[Atom], *, is_digit_only: bool) -> Atom | None:
    _skip_blanks(following)
    sign: list[Atom] = []
    if name == "^" and len(following) > 1 and following[-1] in (["-"], ["+"]):
        sign = [following.pop()]
    if not following or following[-1][0] in _NO_ARGUMENT or following[-1] in (["{"], ["("], ["-"]):
        following.extend(sign)
        return None
    atom = following.pop()
    first = atom[0]
    if first == "(" and name in (r"\sqrt", "^"):
        atom = ["{", *atom[1:-1], "}"]
    elif isinstance(first, str) and first[0].isdigit() and (is_digit_only or name in (r"\frac", r"\binom")):
        if len(first) > 1:  # of a number of several digits, TeX takes the first one
            following.append([first[1:]])
        atom = [first[0]]
    return [*sign, atom] if sign else atom


def _skip_blanks(following: list[Atom]) -> None:
    while following and isinstance(following[-1][0], str) and following[-1][0].isspace():
        following.pop()


def _flatten(row: list[Atom]) -> str:
    """The text of a row whose last atom is the first."""
    texts: list[str] = []
    pending: list[str | Atom] = list(row)
    while pending:
        item = pending.pop()
        if isinstance(item, str):
            texts.append(item)
        else:
            pending.extend(reversed(item))
    return "".join(texts)
