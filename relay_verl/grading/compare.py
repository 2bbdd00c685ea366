r"""Is one answer's value the other's? Pure. The rules are in the room's README.

Invariant: what is not decided here is False. No rule takes a part of an answer for the whole: a list is right if all of
it is, and a name before an equals sign is dropped only where it names and claims nothing.
"""

from __future__ import annotations

import re
from fractions import Fraction

from relay_verl.grading.formula_tree import Node, Number, Percentage, Product, quotient
from relay_verl.grading.identity import is_equal, is_zero
from relay_verl.grading.latex import words
from relay_verl.grading.lists import is_same_listing, is_same_vector
from relay_verl.grading.multisets import distinct, is_same_multiset, is_same_sequence
from relay_verl.grading.naming import with_same_parameters
from relay_verl.grading.realsets import is_same_set
from relay_verl.grading.relations import is_same_relation
from relay_verl.grading.values import (
    Alternatives,
    Braces,
    Brackets,
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
_DIGITS = re.compile(r"[0-9A-Fa-f]+")
_LETTERS = re.compile(r"[A-Za-z]+")
_PLAIN_WORDS = words("yes no true false even odd none north south east west left right undefined infinity always never")
"""Words whose capitals say nothing also outside of a text command; other letters can be a product, such as Mgh."""
_PERCENT = Number(Fraction(1, 100))


def is_right(answer: Value, truth: Value) -> bool:
    """Whether an answer is right."""
    return is_same(*with_same_parameters(answer, truth))


def is_same(answer: Value, truth: Value) -> bool:
    """Whether two values are the same; also for the parts of answers."""
    match answer, truth:
        case (Relation() | Alternatives() | Conditions(), _) | (_, Relation() | Alternatives() | Conditions()):
            return is_same_relation(answer, truth, is_same)
        case (Listing(), _) | (_, Listing()):
            return is_same_listing(answer, truth, is_same)
        case Formula(), Formula():
            return _is_same_formula(answer, truth)
        case (Numeral(), _) | (_, Numeral()):
            return _is_same_numeral(answer, truth)
        case (Ratio() as ratio, other) | (other, Ratio() as ratio):
            return _is_same_ratio(ratio, other)
        case Matrix(), Matrix():
            is_same_shape = len(answer.rows) == len(truth.rows)
            return is_same_shape and all(map(_is_same_row, answer.rows, truth.rows))
        case (Matrix() as matrix, Brackets() as brackets) | (Brackets() as brackets, Matrix() as matrix):
            return is_same_vector(matrix, brackets, is_same)
        case Brackets(), Brackets():
            is_same_kind = (answer.opening, answer.closing) == (truth.opening, truth.closing)
            return is_same_kind and is_same_sequence(answer.items, truth.items, is_same)
        case Braces(), Braces():
            return is_same_multiset(distinct(answer.items, is_same), distinct(truth.items, is_same), is_same)
        case (Word(), _) | (_, Word()):
            return _word_of(answer) == _word_of(truth) is not None
        case (Braces(items=(item,)), Formula() as formula) | (Formula() as formula, Braces(items=(item,))):
            return is_same(item, formula)
        case NamedSet(), NamedSet():
            return answer == truth
    return bool(is_same_set(answer, truth))


def _is_same_row(answer: tuple[Formula, ...], truth: tuple[Formula, ...]) -> bool:
    return is_same_sequence(answer, truth, is_same)


def _is_same_formula(answer: Formula, truth: Formula) -> bool:
    one, other = answer.node, truth.node
    if isinstance(one, Percentage) and isinstance(other, Percentage):
        return is_equal(one.value, other.value)
    if any(is_equal(left, right) for left in _readings(one) for right in _readings(other)):
        return True
    return _word_of(answer) == _word_of(truth) in _PLAIN_WORDS


def _readings(node: Node) -> list[Node]:
    """What a formula can stand for: 50% for 50 and for 0.5."""
    return [node.value, Product((node.value, _PERCENT))] if isinstance(node, Percentage) else [node]


def _word_of(value: Value) -> str | None:
    if isinstance(value, Word):
        return value.text.replace(" ", "")
    return value.text.casefold() if isinstance(value, Formula) and _LETTERS.fullmatch(value.text) else None


def _is_same_numeral(answer: Value, truth: Value) -> bool:
    """`52` is `52_8`, since the question names the base; of bases, only ten may be left out by the truth."""
    match answer, truth:
        case Numeral(), Numeral():
            return answer == truth
        case Formula(), Numeral():
            return bool(_DIGITS.fullmatch(answer.text)) and answer.text.upper().lstrip("0") == truth.digits
        case Numeral(base=10), Formula():
            return answer.digits == truth.text.lstrip("0")
    return False


def _is_same_ratio(ratio: Ratio, other: Value) -> bool:
    match other:
        case Formula() if len(ratio.terms) == 2:
            return is_equal(quotient(ratio.terms[0].node, ratio.terms[1].node), other.node)
        case Ratio() if _TIME.fullmatch(ratio.text) and _TIME.fullmatch(other.text):  # 4:30 is not 2:15
            return ratio.text.lstrip("0") == other.text.lstrip("0")
        case Ratio() if len(ratio.terms) == len(other.terms):
            pairs = [(one.node, two.node) for one, two in zip(ratio.terms, other.terms, strict=True)]
            if any(is_zero(node) for pair in pairs for node in pair):
                return all(is_equal(one, two) for one, two in pairs)
            (first, second), *rest = pairs
            return all(is_equal(Product((one, second)), Product((two, first))) for one, two in rest)
    return False
