"""Is one list, set, pair or vector the other? Pure. The room's README has the rules."""

from __future__ import annotations

from collections.abc import Sequence

from relay_verl.grading.multisets import Same, distinct, is_same_multiset, is_same_sequence
from relay_verl.grading.relations import is_equation, named_value
from relay_verl.grading.values import Braces, Brackets, Formula, Listing, Matrix, Relation, Value


def is_same_vector(matrix: Matrix, brackets: Brackets, is_same: Same) -> bool:
    """Whether a column has the entries that stand in parentheses."""
    is_column = all(len(row) == 1 for row in matrix.rows)
    is_vector = (brackets.opening, brackets.closing) == ("(", ")")
    return is_column and is_vector and is_same_sequence([row[0] for row in matrix.rows], brackets.items, is_same)


def is_same_listing(answer: Value, truth: Value, is_same: Same) -> bool:
    """Whether they are the same, where at least one of them is a bare list."""
    match answer, truth:
        case Listing(), Listing():
            return _are_same_lists(answer, truth, is_same)
        case (Listing() as listing, Braces() as braces) | (Braces() as braces, Listing() as listing):
            return is_same_multiset(_values(listing, is_same), distinct(braces.items, is_same), is_same)
        case (Listing() as listing, Brackets() as brackets) | (Brackets() as brackets, Listing() as listing):
            is_tuple = (brackets.opening, brackets.closing) == ("(", ")")
            return is_tuple and is_same_sequence(_values(listing, is_same), brackets.items, is_same)
        case Listing(is_choice=True), Formula():
            return all(is_same(item, truth) for item in answer.items)
    return False


def _are_same_lists(answer: Listing, truth: Listing, is_same: Same) -> bool:
    one, other = _names(answer), _names(truth)
    if one and other and is_same_multiset(answer.items, truth.items, is_same):
        return True
    if one and other and not (_are_numbered(one) and _are_numbered(other)):
        return False
    if not one and not other:
        return is_same_multiset(answer.items, truth.items, is_same)
    # x=1, y=2 against 1, 2: the order says which is which
    names = one or other
    is_ordered = len(set(names)) == len(names) and not _are_numbered(names)
    compare = is_same_sequence if is_ordered else is_same_multiset
    return compare(_values(answer, is_same), _values(truth, is_same), is_same)


def _names(listing: Listing) -> list[str]:
    """What the items are named, if all of them are."""
    names = [item.name for item in listing.items if isinstance(item, Relation) and is_equation(item) and item.name]
    return names if len(names) == len(listing.items) else []


def _are_numbered(names: Sequence[str]) -> bool:
    """Whether the names are x_1, x_2, ...: solutions of one thing, in any order."""
    return all("_" in name for name in names) and len({name.partition("_")[0] for name in names}) == 1


def _values(listing: Listing, is_same: Same) -> list[Value]:
    """The items without their names; a list in the list, `x=1,y=2`, is a tuple."""
    values: list[Value] = []
    for item in listing.items:
        if isinstance(item, Relation) and is_equation(item) and item.name:
            values.append(named_value(item, is_same) or item)
        elif isinstance(item, Listing):
            values.append(Brackets(tuple(_values(item, is_same)), "(", ")"))
        else:
            values.append(item)
    return values
