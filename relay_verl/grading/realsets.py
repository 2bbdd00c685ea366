r"""Sets of real numbers that answers spell as intervals, unions, points or inequalities. Pure.

A set is a list of pieces. Where all ends are numbers, pieces that touch are joined (`[1,2]\cup[2,3]` is `[1,3]`),
and complements exist; sets whose ends are variables are compared piece by piece.

Invariant: an inequality is read only in its solved form, a variable (or its absolute value) between numbers. `x^2<4` is
a question and not its answer.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from mpmath import mp

from relay_verl.grading.exact import UnevaluableError
from relay_verl.grading.formula_tree import Call, Constant, Name, Node, Number, Product, names_of, negative
from relay_verl.grading.identity import is_equal, real_value
from relay_verl.grading.values import (
    Alternatives,
    Braces,
    Brackets,
    Combination,
    Conditions,
    Formula,
    NamedSet,
    Relation,
    Value,
)


class NotASetError(Exception):
    """The answer is not a set of real numbers that is read here."""


@dataclass(frozen=True)
class End:
    """One end of a piece."""

    node: Node
    key: Any
    """Its value, to order it by; None if it has variables."""
    is_closed: bool


@dataclass(frozen=True)
class Piece:
    """An interval; a point is one whose ends are the same and closed."""

    low: End
    high: End


RealSet = tuple[Piece, ...]
INFINITY = Constant("oo")
MINUS_INFINITY = negative(INFINITY)
EVERYTHING: RealSet = (Piece(End(MINUS_INFINITY, mp.ninf, False), End(INFINITY, mp.inf, False)),)
_FLIPPED = {"<": ">", ">": "<", r"\le": r"\ge", r"\ge": r"\le", "=": "=", r"\ne": r"\ne"}


def is_same_set(one: Value, other: Value) -> bool:
    """Whether two answers are the same set of real numbers. Raises NotASetError if one of them is none."""
    left, right = set_of(one), set_of(other)
    if _is_numeric(left) and _is_numeric(right):
        left, right = _union(left), _union(right)
        return len(left) == len(right) and all(map(_is_same_piece, left, right))
    rest = list(right)
    for piece in left:
        match = next((candidate for candidate in rest if _is_same_piece(piece, candidate)), None)
        if match is None:
            return False
        rest.remove(match)
    return not rest


def set_of(value: Value) -> RealSet:
    match value:
        case NamedSet(text="R"):
            return EVERYTHING
        case NamedSet(text="empty"):
            return ()
        case Brackets():
            return _interval(value)
        case Braces():
            return _union(tuple(_point(item) for item in value.items))
        case Formula():
            return (_point(value),)
        case Combination(operator="union"):
            return _union(tuple(piece for part in value.parts for piece in set_of(part)))
        case Combination(operator="intersection"):
            return _intersection([set_of(part) for part in value.parts])
        case Combination():
            first, *others = (set_of(part) for part in value.parts)
            return _intersection([first, *(_complement(other) for other in others)])
        case Relation():
            return _from_relation(value)
        case Alternatives():
            return _union(tuple(piece for part in value.parts for piece in set_of(part)))
        case Conditions():
            return _intersection([set_of(part) for part in value.parts])
    raise NotASetError


def variable_of(value: Value) -> str | None:
    """The variable that an inequality speaks of."""
    if isinstance(value, Alternatives | Conditions):
        names = {variable_of(part) for part in value.parts}
        return names.pop() if len(names) == 1 else None
    if not isinstance(value, Relation):
        return None
    variables = [_variable(side) for side in value.sides]
    position = 1 if len(variables) == 3 else next((n for n, name in enumerate(variables) if name), 0)
    return variables[position]


def _variable(side: Value) -> str | None:
    node = side.node if isinstance(side, Formula) else None
    if isinstance(node, Call) and node.function == "abs":
        node = node.arguments[0]
    return node.text if isinstance(node, Name) else None


def _key(node: Node) -> Any:
    if node == INFINITY:
        return mp.inf
    if _is_minus_infinity(node):
        return mp.ninf
    if names_of(node):
        return None
    try:
        return real_value(node)
    except UnevaluableError as error:
        raise NotASetError from error


def _is_minus_infinity(node: Node) -> bool:
    return (
        isinstance(node, Product)
        and node.factors[-1] == INFINITY
        and all(isinstance(factor, Number) and factor.value == -1 for factor in node.factors[:-1])
    )


def _end(value: Value, *, is_closed: bool) -> End:
    if not isinstance(value, Formula):
        raise NotASetError
    return End(value.node, _key(value.node), is_closed)


def _point(value: Value) -> Piece:
    end = _end(value, is_closed=True)
    return Piece(end, end)


def _interval(value: Brackets) -> RealSet:
    if len(value.items) != 2:
        raise NotASetError
    low = _end(value.items[0], is_closed=value.opening == "[")
    high = _end(value.items[1], is_closed=value.closing == "]")
    if low.key is not None and high.key is not None and not low.key < high.key:
        raise NotASetError  # (2,1) is a pair
    return (Piece(low, high),)


def _from_relation(relation: Relation) -> RealSet:
    if relation.operators == (r"\in",):
        return set_of(relation.sides[1])
    variables = [_variable(side) for side in relation.sides]
    position = 1 if len(variables) == 3 else next((n for n, name in enumerate(variables) if name), None)
    if position is None or variables[position] is None or len(variables) > 3:
        raise NotASetError
    variable = relation.sides[position]
    assert isinstance(variable, Formula)
    name = variables[position]
    sets = []
    for index, operator in enumerate(relation.operators):
        is_left = index + 1 == position  # the bound is on the left of the variable
        bound = relation.sides[index if is_left else index + 1]
        if index not in (position, position - 1) or not isinstance(bound, Formula) or name in names_of(bound.node):
            raise NotASetError
        sets.append(_half_line(_FLIPPED.get(operator, "") if is_left else operator, bound))
    result = _intersection(sets) if len(sets) > 1 else sets[0]
    return _mirrored(result) if isinstance(variable.node, Call) else result


def _half_line(operator: str, bound: Formula) -> RealSet:
    end = _end(bound, is_closed=operator in (r"\le", r"\ge", "="))
    low, high = EVERYTHING[0].low, EVERYTHING[0].high
    match operator:
        case "<" | r"\le":
            return (Piece(low, end),)
        case ">" | r"\ge":
            return (Piece(end, high),)
        case "=":
            return (Piece(end, end),)
        case r"\ne":
            return (Piece(low, end), Piece(end, high))
    raise NotASetError


def _mirrored(pieces: RealSet) -> RealSet:
    """Where |x| is in the set."""
    zero = End(Number(Fraction(0)), mp.zero, True)
    positive = _intersection([pieces, (Piece(zero, EVERYTHING[0].high),)])
    mirrored = tuple(Piece(_negative(piece.high), _negative(piece.low)) for piece in positive)
    return _union((*mirrored, *positive))


def _negative(end: End) -> End:
    return End(negative(end.node), -end.key, end.is_closed)


# ---- algebra ----


def _is_numeric(pieces: RealSet) -> bool:
    return all(end.key is not None for piece in pieces for end in (piece.low, piece.high))


def _is_near(one: Any, other: Any) -> bool:
    return one == other or (
        mp.isfinite(one) and mp.isfinite(other) and abs(one - other) <= abs(one) * mp.mpf(10) ** -45
    )


def _is_below(one: Any, other: Any) -> bool:
    return one < other and not _is_near(one, other)


def _union(pieces: RealSet) -> RealSet:
    """The pieces in their order, joined where they touch."""
    if not _is_numeric(pieces):
        return pieces
    joined: list[Piece] = []
    for piece in sorted(pieces, key=lambda piece: (piece.low.key, not piece.low.is_closed)):
        last = joined[-1] if joined else None
        if (
            last is None
            or _is_below(last.high.key, piece.low.key)
            or (_is_near(last.high.key, piece.low.key) and not (last.high.is_closed or piece.low.is_closed))
        ):
            joined.append(piece)
            continue
        low = last.low
        if _is_near(last.low.key, piece.low.key):
            low = End(low.node, low.key, low.is_closed or piece.low.is_closed)
        high = last.high
        if _is_near(high.key, piece.high.key):
            high = End(high.node, high.key, high.is_closed or piece.high.is_closed)
        elif _is_below(high.key, piece.high.key):
            high = piece.high
        joined[-1] = Piece(low, high)
    return tuple(joined)


def _complement(pieces: RealSet) -> RealSet:
    if not _is_numeric(pieces):
        raise NotASetError
    gaps: list[Piece] = []
    low = EVERYTHING[0].low
    for piece in _union(pieces):
        _add_piece(gaps, low, End(piece.low.node, piece.low.key, not piece.low.is_closed))
        low = End(piece.high.node, piece.high.key, not piece.high.is_closed)
    _add_piece(gaps, low, EVERYTHING[0].high)
    return tuple(gaps)


def _add_piece(pieces: list[Piece], low: End, high: End) -> None:
    is_point = _is_near(low.key, high.key) and low.is_closed and high.is_closed and mp.isfinite(low.key)
    if _is_below(low.key, high.key) or is_point:
        pieces.append(Piece(low, high))


def _intersection(sets: list[RealSet]) -> RealSet:
    if not all(map(_is_numeric, sets)):
        return _symbolic_interval(sets)
    return _complement(_union(tuple(piece for pieces in sets for piece in _complement(pieces))))


def _symbolic_interval(sets: list[RealSet]) -> RealSet:
    """`a<x<b` with letters for its ends: a half line to the right and one to the left."""
    if len(sets) == 2 and all(len(pieces) == 1 for pieces in sets):
        for one, other in (sets, sets[::-1]):
            if one[0].high.key == mp.inf and other[0].low.key == mp.ninf:
                return (Piece(one[0].low, other[0].high),)
    raise NotASetError


def _is_same_piece(one: Piece, other: Piece) -> bool:
    return all(
        left.is_closed == right.is_closed and _is_same_end(left, right)
        for left, right in ((one.low, other.low), (one.high, other.high))
    )


def _is_same_end(one: End, other: End) -> bool:
    if one.key is not None and not mp.isfinite(one.key):
        return one.key == other.key
    return is_equal(one.node, other.node)
