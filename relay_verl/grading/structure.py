r"""What kind of thing an answer is: a formula, a list, a pair, an interval, a relation, a matrix, a word. Pure.

`read` splits an answer at its outermost level, again and again, until formulas are left:

    x=1 \text{ or } x=\pm 2     Listing of Relations: x=1, x=2, x=-2
    (\pm 1, 2)                  Listing of two Brackets
    1<x<2 \text{ or } x>3       Alternatives of Relations
    \{x \mid 2<x<5\}            the Relation behind the bar

A truth that `read` refuses is right only in its own spelling.
"""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass, replace
from typing import Literal

from relay_verl.grading.expressions import (
    CLOSERS,
    MINUS_ONE,
    OPENERS,
    Name,
    Node,
    Scaled,
    matching,
    product,
    read_expression,
)
from relay_verl.grading.latex import Token, UnreadableError, letter_runs, plain, tokenize

MAX_NUM_SIGNS = 4
"""Most plus-minus signs of one item; each doubles the values."""
MAX_DEPTH = 20


@dataclass(frozen=True)
class Value:
    """An answer."""


@dataclass(frozen=True)
class Formula(Value):
    """A number or an expression."""

    node: Node
    text: str
    """Without blanks, to compare it with a word."""


@dataclass(frozen=True)
class Word(Value):
    r"""Text: `\text{Evelyn}`, `no solution`. Capitals say nothing."""

    text: str


@dataclass(frozen=True)
class Numeral(Value):
    """Digits with their base: `52_8`."""

    digits: str
    base: int


@dataclass(frozen=True)
class Ratio(Value):
    """`1:2:3`, or a time of day."""

    terms: tuple[Value, ...]
    text: str


@dataclass(frozen=True)
class Listing(Value):
    """Values with nothing around them: their order does not count, repetitions do."""

    items: tuple[Value, ...]
    is_choice: bool = False
    """Whether they are joined by `or` throughout: one value in several spellings is then one value."""


@dataclass(frozen=True)
class Braces(Value):
    """A finite set: neither order nor repetitions count."""

    items: tuple[Value, ...]


@dataclass(frozen=True)
class Brackets(Value):
    """A tuple, a vector or, with two items, an interval."""

    items: tuple[Value, ...]
    opening: str
    closing: str


@dataclass(frozen=True)
class Matrix(Value):
    """Rows of formulas."""

    rows: tuple[tuple[Formula, ...], ...]


@dataclass(frozen=True)
class NamedSet(Value):
    r"""`R`, `Z`, `N`, `Q`, `C`, or `empty`."""

    text: str


@dataclass(frozen=True)
class Combination(Value):
    r"""`A \cup B`, `A \cap B`, `A \setminus B`."""

    operator: Literal["union", "intersection", "difference"]
    parts: tuple[Value, ...]


@dataclass(frozen=True)
class Relation(Value):
    r"""A chain of sides and the signs between them: `=`, `<`, `\le`, `>`, `\ge`, `\ne`, `\in`."""

    sides: tuple[Value, ...]
    operators: tuple[str, ...]
    name: str | None = None
    """The first side, if it only names what the others say: `x`, `f(x)`, `AB`, `(p,q)`, `V_1:V_2`."""


@dataclass(frozen=True)
class Alternatives(Value):
    """Inequalities joined by `or`."""

    parts: tuple[Value, ...]


@dataclass(frozen=True)
class Conditions(Value):
    """Inequalities joined by `and`."""

    parts: tuple[Value, ...]


_JOINERS = frozenset([r"\or", r"\and", ";", ","])
_RELATIONS = {"=": "=", ":=": "=", "<": "<", ">": ">"} | {sign: sign for sign in (r"\le", r"\ge", r"\ne", r"\in")}
_NOT_COMPARED = frozenset(
    r"\equiv \pmod \to \mapsto \rightarrow \Rightarrow \implies \iff \Leftrightarrow \sim \cong \subset \subseteq"
    r" \supset \notin \forall \exists \dots \int \iint \oint \lim \ll \gg \propto \perp \parallel \neg \mod \bmod".split()
)
_SETS = {"R": "R", "Z": "Z", "N": "N", "Q": "Q", "C": "C"}
_OPENING = frozenset(["(", "[", r"\{", r"\langle"])
_CLOSING = frozenset([")", "]", r"\}", r"\rangle"])
_BASES = {"two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9, "ten": 10}
_BASES |= {"eleven": 11, "twelve": 12, "sixteen": 16}
_THOUSANDS = re.compile(r"[+-]?[1-9]\d{0,2}(?:,\d{3})+(?:\.\d+)?")
_DECIMAL_COMMA = re.compile(r"[+-]?0,\d+")
_SPELLED_BASE = re.compile(r"\(?(?:in )?base[ -]?(\w+)\)?", re.IGNORECASE)
_MATRIX = re.compile(r"\\begin\{([pbBvV]?matrix|array|smallmatrix)\}")


def read(text: str) -> Value:
    r"""The answer's value. Raises UnreadableError.

    >>> read("52_8"), read(r"\text{east}")
    (Numeral(digits='52', base=8), Word(text='east'))
    """
    tokens = tokenize(text)
    if not tokens:
        raise UnreadableError("nothing to read")
    if tokens[0].text == r"\approx":  # says that the truth is rounded
        tokens = tokens[1:]
    try:
        return _read(tokens, 0)
    except RecursionError as error:
        raise UnreadableError("too deeply nested") from error


def _read(tokens: list[Token], depth: int) -> Value:
    if depth > MAX_DEPTH:
        raise UnreadableError("too deeply nested")
    tokens = _without_group(tokens)
    if not tokens:
        raise UnreadableError("nothing to read")
    word = _as_word(tokens)
    if word is not None:
        return word
    if any(token.text in _NOT_COMPARED for token in tokens if token.kind == "command"):
        raise UnreadableError("a sign that is not compared")
    spelled = plain(tokens)
    if _THOUSANDS.fullmatch(spelled) and not any(token.is_spaced for token in tokens[1:]):
        return replace(_formula(tokenize(spelled.replace(",", ""))), text=spelled)
    elif _DECIMAL_COMMA.fullmatch(spelled):
        tokens = tokenize(spelled.replace(",", "."))
    if any(_at_top(tokens, _JOINERS)):
        return _read_listing(tokens, depth)
    return _read_item(tokens, depth)


# ---- splitting ----


def _levels(tokens: list[Token]) -> list[int]:
    """How many brackets are open at each token; a bracket counts as outside of itself."""
    levels, level = [], 0
    for token in tokens:
        text = token.text if token.kind != "text" else ""
        if text in CLOSERS or text.startswith(r"\end{"):
            level -= 1
            if level < 0:
                raise UnreadableError("a bracket that was not opened")
        levels.append(level)
        if text in OPENERS or text.startswith(r"\begin{"):
            level += 1
    if level:
        raise UnreadableError("a bracket that does not close")
    return levels


def _at_top(tokens: list[Token], signs: frozenset[str]) -> list[int]:
    """Where one of the signs stands outside all brackets."""
    return [
        index
        for index, (token, level) in enumerate(zip(tokens, _levels(tokens), strict=True))
        if level == 0 and token.text in signs and token.kind != "text"
    ]


def _split(tokens: list[Token], signs: frozenset[str]) -> tuple[list[list[Token]], list[str]]:
    positions = _at_top(tokens, signs)
    bounds = [-1, *positions, len(tokens)]
    parts = [tokens[start + 1 : end] for start, end in itertools.pairwise(bounds)]
    return parts, [tokens[position].text for position in positions]


def _without_group(tokens: list[Token]) -> list[Token]:
    """The tokens without braces around all of them."""
    while len(tokens) > 1 and tokens[0].text == "{" and matching(tokens, 0) == len(tokens) - 1:
        tokens = tokens[1:-1]
    return tokens


def _is_wrapped(tokens: list[Token]) -> bool:
    is_bracket = len(tokens) > 1 and tokens[0].text in _OPENING and tokens[-1].text in _CLOSING
    return is_bracket and matching(tokens, 0) == len(tokens) - 1


# ---- lists ----


def _read_listing(tokens: list[Token], depth: int) -> Value:
    groups, joiners = _split(tokens, frozenset([r"\or", r"\and", ";"]))
    groups = [group for group in groups if group and plain(group).strip(",")]
    split_groups = [
        [part for part in _split(group, frozenset([","]))[0] if part] for group in groups
    ]
    items = [[_read_item(part, depth) for part in group] for group in split_groups]
    flat = [item for group in items for item in group]
    if not flat:
        raise UnreadableError("nothing but commas")
    if len(flat) == 1:
        return flat[0]
    if any(_is_inequality(item) for item in flat):
        return _joined_inequalities(items, joiners)
    if len(items) > 1 and all(len(group) == len(items[0]) > 1 for group in items):
        is_record = all(isinstance(item, Relation) and item.name for item in flat)
        if is_record or set(joiners) == {";"}:
            return Listing(tuple(Listing(tuple(group)) if is_record else Brackets(tuple(group), "(", ")") for group in items))
    flat = _without_declarations(flat)
    if len(flat) == 1:
        return flat[0]
    return Listing(tuple(_flatten(_with_shared_name(flat))), is_choice=set(joiners) == {r"\or"} and len(items) == len(flat))


def _is_inequality(value: Value) -> bool:
    if isinstance(value, Alternatives | Conditions):
        return True
    return isinstance(value, Relation) and any(sign not in ("=", r"\in") for sign in value.operators)


def _joined_inequalities(items: list[list[Value]], joiners: list[str]) -> Value:
    r"""`x<1 \text{ or } x>2` and `x>1 \text{ and } x<2`; with commas, nobody says which is meant."""
    flat = [item for group in items for item in group]
    signs = set(joiners)
    if all(len(group) == 1 for group in items) and signs in ({r"\or"}, {r"\and"}):
        if not all(_is_inequality(item) or isinstance(item, Relation) for item in flat):
            raise UnreadableError("an inequality joined to something else")
        return Alternatives(tuple(flat)) if signs == {r"\or"} else Conditions(tuple(flat))
    return Listing(tuple(flat))


def _without_declarations(items: list[Value]) -> list[Value]:
    r"""`k\pi, k \in \mathbb{Z}`: the second item says what k is, and is no second value."""
    rest = [item for item in items if not (isinstance(item, Relation) and item.operators == (r"\in",) and _is_set(item.sides[1]))]
    return rest or items


def _is_set(value: Value) -> bool:
    return isinstance(value, NamedSet) and value.text in ("Z", "N")


def _with_shared_name(items: list[Value]) -> list[Value]:
    """`n=1, 2, 3` is three values of n."""
    first = items[0]
    if not (isinstance(first, Relation) and first.name and first.operators == ("=",)):
        return items
    if any(isinstance(item, Relation) for item in items[1:]):
        return items
    return [first, *(Relation((first.sides[0], item), ("=",), first.name) for item in items[1:])]


def _flatten(items: list[Value]) -> list[Value]:
    flat: list[Value] = []
    for item in items:
        flat.extend(item.items if isinstance(item, Listing) else [item])
    return flat


# ---- one item ----


def _read_item(tokens: list[Token], depth: int) -> Value:
    tokens = _without_group(tokens)
    if not tokens:
        raise UnreadableError("an empty item")
    if any(_at_top(tokens, _JOINERS)):
        return _read(tokens, depth + 1)
    word = _as_word(tokens)
    if word is not None:
        return word
    is_set = _is_wrapped(tokens) and tokens[0].text == r"\{"
    if not is_set and any(token.text in (r"\pm", r"\mp") for token in tokens):
        variants = _with_signs(tokens)
        return Listing(tuple(_flatten([_read_item(variant, depth + 1) for variant in variants])))
    relation = _read_relation(tokens, depth)
    if relation is not None:
        return relation
    for signs, operator in (
        (r"\setminus", "difference"),
        (r"\cup", "union"),
        (r"\cap", "intersection"),
    ):
        parts, operators = _split(tokens, frozenset([signs]))
        if operators:
            values = tuple(_read_item(part, depth + 1) for part in parts)
            return Combination(operator, values)  # type: ignore[arg-type]
    named = _as_named_set(tokens)
    if named is not None:
        return named
    numeral = _as_numeral(tokens)
    if numeral is not None:
        return numeral
    if _is_wrapped(tokens):
        return _read_wrapped(tokens, depth)
    matrix = _as_matrix(tokens)
    if matrix is not None:
        return matrix
    parts, colons = _split(tokens, frozenset([":"]))
    if colons:
        return Ratio(tuple(_formula(part) for part in parts), plain(tokens))
    return _formula(tokens)


def _formula(tokens: list[Token]) -> Formula:
    text = plain([token for token in tokens if token.text not in ("{", "}")])
    if tokens and tokens[-1].text == "%":  # of all of it: 12\\frac{1}{2}\\%
        return Formula(Scaled("%", read_expression(tokens[:-1])), text)
    return Formula(read_expression(tokens), text)


def _with_signs(tokens: list[Token]) -> list[list[Token]]:
    r"""The item with plus and with minus for each `\pm`; if `\mp` occurs, all signs change together."""
    positions = [index for index, token in enumerate(tokens) if token.text in (r"\pm", r"\mp")]
    if len(positions) > MAX_NUM_SIGNS:
        raise UnreadableError("too many plus-minus signs")
    is_linked = any(token.text == r"\mp" for token in tokens)
    choices = [("+",) * len(positions), ("-",) * len(positions)]
    variants = []
    for signs in choices if is_linked else itertools.product("+-", repeat=len(positions)):
        variant = list(tokens)
        for position, sign in zip(positions, signs, strict=True):
            is_opposite = tokens[position].text == r"\mp"
            variant[position] = Token("sign", "+-"["-+".index(sign)] if is_opposite else sign)
        variants.append(variant)
    return variants


def _read_wrapped(tokens: list[Token], depth: int) -> Value:
    opening, closing, inner = tokens[0].text, tokens[-1].text, tokens[1:-1]
    if opening == r"\{" and closing == r"\}":
        return _read_set(inner, depth)
    if opening == r"\langle" and closing == r"\rangle":
        opening, closing = "(", ")"
    parts = [part for part in _split(inner, frozenset([",", ";"]))[0]]
    if len(parts) > 1:
        if not all(parts):
            raise UnreadableError("an empty item")
        return Brackets(tuple(_read_item(part, depth + 1) for part in parts), opening, closing)
    if opening == "(" and closing == ")":
        return _read(inner, depth + 1)
    if opening == "[" and closing == "]":
        return Brackets((_read(inner, depth + 1),), opening, closing) if inner else Brackets((), opening, closing)
    raise UnreadableError("a bracket around one value")


def _read_set(inner: list[Token], depth: int) -> Value:
    if not inner:
        return NamedSet("empty")
    head, bars = _split(inner, frozenset([r"\mid", ":", "|"]))
    if bars:
        # A set builder is its condition; what stands before the bar must be the variable alone.
        if len(head) != 2 or not head[0] or not head[1]:
            raise UnreadableError("a set builder with several bars")
        variable = _split(head[0], frozenset([r"\in"]))
        is_real = len(variable[0]) == 1 or plain(variable[0][1]) in (r"\mathbb{R}", r"\mathbf{R}", r"\R", "R")
        if len(letter_runs(variable[0][0])) != 1 or not is_real:
            raise UnreadableError("a set builder of more than a variable")
        condition = _read(head[1], depth + 1)
        names = {plain(variable[0][0])}
        if not _is_condition_on(condition, names):
            raise UnreadableError("a set builder whose condition is not an inequality of its variable")
        return condition
    items = [_read_item(part, depth + 1) for part in _split(inner, frozenset([",", ";"]))[0] if part]
    return Braces(tuple(_flatten(items)))


def _is_condition_on(value: Value, names: set[str]) -> bool:
    if isinstance(value, Alternatives | Conditions):
        return all(_is_condition_on(part, names) for part in value.parts)
    if not isinstance(value, Relation):
        return False
    return any(isinstance(side, Formula) and side.text.strip("|") in names for side in value.sides)


# ---- relations ----


def _read_relation(tokens: list[Token], depth: int) -> Value | None:
    tokens = _without_approximation(tokens)
    sides, signs = _split(tokens, frozenset(_RELATIONS))
    if not signs:
        return None
    if not sides[-1]:
        raise UnreadableError("a relation without a right side")
    values: list[Value] = [_read_side(sides[0], depth), *(_read_item(side, depth + 1) for side in sides[1:])]
    operators = tuple(_RELATIONS[sign] for sign in signs)
    # x = 1 or x = 2 from x = \pm 1 was expanded before; a set or a list on the right is a value of its own
    return Relation(tuple(values), operators, _name_of(sides[0], values[0]))


def _read_side(tokens: list[Token], depth: int) -> Value:
    r"""The first side of a relation, which may be words: `\text{Smallest } n = 50`."""
    if not tokens:
        raise UnreadableError("a relation without a left side")
    try:
        return _read_item(tokens, depth + 1)
    except UnreadableError:
        if any(token.kind == "number" for token in tokens):
            raise
        return Word(plain(tokens))


def _without_approximation(tokens: list[Token]) -> list[Token]:
    r"""`x = 1/3 \approx 0.33` is x = 1/3, and `x \approx 11` is x = 11."""
    parts, signs = _split(tokens, frozenset([r"\approx"]))
    if not signs:
        return tokens
    first = parts[0]
    if not first or (len(letter_runs(first)) == 1 and first[0].kind == "letter"):
        return [*first, Token("sign", "="), *parts[1]] if first else parts[1]
    return first


def _name_of(tokens: list[Token], value: Value) -> str | None:
    spelled = plain(tokens)
    if isinstance(value, Word):
        return spelled.casefold()
    if isinstance(value, Formula) and isinstance(value.node, Name):
        return value.node.text
    if isinstance(value, Brackets) and all(isinstance(i, Formula) and isinstance(i.node, Name) for i in value.items):
        return spelled
    if isinstance(value, Ratio) and not re.search(r"(?<![_{\d])\d", spelled):
        return spelled
    # A length, an angle, a sum or a quotient of names: AB, |AB|, \angle ABC, m+n, \frac{V}{\pi}.
    if isinstance(value, Formula) and not any(token.kind == "number" and not _is_subscript(tokens, n) for n, token in enumerate(tokens)):
        if not {token.text for token in tokens} & {"-", "^", "!"}:
            return spelled
    return None


def _is_subscript(tokens: list[Token], index: int) -> bool:
    before = [token.text for token in tokens[max(0, index - 2) : index]]
    return before[-1:] == ["_"] or before == ["_", "{"]


# ---- words, sets, numerals, matrices ----


def _as_word(tokens: list[Token]) -> Value | None:
    r"""`\text{Evelyn}`, `\text{(C)}`, `no solution`; None for a formula. Raises for words among a formula."""
    if all(token.kind == "text" for token in tokens):
        text = " ".join(token.text for token in tokens).strip()
        text = re.sub(r"^\((.*)\)$", r"\1", text).strip(" .")
        return Word(text.casefold())
    runs = letter_runs(tokens)
    if all(run[0].kind in ("letter", "text") or run[0].text in ("'", "-", r"\and", r"\or") for run in runs):
        words = [plain(run) for run in runs]
        long_words = [word for word in words if len(word) > 2 and word not in ("sin", "cos", "tan", "log", "exp", "max", "min")]
        if len(words) > 1 and len(long_words) * 2 >= len(words) and not any(len(run) == 1 and run[0].text in "-'" for run in runs):
            return Word(" ".join(words).replace("\\", "").casefold())
    return None


def _as_named_set(tokens: list[Token]) -> NamedSet | None:
    spelled = plain(tokens)
    if spelled in (r"\emptyset", r"\{\}"):
        return NamedSet("empty")
    match = re.fullmatch(r"\\(?:mathbb\{?)?([RZNQC])\}?", spelled)
    return NamedSet(match[1]) if match else None


def _as_numeral(tokens: list[Token]) -> Numeral | None:
    r"""`52_8`, `(52)_{8}`, `1A_{16}`, `52_{\text{eight}}`, `52_{(8)}`, `\text{1A}_{16}`."""
    spelled_base = _SPELLED_BASE.fullmatch(tokens[-1].text) if tokens[-1].kind == "text" else None
    if spelled_base:  # '52\\text{ (base 8)}'
        tokens = [*tokens[:-1], Token("sign", "_"), Token("text", spelled_base[1])]
    underscores = [index for index, token in enumerate(tokens) if token.text == "_" and token.kind == "sign"]
    if len(underscores) != 1:
        return None
    digits = re.sub(r"^\((.*)\)$", r"\1", re.sub("[{}]", "", plain(tokens[: underscores[0]])))
    below = re.sub(r"[(){}\s]|base", "", plain(tokens[underscores[0] + 1 :]))
    base = _BASES.get(below.casefold(), int(below) if below.isdecimal() and len(below) < 3 else None)
    if base is None or not re.fullmatch(r"-?[0-9A-Fa-f]*\d[0-9A-Fa-f]*(?:\.[0-9A-Fa-f]+)?", digits):
        return None
    if re.fullmatch(r"[A-Fa-f]\d*", digits):  # a_1 is a name
        return None
    return Numeral(digits.upper().lstrip("0") or "0", base)


def _as_matrix(tokens: list[Token]) -> Matrix | None:
    starts = [index for index, token in enumerate(tokens) if token.text.startswith(r"\begin{")]
    if not starts:
        return None
    start = starts[0]
    if len(starts) > 1 or not _MATRIX.match(tokens[start].text) or tokens[start].text == r"\begin{vmatrix}":
        raise UnreadableError("an environment that is not one matrix")
    end = matching(tokens, start)
    inner = tokens[start + 1 : end]
    if tokens[start].text == r"\begin{array}" and inner[:1] and inner[0].text == "{":
        inner = inner[matching(inner, 0) + 1 :]
    factor = tokens[:start]
    behind = tokens[end + 1 :]
    if factor and factor[-1].text in ("(", "[") and behind and behind[0].text in (")", "]"):
        factor, behind = factor[:-1], behind[1:]
    if behind:
        raise UnreadableError("a formula behind a matrix")
    if factor and factor[-1].text == "*":
        factor = factor[:-1]
    scale = MINUS_ONE if plain(factor) == "-" else read_expression(factor) if factor else None
    rows = []
    for row in _split(inner, frozenset(["\\\\"]))[0]:
        if row:
            cells = [_formula(cell) for cell in _split(row, frozenset(["&"]))[0]]
            rows.append(tuple(Formula(product(scale, cell.node), cell.text) if scale else cell for cell in cells))
    if not rows or any(len(row) != len(rows[0]) for row in rows):
        raise UnreadableError("a matrix with rows of several lengths")
    return Matrix(tuple(rows))
