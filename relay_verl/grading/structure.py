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
from typing import Literal

from relay_verl.grading.atoms import as_formula, as_matrix, as_named_set, as_numeral, as_word
from relay_verl.grading.formula_tree import Name
from relay_verl.grading.latex import Token, UnreadableError, letter_runs, plain, tokenize, words
from relay_verl.grading.naming import as_parameters
from relay_verl.grading.splitting import at_top, is_wrapped, split, without_group
from relay_verl.grading.values import (
    Alternatives,
    Braces,
    Brackets,
    Combination,
    Conditions,
    Formula,
    Listing,
    NamedSet,
    Ratio,
    Relation,
    Value,
    Word,
)

MAX_NUM_SIGNS = 4
"""Most plus-minus signs of one item; each doubles the values."""
MAX_DEPTH = 20
"""Most lists and brackets inside one another."""

_JOINERS = (r"\or", r"\and", ";", ",")
_RELATIONS = ("=", "<", ">", r"\le", r"\ge", r"\ne", r"\in")
_SET_OPERATORS: tuple[tuple[str, Literal["union", "intersection", "difference"]], ...] = (
    (r"\setminus", "difference"),
    (r"\cup", "union"),
    (r"\cap", "intersection"),
)
_NOT_COMPARED = words(
    r"\equiv \pmod \to \mapsto \rightarrow \Rightarrow \implies \iff \Leftrightarrow \sim \cong \subset \subseteq "
    r"\supset \notin \forall \exists \dots \int \iint \oint \lim \ll \gg \propto \perp \parallel \neg \mod \bmod"
)
_THOUSANDS = re.compile(r"[+-]?[1-9]\d{0,2}(?:,\d{3})+(?:\.\d+)?")
_DECIMAL_COMMA = re.compile(r"[+-]?0,\d{3}")
_NOT_IN_NAMES = frozenset(["-", "^", "!", "%"])


def read(text: str) -> Value:
    r"""The answer's value. Raises UnreadableError.

    >>> read("52_8"), read(r"\text{east}")
    (Numeral(digits='52', base=8), Word(text='east'))
    """
    tokens = tokenize(text)
    if tokens and tokens[0].text == r"\approx":  # says that the truth is rounded
        tokens = tokens[1:]
    if any(token.text in _NOT_COMPARED for token in tokens if token.kind == "command"):
        raise UnreadableError("a sign that is not compared")
    spelled = plain(tokens)
    if not any(token.is_spaced for token in tokens[1:]):
        if _DECIMAL_COMMA.fullmatch(spelled):
            tokens = tokenize(spelled.replace(",", "."))
        elif _THOUSANDS.fullmatch(spelled):
            tokens = tokenize(spelled.replace(",", ""))
    return _read(tokens, 0)


def _read(tokens: list[Token], depth: int) -> Value:
    """An item, or a list of them."""
    if depth > MAX_DEPTH:
        raise UnreadableError("too deeply nested")
    tokens = without_group(tokens)
    if not tokens:
        raise UnreadableError("nothing to read")
    return as_word(tokens) or (_read_listing if at_top(tokens, _JOINERS) else _read_item)(tokens, depth)


# ---- lists ----


def _read_listing(tokens: list[Token], depth: int) -> Value:
    groups, joiners = split(tokens, (r"\or", r"\and", ";"))
    items = [[_read(part, depth + 1) for part in split(group, ",")[0] if part] for group in groups]
    items = [group for group in items if group]  # '1, 2, and 3'
    flat = [item for group in items for item in group]
    if len(flat) < 2:
        raise UnreadableError("a comma without values around it")
    if any(map(_is_inequality, flat)):
        return _joined_inequalities(items, joiners)
    if len(items) > 1 and all(len(group) == len(items[0]) > 1 for group in items):
        if all(isinstance(item, Relation) and item.name for item in flat):  # 'x=1,y=2;x=3,y=4'
            return Listing(tuple(Listing(tuple(group)) for group in items))
        if set(joiners) == {";"}:  # '1,2;3,4'
            return Listing(tuple(Brackets(tuple(group), "(", ")") for group in items))
    flat = _flatten(_with_shared_name(as_parameters(flat)))
    is_choice = set(joiners) == {r"\or"} and len(items) == len(flat)
    return Listing(tuple(flat), is_choice) if len(flat) > 1 else flat[0]


def _is_inequality(value: Value) -> bool:
    is_relation = isinstance(value, Relation) and any(sign not in ("=", r"\in") for sign in value.operators)
    return is_relation or isinstance(value, Alternatives | Conditions)


def _joined_inequalities(items: list[list[Value]], joiners: list[str]) -> Value:
    r"""`x<1 \text{ or } x>2` and `x>1 \text{ and } x<2`; commas do not say whether both hold."""
    flat = tuple(item for group in items for item in group)
    if len(items) == len(flat) and len(set(joiners)) == 1 and joiners[0] != ";":
        if not all(isinstance(item, Relation | Alternatives | Conditions) for item in flat):
            raise UnreadableError("an inequality joined to something else")
        return Alternatives(flat) if joiners[0] == r"\or" else Conditions(flat)
    return Listing(flat)


def _with_shared_name(items: list[Value]) -> list[Value]:
    """`n=1, 2, 3` is three values of n."""
    first = items[0]
    is_shared = isinstance(first, Relation) and first.name and first.operators == ("=",)
    if not is_shared or any(isinstance(item, Relation) for item in items[1:]):
        return items
    assert isinstance(first, Relation)
    return [first, *(Relation((first.sides[0], item), ("=",), first.name) for item in items[1:])]


def _flatten(items: list[Value]) -> list[Value]:
    """The items, with those that plus-minus signs made of one."""
    return [part for item in items for part in (item.items if isinstance(item, Listing) else (item,))]


# ---- one item ----


def _read_item(tokens: list[Token], depth: int) -> Value:
    is_set = is_wrapped(tokens) and tokens[0].text == r"\{"
    if not is_set and any(token.text in (r"\pm", r"\mp") for token in tokens):
        return Listing(tuple(_flatten([_read(variant, depth + 1) for variant in _with_signs(tokens)])))
    relation = _read_relation(tokens, depth)
    if relation is not None:
        return relation
    for sign, operator in _SET_OPERATORS:
        parts, signs = split(tokens, [sign])
        if signs:
            return Combination(operator, tuple(_read(part, depth + 1) for part in parts))
    atom = as_named_set(tokens) or as_numeral(tokens)
    if atom is not None:
        return atom
    if is_wrapped(tokens):
        return _read_wrapped(tokens, depth)
    matrix = as_matrix(tokens)
    if matrix is not None:
        return matrix
    parts, colons = split(tokens, ":")
    return Ratio(tuple(map(as_formula, parts)), plain(tokens)) if colons else as_formula(tokens)


def _with_signs(tokens: list[Token]) -> list[list[Token]]:
    r"""The item with plus and with minus for each `\pm`; if `\mp` occurs, all signs change together."""
    positions = [index for index, token in enumerate(tokens) if token.text in (r"\pm", r"\mp")]
    if len(positions) > MAX_NUM_SIGNS:
        raise UnreadableError("too many plus-minus signs")
    is_linked = any(token.text == r"\mp" for token in tokens)
    linked = [("+",) * len(positions), ("-",) * len(positions)]
    variants = []
    for signs in linked if is_linked else itertools.product("+-", repeat=len(positions)):
        variant = list(tokens)
        for position, sign in zip(positions, signs, strict=True):
            is_opposite = tokens[position].text == r"\mp"
            variant[position] = Token("sign", {"+": "-", "-": "+"}[sign] if is_opposite else sign)
        variants.append(variant)
    return variants


def _read_wrapped(tokens: list[Token], depth: int) -> Value:
    opening, closing, inner = tokens[0].text, tokens[-1].text, tokens[1:-1]
    if (opening, closing) == (r"\{", r"\}"):
        return _read_set(inner, depth)
    if (opening, closing) == (r"\langle", r"\rangle"):
        opening, closing = "(", ")"
    if not inner:
        return Brackets((), opening, closing)
    parts, _ = split(inner, ",;")
    if len(parts) > 1:
        return Brackets(tuple(_read(part, depth + 1) for part in parts), opening, closing)
    if (opening, closing) == ("(", ")"):
        return _read(inner, depth + 1)
    if (opening, closing) == ("[", "]"):
        return Brackets((_read(inner, depth + 1),), opening, closing)
    raise UnreadableError("two brackets that do not belong together around one value")


def _read_set(inner: list[Token], depth: int) -> Value:
    for bar in (r"\mid", ":", "|"):
        parts, bars = split(inner, [bar])
        if bars:
            variable, *condition = parts
            behind = inner[len(variable) + 1 :] if bar == "|" else condition[0]
            if bar != "|" and len(bars) > 1:
                raise UnreadableError("a set builder with several bars")
            return _read_set_builder(variable, _read(behind, depth + 1))
    parts, _ = split(inner, ",;")
    return Braces(tuple(_flatten([_read(part, depth + 1) for part in parts])))


def _read_set_builder(head: list[Token], condition: Value) -> Value:
    """The condition, if it bounds the real variable that stands before the bar."""
    (variable, *domain), _ = split(head, [r"\in"])
    is_real = not domain or as_named_set(domain[0]) == NamedSet("R")
    if not is_real or len(letter_runs(variable)) != 1 or not _is_condition_on(condition, plain(variable)):
        raise UnreadableError("a set builder that is not an inequality of its real variable")
    return condition


def _is_condition_on(value: Value, variable: str) -> bool:
    if isinstance(value, Alternatives | Conditions):
        return all(_is_condition_on(part, variable) for part in value.parts)
    sides = value.sides if isinstance(value, Relation) else ()
    return any(isinstance(side, Formula) and side.text.strip("|") == variable for side in sides)


# ---- relations ----


def _read_relation(tokens: list[Token], depth: int) -> Value | None:
    tokens = _without_approximation(tokens)
    sides, signs = split(tokens, _RELATIONS)
    if not signs:
        return None
    values = (_read_left_side(sides[0], depth), *(_read(side, depth + 1) for side in sides[1:]))
    return Relation(values, tuple(signs), _name_of(sides[0], values[0]))


def _read_left_side(tokens: list[Token], depth: int) -> Value:
    """The first side of a relation, which may be words: the reader of formulas refuses those."""
    try:
        return _read(tokens, depth + 1)
    except UnreadableError:
        if not tokens or any(token.kind == "number" for token in tokens):
            raise
        return Word(plain(tokens))


def _without_approximation(tokens: list[Token]) -> list[Token]:
    r"""`x = 1/3 \approx 0.33` is x = 1/3, and `x \approx 11` is x = 11."""
    (first, *others), signs = split(tokens, [r"\approx"])
    if not signs:
        return tokens
    if not first:
        return others[0]
    is_name = len(letter_runs(first)) == 1 and first[0].kind == "letter"
    return [*first, Token("sign", "="), *others[0]] if is_name else first


def _name_of(tokens: list[Token], value: Value) -> str | None:
    r"""What the first side names: `x`, `f(x)`, `(p,q)`, `V_1:V_2`, `|AB|`, `\angle ABC`, `m+n`, `\frac{V}{\pi}`."""
    spelled = plain(tokens)
    if isinstance(value, Formula) and isinstance(value.node, Name):
        return value.node.text
    if isinstance(value, Word):
        return spelled.casefold()
    if isinstance(value, Brackets):
        is_tuple = all(isinstance(item, Formula) and isinstance(item.node, Name) for item in value.items)
        return spelled if is_tuple else None
    has_number = any(token.kind == "number" and not _is_subscript(tokens, n) for n, token in enumerate(tokens))
    is_name = isinstance(value, Formula | Ratio) and not has_number and not {t.text for t in tokens} & _NOT_IN_NAMES
    return spelled if is_name else None


def _is_subscript(tokens: list[Token], index: int) -> bool:
    before = [token.text for token in tokens[max(0, index - 2) : index]]
    return before[-1:] == ["_"] or before == ["_", "{"]
