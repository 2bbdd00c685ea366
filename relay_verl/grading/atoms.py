r"""Answers that are not split further: words, named sets, numerals with a base, formulas, matrices of formulas. Pure.

Each function returns None for tokens that are something else.
"""

from __future__ import annotations

import re

from relay_verl.grading.command_reader import read_expression
from relay_verl.grading.formula_tree import MINUS_ONE, Percentage, product
from relay_verl.grading.latex import Token, UnreadableError, letter_runs, matching, plain, words
from relay_verl.grading.splitting import split
from relay_verl.grading.values import Formula, Matrix, NamedSet, Numeral, Word

_BASES = {"two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9, "ten": 10}
_BASES |= {"eleven": 11, "twelve": 12, "sixteen": 16}
_SPELLED_BASE = re.compile(r"\(?(?:in )?base[ -]?(\w+)\)?", re.IGNORECASE)
_DIGITS = re.compile(r"-?[0-9A-Fa-f]*\d[0-9A-Fa-f]*(?:\.[0-9A-Fa-f]+)?")
_INDEXED_NAME = re.compile(r"[A-Fa-f]\d*")
_MATRIX = re.compile(r"\\begin\{(?:[pbB]?matrix|array|smallmatrix)\}")
_SHORT_FUNCTIONS = words("sin cos tan log exp max min gcd lcm")


def as_word(tokens: list[Token]) -> Word | None:
    r"""`\text{Evelyn}`, `\text{(C)}`, `no solution`."""
    if all(token.kind == "text" for token in tokens):
        text = " ".join(token.text for token in tokens).strip()
        return Word(re.sub(r"^\((.*)\)$", r"\1", text).strip(" .").casefold())
    runs = letter_runs(tokens)
    if len(runs) < 2 or not all(run[0].kind in ("letter", "text") or run[0].text in (r"\and", r"\or") for run in runs):
        return None
    words = [plain(run).removeprefix("\\") for run in runs]
    num_long = sum(len(word) > 2 and word not in _SHORT_FUNCTIONS for word in words)
    return Word(" ".join(words).casefold()) if num_long * 2 > len(words) else None


def as_named_set(tokens: list[Token]) -> NamedSet | None:
    spelled = plain(tokens)
    if spelled in (r"\emptyset", r"\{\}"):
        return NamedSet("empty")
    match = re.fullmatch(r"\\(?:mathbb\{?)?([RZNQC])\}?", spelled)
    return NamedSet(match[1]) if match else None


def as_numeral(tokens: list[Token]) -> Numeral | None:
    r"""`52_8`, `(52)_{8}`, `1A_{16}`, `52_{\text{eight}}`, `52_{(8)}`, `\text{1A}_{16}`, `52\text{ (base 8)}`."""
    spelled_base = _SPELLED_BASE.fullmatch(tokens[-1].text) if tokens[-1].kind == "text" else None
    if spelled_base:
        tokens = [*tokens[:-1], Token("sign", "_"), Token("text", spelled_base[1])]
    underscores = [index for index, token in enumerate(tokens) if token.text == "_" and token.kind == "sign"]
    if len(underscores) != 1:
        return None
    digits = re.sub(r"^\((.*)\)$", r"\1", re.sub("[{}]", "", plain(tokens[: underscores[0]])))
    below = re.sub(r"[(){}\s]|base", "", plain(tokens[underscores[0] + 1 :]))
    base = _BASES.get(below.casefold(), int(below) if below.isdecimal() and len(below) < 3 else None)
    if base is None or not _DIGITS.fullmatch(digits) or _INDEXED_NAME.fullmatch(digits):
        return None
    return Numeral(digits.upper().lstrip("0") or "0", base)


def as_formula(tokens: list[Token]) -> Formula:
    """The formula that the tokens are. Raises UnreadableError."""
    text = plain([token for token in tokens if token.text not in ("{", "}")])
    if tokens and tokens[-1].text == "%":  # of all of it: (12+\frac{1}{2})\%
        return Formula(Percentage(read_expression(tokens[:-1])), text)
    return Formula(read_expression(tokens), text)


def as_matrix(tokens: list[Token]) -> Matrix | None:
    """A matrix, also in parentheses or with a factor before it. Raises UnreadableError for what else has one."""
    start = next((index for index, token in enumerate(tokens) if token.text.startswith(r"\begin{")), None)
    if start is None:
        return None
    if not _MATRIX.match(tokens[start].text):
        raise UnreadableError("an environment that is not a matrix")
    end = matching(tokens, start)
    factor, inner, behind = tokens[:start], tokens[start + 1 : end], tokens[end + 1 :]
    if tokens[start].text == r"\begin{array}" and inner[:1] and inner[0].text == "{":
        inner = inner[matching(inner, 0) + 1 :]
    if factor and factor[-1].text in ("(", "[") and behind and behind[0].text in (")", "]"):
        factor, behind = factor[:-1], behind[1:]
    if behind:
        raise UnreadableError("a formula behind a matrix")
    if factor and factor[-1].text == "*":
        factor = factor[:-1]
    scale = MINUS_ONE if plain(factor) == "-" else read_expression(factor) if factor else None
    rows = []
    for row in split(inner, ["\\\\"])[0]:
        if row:  # the last row may end with a line break, too
            cells = [as_formula(cell) for cell in split(row, ["&"])[0]]
            rows.append(tuple(Formula(product(scale, cell.node), cell.text) if scale else cell for cell in cells))
    if not rows or any(len(row) != len(rows[0]) for row in rows):
        raise UnreadableError("a matrix with rows of several lengths")
    return Matrix(tuple(rows))
