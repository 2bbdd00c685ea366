r"""Is one equation or inequality the other? Pure.

- A name before an equals sign is dropped where the other side has none: `x=5` is 5, `m+n=33` is 33, and `2x=10` is not.
- Other equations are the same if their differences of sides are, up to a factor that is not zero; an inequality's may
  be positive. Solutions are never compared: two equations without any would be the same.
- A truth that is solved (`x=5`, `x<5`) wants a solved answer: `2x=10` is the question.
"""

from __future__ import annotations

from relay_verl.grading.formula_tree import Name, Node, Product, difference, names_of, negative
from relay_verl.grading.identity import is_equal, is_proportional, is_zero
from relay_verl.grading.multisets import Same, is_same_multiset, is_same_sequence
from relay_verl.grading.naming import with_names_of
from relay_verl.grading.realsets import is_same_set, variable_of
from relay_verl.grading.values import Alternatives, Conditions, Formula, Relation, Value


def is_same_relation(answer: Value, truth: Value, is_same: Same) -> bool:
    """Whether they are the same, where at least one of them is a relation."""
    if is_equation(answer) and is_equation(truth):
        return _is_same_equation(_relation(answer), _relation(truth), is_same)
    is_answer_unequal, is_truth_unequal = _is_inequality(answer), _is_inequality(truth)
    if is_answer_unequal and is_truth_unequal:
        return _is_same_inequality(answer, truth, is_same)
    # 5 and x=5, (1,2) and x \in (1,2)
    one, other = (named_value(_relation(v), is_same) if is_equation(v) else v for v in (answer, truth))
    if one is None or other is None:
        return False
    if not is_answer_unequal and not is_truth_unequal:
        return is_same(one, other)
    if isinstance(one, Formula) or isinstance(other, Formula):
        return False
    return bool(is_same_set(one, other))


def is_equation(value: Value) -> bool:
    return isinstance(value, Relation) and all(sign in ("=", r"\in") for sign in value.operators)


def named_value(relation: Relation, is_same: Same) -> Value | None:
    """What an equation says the value is; None if it contradicts itself, or says more than that."""
    last = relation.sides[-1]
    first = relation.sides[0]
    is_name = not isinstance(first, Formula) or isinstance(first.node, Name)
    if relation.name and not is_name and isinstance(last, Formula) and is_zero(last.node):
        return None  # x+y=0 is a condition
    for side in relation.sides[bool(relation.name) : -1]:
        is_also_name = relation.name and isinstance(side, Formula) and isinstance(side.node, Name)  # x=y=1
        if not is_also_name and not is_same(side, last):
            return None
    return last


def _relation(value: Value) -> Relation:
    assert isinstance(value, Relation)
    return value


def _is_inequality(value: Value) -> bool:
    return isinstance(value, Alternatives | Conditions) or (isinstance(value, Relation) and not is_equation(value))


# ---- equations ----


def _is_same_equation(answer: Relation, truth: Relation, is_same: Same) -> bool:
    renamed = with_names_of(truth, answer) if answer.name and truth.name else None
    if renamed is not None:
        one, other = named_value(renamed, is_same), named_value(truth, is_same)
        if one is not None and other is not None:
            return is_same(one, other)
    formulas = [side.node for side in (*answer.sides, *truth.sides) if isinstance(side, Formula)]
    if answer.operators != ("=",) or truth.operators != ("=",) or len(formulas) != 4:
        return _is_same_copy(answer, truth, is_same)
    left, right = (formulas[0], formulas[1]), (formulas[2], formulas[3])
    if _is_solved(*right) and not _is_solved(*left):
        return False
    return is_proportional(difference(*left), difference(*right))


def _is_same_copy(answer: Relation, truth: Relation, is_same: Same) -> bool:
    return answer.operators == truth.operators and is_same_sequence(answer.sides, truth.sides, is_same)


def _is_solved(one: Node, other: Node) -> bool:
    """Whether two sides are a variable, perhaps with a minus, and a value without variables."""
    for side, value in ((one, other), (other, one)):
        bare = side.factors[-1] if isinstance(side, Product) and len(side.factors) == 2 else side
        if isinstance(bare, Name) and side in (bare, negative(bare)) and not names_of(value):
            return True
    return False


# ---- inequalities ----


def _is_same_inequality(answer: Value, truth: Value, is_same: Same) -> bool:
    variable = variable_of(truth)
    if variable is not None and variable == variable_of(answer):
        is_same_solution = is_same_set(answer, truth)
        if is_same_solution is not None:
            return is_same_solution
    match answer, truth:
        case (Alternatives(parts=parts), Alternatives(parts=rest)) | (Conditions(parts=parts), Conditions(parts=rest)):
            return is_same_multiset(parts, rest, is_same)
        case Relation(), Relation():
            return _is_same_chain(answer, truth, is_same)
    return False


def _is_same_chain(answer: Relation, truth: Relation, is_same: Same) -> bool:
    """Whether each link of a chain is one of the other's."""
    if not all(isinstance(side, Formula) for side in (*answer.sides, *truth.sides)):
        return _is_same_copy(answer, truth, is_same)
    rest = _links(truth)
    for sign, node, _ in _links(answer):
        for position, (other_sign, target, is_solved) in enumerate(rest):
            if sign == other_sign and _is_same_link(sign, node, target, is_solved=is_solved):
                del rest[position]
                break
        else:
            return False
    return not rest


def _links(relation: Relation) -> list[tuple[str, Node, bool]]:
    """Each link as: a formula that is below zero, at most zero, zero or not zero; and whether it is solved."""
    links = []
    sides = [side.node for side in relation.sides if isinstance(side, Formula)]
    for sign, one, other in zip(relation.operators, sides, sides[1:], strict=False):
        if sign in (">", r"\ge"):
            one, other, sign = other, one, {">": "<", r"\ge": r"\le"}[sign]
        links.append((sign, difference(one, other), _is_solved(one, other)))
    return links


def _is_same_link(sign: str, node: Node, target: Node, *, is_solved: bool) -> bool:
    is_ordered = sign in ("<", r"\le")
    if is_equal(node, target) or (not is_ordered and is_equal(node, negative(target))):
        return True
    return not is_solved and is_proportional(node, target, is_positive=is_ordered)
