r"""Sets of real numbers that answers spell as intervals, unions, points or inequalities. Pure.

Invariant: an inequality is read only in its solved form, a variable (or its absolute value) between numbers. `x^2<4` is
a question and not its answer.
"""

from __future__ import annotations

from typing import Any

from mpmath import mp

from relay_verl.grading.exact import UnevaluableError
from relay_verl.grading.formula_tree import Call, Name, Node, Number, Product, names_of
from relay_verl.grading.identity import real_value
from relay_verl.grading.real_pieces import (
    EVERYTHING,
    INFINITY,
    End,
    NotASetError,
    Piece,
    RealSet,
    are_same_pieces,
    complement,
    intersection,
    mirrored,
    union,
)
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

_FLIPPED = {"<": ">", ">": "<", r"\le": r"\ge", r"\ge": r"\le", "=": "=", r"\ne": r"\ne"}


def is_same_set(one: Value, other: Value) -> bool | None:
    """Whether two answers are the same set of real numbers; None if one of them is not such a set."""
    try:
        return are_same_pieces(set_of(one), set_of(other))
    except (NotASetError, UnevaluableError):
        return None


def set_of(value: Value) -> RealSet:
    match value:
        case NamedSet(text="R"):
            return EVERYTHING
        case NamedSet(text="empty"):
            return ()
        case Brackets():
            return _interval(value)
        case Braces():
            return union(tuple(_point(item) for item in value.items))
        case Formula():
            return (_point(value),)
        case Combination(operator="union"):
            return union(tuple(piece for part in value.parts for piece in set_of(part)))
        case Combination(operator="intersection"):
            return intersection([set_of(part) for part in value.parts])
        case Combination():
            first, *others = (set_of(part) for part in value.parts)
            return intersection([first, *(complement(other) for other in others)])
        case Relation():
            return _from_relation(value)
        case Alternatives():
            return union(tuple(piece for part in value.parts for piece in set_of(part)))
        case Conditions():
            return intersection([set_of(part) for part in value.parts])
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
    result = intersection(sets) if len(sets) > 1 else sets[0]
    return mirrored(result) if isinstance(variable.node, Call) else result


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
