r"""Names that an answer may choose: the variable of a function that it defines, and integers that it declares. Pure.

- `f(t)=2t+1` is `f(x)=2x+1`, and `y=2x+1` is `f(x)=2x+1`; `g(x)=2x+1` is another function.
- In `k\pi, k\in\mathbb{Z}` the last item declares k and is not a value; k may then have another letter. Letters that
  are not declared are what the question gives.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from relay_verl.grading.formula_tree import Name, names_of, with_names
from relay_verl.grading.values import (
    Alternatives,
    Braces,
    Brackets,
    Combination,
    Conditions,
    Formula,
    Listing,
    Matrix,
    NamedSet,
    Relation,
    Value,
)

_FUNCTION = re.compile(r"([^()]+)\(([A-Za-z](?:,[A-Za-z])*)\)")
_DECLARED = "declared "


def rename(value: Value, names: dict[str, str]) -> Value:
    """The value with other names for its variables."""
    match value:
        case Formula():
            return Formula(with_names(value.node, {old: Name(new) for old, new in names.items()}), value.text)
        case Listing() | Braces() | Brackets():
            return replace(value, items=tuple(rename(item, names) for item in value.items))
        case Relation():
            return replace(value, sides=tuple(rename(side, names) for side in value.sides))
        case Alternatives() | Conditions() | Combination():
            return replace(value, parts=tuple(rename(part, names) for part in value.parts))
        case Matrix():
            rows = tuple(
                tuple(replace(cell, node=_formula(rename(cell, names)).node) for cell in row) for row in value.rows
            )
            return Matrix(rows)
    return value


def _formula(value: Value) -> Formula:
    assert isinstance(value, Formula)
    return value


def variables_of(value: Value) -> frozenset[str]:
    match value:
        case Formula():
            return names_of(value.node)
        case Listing() | Braces() | Brackets():
            parts: Sequence[Value] = value.items
        case Relation():
            parts = value.sides
        case Alternatives() | Conditions() | Combination():
            parts = value.parts
        case Matrix():
            parts = [cell for row in value.rows for cell in row]
        case _:
            parts = ()
    return frozenset().union(*map(variables_of, parts))


# ---- declared integers ----


def as_parameters(items: list[Value]) -> list[Value]:
    """The items without those that declare an integer, whose name is marked in the others."""
    values, declared = [], {}
    for item in items:
        is_member = isinstance(item, Relation) and item.operators == (r"\in",)
        if is_member and isinstance(item, Relation) and item.name and item.sides[1] in (NamedSet("Z"), NamedSet("N")):
            declared[item.name] = f"{_DECLARED}{item.name}"
        else:
            values.append(item)
    return [rename(value, declared) for value in values] if values else items


def with_same_parameters(answer: Value, truth: Value) -> tuple[Value, Value]:
    """Both with one name for the integer that one of them, or each, declares."""
    in_answer, in_truth = variables_of(answer), variables_of(truth)
    of_answer, of_truth = _declared(in_answer), _declared(in_truth)
    if len(of_answer) == 1 and len(of_truth) == 1:
        return rename(answer, {of_answer[0]: "k"}), rename(truth, {of_truth[0]: "k"})
    if of_truth:  # the answer has to use the truth's letter
        truth = rename(truth, {name: name.removeprefix(_DECLARED) for name in of_truth})
        in_truth = variables_of(truth)
    others = sorted(in_truth - in_answer)
    if len(of_answer) == 1 and len(others) == 1:
        return rename(answer, {of_answer[0]: others[0]}), truth
    return rename(answer, {name: name.removeprefix(_DECLARED) for name in of_answer}), truth


def _declared(names: frozenset[str]) -> list[str]:
    return sorted(name for name in names if name.startswith(_DECLARED))


# ---- functions ----


def with_names_of(truth: Relation, answer: Relation) -> Relation | None:
    """The answer in the truth's names, if both name the same: x and x, f(t) and f(x), y and f(x)."""
    assert answer.name and truth.name
    if answer.name == truth.name:
        return answer
    one, other = _FUNCTION.fullmatch(answer.name), _FUNCTION.fullmatch(truth.name)
    if one and other and one[1] == other[1]:
        old, new = one[2].split(","), other[2].split(",")
        is_taken = bool((set(new) - set(old)) & frozenset().union(*map(variables_of, answer.sides[1:])))
        if len(old) != len(new) or is_taken:
            return None
        names = dict(zip(old, new, strict=True))
        return replace(answer, sides=tuple(rename(side, names) for side in answer.sides))
    of_x = {match[0] for match in (one, other) if match and match[2] == "x"}
    return answer if {answer.name, truth.name} - of_x == {"y"} else None
