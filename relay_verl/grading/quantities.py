r"""Do the units that an answer and its ground truth name fit together? Pure.

Invariant: `agree` is False only if both sides name units. It refuses other kinds of units, values that have changed
their units, and other factors in a product of quantities: `6 ft x 8 ft` is not `4 ft x 12 ft`.
"""

from __future__ import annotations

import re

from relay_verl.grading.units import Quantity, Unit

Answer = tuple[str, list[Quantity]]
"""An answer's text without its units, and its units."""

_TIMES = re.compile(r"\\times(?![A-Za-z])|\\cdot(?![A-Za-z])|\*")
_LEFT_SIDE = re.compile(r"^.*=")


def agree(answer: Answer, ground_truth: Answer) -> bool:
    """Whether the two can be equal as far as their units go."""
    answers, truths = answer[1], ground_truth[1]
    if not _same_factors(answer, ground_truth):
        return False
    if not answers or not truths:
        return True
    if len(answers) == len(truths) and len({_key(quantity.unit) for quantity in answers}) > 1:
        return _same_assignment(answers, truths)
    kinds = [{quantity.unit for quantity in quantities} for quantities in (answers, truths)]
    if any(len({_key(unit) for unit in kind}) > 1 or not all(unit.is_known for unit in kind) for kind in kinds):
        return True
    one, other = kinds[0].pop(), kinds[1].pop()
    if _key(one) == _key(other) or _are_angles(one, other) or _are_temperatures(one, other):
        return True
    return one.dimension == other.dimension and len(answers) == len(truths) == 1


def rescale(text: str, quantities: list[Quantity], others: list[Quantity]) -> str:
    r"""The text in the other side's unit, where both sides are one quantity."""
    if len(quantities) != 1 or len(others) != 1:
        return text
    one, other = quantities[0].unit, others[0].unit
    if one.size is None or other.size is None or one.dimension != other.dimension or one.size == other.size:
        return text
    ratio = one.size / other.size
    left, equals, right = text.rpartition("=")
    return rf"{left}{equals}({right.strip()})\cdot\frac{{{ratio.numerator}}}{{{ratio.denominator}}}"


def _key(unit: Unit) -> object:
    return (unit.size, unit.dimension) if unit.is_known else unit.name


def _same_assignment(answers: list[Quantity], truths: list[Quantity]) -> bool:
    """Whether each value has the unit that it has on the other side, where both sides name the same units."""
    keys, other_keys = ([_key(quantity.unit) for quantity in quantities] for quantities in (answers, truths))
    if sorted(map(repr, keys)) != sorted(map(repr, other_keys)):
        return not all(quantity.unit.is_known for quantity in [*answers, *truths])
    pairs, other_pairs = (
        [(repr(_key(quantity.unit)), _value(quantity.amount)) for quantity in quantities]
        for quantities in (answers, truths)
    )
    if keys == other_keys:  # the same order: only a change of places among the values is decided here
        values, other_values = [value for _, value in pairs], [value for _, value in other_pairs]
        return values == other_values or sorted(values) != sorted(other_values)
    return sorted(pairs) == sorted(other_pairs)


def _value(amount: str) -> str:
    return re.sub(r"\s", "", _LEFT_SIDE.sub("", amount))


def _same_factors(answer: Answer, ground_truth: Answer) -> bool:
    """Whether a product of quantities meets a product of the same factors."""
    factors = [_factors(text) for text, _ in (answer, ground_truth)]
    has_units = [len(quantities) > 1 and row is not None for (_, quantities), row in
                 zip((answer, ground_truth), factors, strict=True)]  # fmt: skip
    return not any(has_units) or factors[0] == factors[1]


def _factors(text: str) -> list[str] | None:
    """The factors of a plain product, sorted; None for anything else."""
    factors = [factor.strip() for factor in _TIMES.split(text)]
    return sorted(factors) if len(factors) > 1 and all(re.fullmatch(r"[\d.]+", factor) for factor in factors) else None


def _are_angles(one: Unit, other: Unit) -> bool:
    return {one.dimension, other.dimension} <= {(("deg", 1),), (("rad", 1),)}


def _are_temperatures(one: Unit, other: Unit) -> bool:
    """`25 degrees` names no scale."""
    dimensions = {one.dimension, other.dimension}
    return (("deg", 1),) in dimensions and bool(dimensions & {(("celsius", 1),), (("fahrenheit", 1),)})
