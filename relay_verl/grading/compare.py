r"""Is one answer's value the other's? The rules of the room's README, one function for each pair of kinds. Pure.

Invariant: what is not decided here is False. No rule takes a part of an answer for the whole: a list is right if all of
it is, and a name before an equals sign is dropped only where it names and claims nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from fractions import Fraction

from relay_verl.grading import numbers, realsets
from relay_verl.grading.expressions import (
    Call,
    Constant,
    Name,
    Node,
    Number,
    Power,
    Product,
    Scaled,
    Series,
    Sum,
    negative,
    quotient,
)
from relay_verl.grading.numbers import UnevaluableError, names_of
from relay_verl.grading.structure import (
    Alternatives,
    Braces,
    Brackets,
    Combination,
    Conditions,
    Formula,
    Listing,
    Matrix,
    NamedSet,
    Numeral,
    Ratio,
    Relation,
    Value,
    Word,
)

_TIME = re.compile(r"\d{1,2}:\d{2}(?::\d{2})?")
_FUNCTION = re.compile(r"([^()]+)\(([A-Za-z](?:,[A-Za-z])*)\)")


def is_same(answer: Value, truth: Value) -> bool:
    """Whether the answer is right."""
    if isinstance(answer, Relation | Alternatives | Conditions) or isinstance(truth, Relation | Alternatives | Conditions):
        return _is_same_relation(answer, truth)
    if isinstance(answer, Listing) or isinstance(truth, Listing):
        return _is_same_listing(answer, truth)
    match answer, truth:
        case Formula(), Formula():
            return _is_same_formula(answer, truth)
        case Numeral(), Numeral():
            return answer == truth
        case Formula(), Numeral():  # the question names the base
            return bool(re.fullmatch(r"[0-9A-Fa-f]+", answer.text)) and answer.text.upper().lstrip("0") == truth.digits
        case Numeral(), Formula():
            return answer.base == 10 and answer.digits == truth.text.lstrip("0")
        case Ratio(), _:
            return _is_same_ratio(answer, truth)
        case _, Ratio():
            return _is_same_ratio(truth, answer)
        case Matrix(), Matrix():
            return len(answer.rows) == len(truth.rows) and all(map(_is_same_sequence, answer.rows, truth.rows))
        case (Matrix(), Brackets()) | (Brackets(), Matrix()):
            return _is_same_vector(answer, truth)
        case Brackets(), Brackets():
            is_same_kind = (answer.opening, answer.closing) == (truth.opening, truth.closing)
            return is_same_kind and _is_same_sequence(answer.items, truth.items)
        case Braces(), Braces():
            return _is_same_multiset(_distinct(answer.items), _distinct(truth.items))
        case (Word(), _) | (_, Word()):
            return _word_of(answer) == _word_of(truth) is not None
        case (Braces(items=(item,)), Formula()):
            return is_same(item, truth)
        case (Formula(), Braces(items=(item,))):
            return is_same(answer, item)
    return _is_same_set(answer, truth)


# ---- formulas ----


def _is_same_formula(answer: Formula, truth: Formula) -> bool:
    left, right = _readings(answer.node), _readings(truth.node)
    if len(left) == len(right) > 1:  # two percentages, two angles
        left, right = left[:1], right[:1]
    if any(numbers.is_equal(one, other) for one in left for other in right):
        return True
    return _word_of(answer) == _word_of(truth) is not None and _is_plain_word(answer.text)


def _readings(node: Node) -> list[Node]:
    """What a formula can stand for: `50%` for 50 and for 0.5, `60°` for 60 and for pi/3."""
    if isinstance(node, Scaled) and node.unit == "%":
        return [node.value, quotient(node.value, Number(Fraction(100)))]
    if not _has_degrees(node):
        return [node]
    return [_replace_degrees(node, is_radians=False), _replace_degrees(node, is_radians=True)]


def _has_degrees(node: Node) -> bool:
    return (isinstance(node, Scaled) and node.unit == "°") or any(map(_has_degrees, numbers.children(node)))


def _replace_degrees(node: Node, *, is_radians: bool) -> Node:
    if isinstance(node, Scaled) and node.unit == "°":
        inner = _replace_degrees(node.value, is_radians=is_radians)
        return Product((inner, Constant("pi"), Number(Fraction(1, 180)))) if is_radians else inner
    return _map(node, lambda child: _replace_degrees(child, is_radians=is_radians))


def _map(node: Node, function: Callable[[Node], Node]) -> Node:
    """The node with a function applied to its children."""
    match node:
        case Sum():
            return Sum(tuple(map(function, node.terms)))
        case Product():
            return Product(tuple(map(function, node.factors)))
        case Power():
            return Power(function(node.base), function(node.exponent))
        case Call():
            return Call(node.function, tuple(map(function, node.arguments)))
        case Series():
            return replace(node, body=function(node.body), first=function(node.first), last=function(node.last))
        case Scaled():
            return Scaled(node.unit, function(node.value))
    return node


def _word_of(value: Value) -> str | None:
    if isinstance(value, Word):
        return value.text.replace(" ", "")
    if isinstance(value, Formula) and re.fullmatch(r"[A-Za-z]+", value.text):
        return value.text.casefold()
    return None


def _is_plain_word(text: str) -> bool:
    """Whether letters are a word whose capitals say nothing, and not a product such as Mgh."""
    return text.casefold() in ("yes", "no") or (len(text) > 3 and bool(set(text.casefold()) & set("aeiouy")))


def _is_same_ratio(ratio: Ratio, other: Value) -> bool:
    if isinstance(other, Ratio):
        if _TIME.fullmatch(ratio.text) and _TIME.fullmatch(other.text):  # 4:30 is not 2:15
            return ratio.text.lstrip("0") == other.text.lstrip("0")
        if len(ratio.terms) != len(other.terms):
            return False
        pairs = [(_node(one), _node(two)) for one, two in zip(ratio.terms, other.terms, strict=True)]
        (first, second), *rest = pairs
        if any(numbers.is_zero(node) for pair in pairs for node in pair):
            return all(numbers.is_equal(one, two) for one, two in pairs)
        return all(numbers.is_equal(Product((one, second)), Product((two, first))) for one, two in rest)
    if isinstance(other, Formula) and len(ratio.terms) == 2:
        return numbers.is_equal(quotient(_node(ratio.terms[0]), _node(ratio.terms[1])), other.node)
    return False


def _node(value: Value) -> Node:
    assert isinstance(value, Formula)
    return value.node


# ---- sequences ----


def _is_same_sequence(answer: Sequence[Value], truth: Sequence[Value]) -> bool:
    return len(answer) == len(truth) and all(map(is_same, answer, truth))


def _is_same_multiset(answer: Sequence[Value], truth: Sequence[Value]) -> bool:
    if len(answer) != len(truth):
        return False
    rest = list(truth)
    for item in answer:
        position = next((n for n, candidate in enumerate(rest) if is_same(item, candidate)), None)
        if position is None:
            return False
        del rest[position]
    return True


def _distinct(items: Sequence[Value]) -> list[Value]:
    distinct: list[Value] = []
    for item in items:
        if not any(is_same(item, other) for other in distinct):
            distinct.append(item)
    return distinct


def _is_same_vector(answer: Value, truth: Value) -> bool:
    """A column, and its entries in parentheses."""
    matrix, brackets = (answer, truth) if isinstance(answer, Matrix) else (truth, answer)
    assert isinstance(matrix, Matrix) and isinstance(brackets, Brackets)
    is_column = all(len(row) == 1 for row in matrix.rows)
    is_vector = (brackets.opening, brackets.closing) == ("(", ")")
    return is_column and is_vector and _is_same_sequence([row[0] for row in matrix.rows], brackets.items)


def _is_same_listing(answer: Value, truth: Value) -> bool:
    match answer, truth:
        case Listing(), Listing():
            return _is_same_lists(answer, truth)
        case (Listing() as listing, Braces() as braces) | (Braces() as braces, Listing() as listing):
            items = [_unnamed(item) for item in listing.items]
            return _is_same_multiset(items, _distinct(braces.items))
        case (Listing() as listing, Brackets() as brackets) | (Brackets() as brackets, Listing() as listing):
            is_tuple = (brackets.opening, brackets.closing) == ("(", ")") or len(brackets.items) > 2
            return is_tuple and _is_same_sequence([_unnamed(item) for item in listing.items], brackets.items)
        case Listing(is_choice=True), _:
            return all(is_same(_unnamed(item), truth) for item in answer.items)
        case (Listing() as listing, Formula() as formula) | (Formula() as formula, Listing() as listing):
            return _is_same_thousands(listing, formula)
    return False


def _is_same_thousands(listing: Listing, formula: Formula) -> bool:
    """`1, 234` where the other side spells the same digits as `1,234`, which can be a list or a number."""
    parts = formula.text.split(",")
    texts = [item.text if isinstance(item, Formula) else "" for item in listing.items]
    return len(parts) > 1 and texts == parts


def _is_same_lists(answer: Listing, truth: Listing) -> bool:
    left, right = _names(answer), _names(truth)
    if left and right:
        if set(left) == set(right):
            return _is_same_multiset(answer.items, truth.items)
        is_numbered = _is_numbered(left) and _is_numbered(right)
        return is_numbered and _is_same_multiset(_values(answer), _values(truth))
    names = left or right
    if names and len(set(names)) == len(names) and not _is_numbered(names):
        # x=1, y=2 against 1, 2: the order says which is which
        return _is_same_sequence(_values(answer), _values(truth))
    if names:
        return _is_same_multiset(_values(answer), _values(truth))
    return _is_same_multiset(answer.items, truth.items)


def _names(listing: Listing) -> list[str]:
    """What the items are named, if all of them are."""
    names = [item.name for item in listing.items if isinstance(item, Relation) and item.operators[0] in ("=", r"\in")]
    return [name for name in names if name] if len(names) == len(listing.items) and all(names) else []


def _is_numbered(names: Sequence[str]) -> bool:
    """Whether the names are x_1, x_2, ...: solutions of one thing, in any order."""
    return len({name.partition("_")[0] for name in names}) == 1 and all("_" in name for name in names)


def _values(listing: Listing) -> list[Value]:
    return [_unnamed(item) for item in listing.items]


def _unnamed(value: Value) -> Value:
    if isinstance(value, Relation) and value.name:
        return _last_side(value) or value
    if isinstance(value, Listing):
        return Brackets(tuple(_unnamed(item) for item in value.items), "(", ")")
    return value


# ---- relations ----


def _is_same_relation(answer: Value, truth: Value) -> bool:
    if _is_equation(answer) and _is_equation(truth):
        assert isinstance(answer, Relation) and isinstance(truth, Relation)
        return _is_same_equation(answer, truth)
    if _is_equation(answer) and not _is_inequality(truth):
        assert isinstance(answer, Relation)
        value = _last_side(answer)
        return value is not None and is_same(value, truth)
    if _is_equation(truth) and not _is_inequality(answer):
        assert isinstance(truth, Relation)
        value = _last_side(truth)
        return value is not None and is_same(answer, value)
    if _is_inequality(answer) and _is_inequality(truth):
        return _is_same_inequality(answer, truth)
    # an inequality against a set, or against x \in a set
    one, other = (_last_side(v) if isinstance(v, Relation) and _is_equation(v) else v for v in (answer, truth))
    if one is None or other is None or isinstance(one, Formula) or isinstance(other, Formula):
        return False
    return _is_same_set(one, other)


def _is_equation(value: Value) -> bool:
    return isinstance(value, Relation) and all(sign in ("=", r"\in") for sign in value.operators)


def _is_inequality(value: Value) -> bool:
    return isinstance(value, Alternatives | Conditions) or (isinstance(value, Relation) and not _is_equation(value))


def _last_side(relation: Relation) -> Value | None:
    """What an equation says the value is; None if it claims more than that, or contradicts itself."""
    first, last = relation.sides[0], relation.sides[-1]
    if relation.name and relation.name != getattr(first, "text", relation.name) and _is_zero(last):
        return None
    between = relation.sides[1:-1] if relation.name else relation.sides[:-1]
    for side in between:
        if isinstance(side, Formula) and relation.name and names_of(side.node) and isinstance(side.node, Name):
            continue  # x = y = 1
        if not is_same(side, last):
            return None
    return last


def _is_zero(value: Value) -> bool:
    return isinstance(value, Formula) and numbers.is_zero(value.node)


def _is_same_equation(answer: Relation, truth: Relation) -> bool:
    if answer.name and truth.name:
        renamed = _with_names_of(answer, truth)
        if renamed is not None:
            left, right = _last_side(renamed), _last_side(truth)
            if left is not None and right is not None:
                return is_same(left, right)
    if len(answer.operators) != 1 or len(truth.operators) != 1:
        same_signs = answer.operators == truth.operators
        return same_signs and _is_same_sequence(answer.sides, truth.sides)
    sides = [*answer.sides, *truth.sides]
    if not all(isinstance(side, Formula) for side in sides):
        return False
    one, other, third, fourth = (_node(side) for side in sides)
    if _is_solved(third, fourth):
        # The answer to "solve 2x=10" is not 2x=10.
        return _is_solved(one, other) and _is_proportional(_difference(one, other), _difference(third, fourth))
    return _is_proportional(_difference(one, other), _difference(third, fourth))


def _with_names_of(answer: Relation, truth: Relation) -> Relation | None:
    """The answer in the truth's names, if both name the same: x, f(x) and f(t), y and f(x)."""
    assert answer.name and truth.name
    if answer.name == truth.name or answer.name.replace("<", "").replace(">", "") == truth.name:
        return answer
    one, other = _FUNCTION.fullmatch(answer.name), _FUNCTION.fullmatch(truth.name)
    if one and other and one[1] == other[1]:
        old, new = one[2].split(","), other[2].split(",")
        if len(old) == len(new):
            names = dict(zip(old, new, strict=True))
            return replace(answer, sides=tuple(rename(side, names) for side in answer.sides))
    if {answer.name, (other or one or [""])[0]} == {"y", "f(x)"} or {truth.name, (one or other or [""])[0]} == {"y", "f(x)"}:
        return answer
    return None


def rename(value: Value, names: dict[str, str]) -> Value:
    """The value with other names for its variables."""
    match value:
        case Formula():
            return Formula(_rename_node(value.node, names), value.text)
        case Listing() | Braces() | Brackets():
            return replace(value, items=tuple(rename(item, names) for item in value.items))
        case Relation():
            return replace(value, sides=tuple(rename(side, names) for side in value.sides))
        case Alternatives() | Conditions() | Combination():
            return replace(value, parts=tuple(rename(part, names) for part in value.parts))
        case Matrix():
            return Matrix(tuple(tuple(Formula(_rename_node(c.node, names), c.text) for c in row) for row in value.rows))
    return value


def _rename_node(node: Node, names: dict[str, str]) -> Node:
    if isinstance(node, Name):
        return Name(names.get(node.text, node.text))
    return _map(node, lambda child: _rename_node(child, names))


def _difference(one: Node, other: Node) -> Node:
    return Sum((one, negative(other)))


def _is_solved(one: Node, other: Node) -> bool:
    """Whether two sides are a variable, perhaps with a minus, and a value without variables."""
    for side, value in ((one, other), (other, one)):
        bare = side.factors[-1] if isinstance(side, Product) and len(side.factors) == 2 else side
        is_signed = bare is side or side == negative(bare)
        if isinstance(bare, Name) and is_signed and not names_of(value):
            return True
    return False


def _is_proportional(one: Node, other: Node, *, is_positive: bool = False) -> bool:
    """Whether one formula is the other times a number that is not zero."""
    names = names_of(one) | names_of(other)
    if not names or names_of(one) != names_of(other):
        return False
    # At some point both have a value; crossed with these values, the two must be the same formula.
    for seed in range(1, 8):
        point = {name: Number(Fraction(numbers.random_fraction(name, -seed))) for name in names}
        left, right = (_substitute(node, point) for node in (one, other))
        try:
            if numbers.is_zero(left) or numbers.is_zero(right):
                continue
            if is_positive and not numbers.real_value(quotient(left, right)) > 0:
                return False
        except UnevaluableError:
            continue
        return numbers.is_equal(Product((one, right)), Product((other, left)))
    return False


def _substitute(node: Node, point: dict[str, Number]) -> Node:
    if isinstance(node, Name):
        return point.get(node.text, node)
    return _map(node, lambda child: _substitute(child, point))


def _is_same_inequality(answer: Value, truth: Value) -> bool:
    if realsets.variable_of(answer) is not None and realsets.variable_of(answer) == realsets.variable_of(truth):
        try:
            return realsets.is_same_set(answer, truth)
        except (realsets.NotASetError, UnevaluableError):
            pass
    match answer, truth:
        case (Alternatives(), Alternatives()) | (Conditions(), Conditions()):
            return _is_same_multiset(answer.parts, truth.parts)
        case Relation(), Relation():
            return _is_same_chain(answer, truth)
    return False


def _is_same_chain(answer: Relation, truth: Relation) -> bool:
    """Two chains whose links are the same, up to a positive factor, or an exact copy where the truth is solved."""
    if not all(isinstance(side, Formula) for side in (*answer.sides, *truth.sides)):
        return answer.operators == truth.operators and _is_same_sequence(answer.sides, truth.sides)
    rest = _links(truth)
    for sign, node, _ in _links(answer):
        position = next(
            (n for n, (other, target, is_solved) in enumerate(rest) if sign == other and _is_same_link(node, target, is_solved, sign)),
            None,
        )
        if position is None:
            return False
        del rest[position]
    return not rest


def _links(relation: Relation) -> list[tuple[str, Node, bool]]:
    """Each link as: a formula that is below zero, at most zero, zero or not zero; and whether it is solved."""
    links = []
    for index, sign in enumerate(relation.operators):
        one, other = _node(relation.sides[index]), _node(relation.sides[index + 1])
        if sign in (">", r"\ge"):
            one, other, sign = other, one, {">": "<", r"\ge": r"\le"}[sign]
        links.append((sign, _difference(one, other), _is_solved(one, other)))
    return links


def _is_same_link(node: Node, target: Node, is_solved: bool, sign: str) -> bool:
    if numbers.is_equal(node, target):
        return True
    if sign in ("=", r"\ne") and numbers.is_equal(node, negative(target)):
        return True
    return not is_solved and _is_proportional(node, target, is_positive=sign in ("<", r"\le"))


def _is_same_set(answer: Value, truth: Value) -> bool:
    if isinstance(answer, NamedSet) and isinstance(truth, NamedSet):
        return answer == truth
    try:
        return realsets.is_same_set(answer, truth)
    except (realsets.NotASetError, UnevaluableError):
        return False
