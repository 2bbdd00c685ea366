r"""Where formulas with variables are compared: points that a wrong answer does not foresee, the same on each run. Pure.

A formula is smooth if two of them that agree near some points agree everywhere. One with |x|, floors, roots or
maxima has pieces: `|x-5|` is `5-x` below 5. Those are compared at many points of all sizes, integers among them.
"""

from __future__ import annotations

import random
import zlib
from collections.abc import Iterator, Sequence
from fractions import Fraction

from relay_verl.grading.exact import INTEGER_FUNCTIONS, exact
from relay_verl.grading.formula_tree import Call, Node, Number, Power, Series, children, names_of

INTEGER_NAMES = frozenset("nmkjlNMK")
"""Variables that are natural numbers in a formula of floors, factorials or sums."""
_SMOOTH_FUNCTIONS = frozenset(["sin", "cos", "tan", "cot", "sec", "csc", "sinh", "cosh", "tanh", "coth"])


def points(names: Sequence[str], scales: Sequence[int], *, num_points: int) -> Iterator[dict[str, Fraction]]:
    """Dyadic numbers, 0.25 to 4 times a scale, of either sign at every second point; each fourth one has integers.

    With a single scale all points stay dyadic, since few integers lie below 4.
    """
    for index in range(num_points):
        point = {}
        for n, name in enumerate(names):
            value = _number(name, index) * scales[(index // 2 + n) % len(scales)]
            point[name] = Fraction(round(value)) if index % 4 > 1 and len(scales) > 1 else value
        yield point


def points_of_integers(names: Sequence[str], *, num_points: int) -> Iterator[dict[str, Fraction]]:
    """Natural numbers for INTEGER_NAMES, small ones first, and dyadic numbers for other variables."""
    for index in range(num_points):
        yield {
            name: Fraction(_random(name, index).randrange(1, 6 + 3 * index))
            if name in INTEGER_NAMES
            else _number(name, index)
            for name in names
        }


def _random(name: str, index: int) -> random.Random:
    return random.Random(zlib.crc32(f"{name} {index}".encode()))


def _number(name: str, index: int) -> Fraction:
    generator = _random(name, index)
    value = Fraction(generator.randrange(1 << 14, 1 << 18) | 1, 1 << 16)
    return value if index % 2 or generator.random() < 0.5 else -value


def is_smooth(node: Node) -> bool:
    if isinstance(node, Series) or (
        isinstance(node, Call) and node.function not in _SMOOTH_FUNCTIONS and names_of(node)
    ):
        return False
    if isinstance(node, Power) and names_of(node.base):
        exponent = exact(node.exponent)
        if exponent is None or exponent.denominator != 1:
            return False
    if isinstance(node, Power) and names_of(node.exponent) and isinstance(node.base, Number) and node.base.value < 0:
        return False
    return all(map(is_smooth, children(node)))


def integer_names(*nodes: Node) -> frozenset[str]:
    """The variables in places of integers, such as floors and limits of sums, if all of them are INTEGER_NAMES."""
    names = frozenset().union(*(_names_of_integers(node) for node in nodes))
    return names if names <= INTEGER_NAMES else frozenset()


def _names_of_integers(node: Node) -> frozenset[str]:
    match node:
        case Series():
            inner = names_of(node.first) | names_of(node.last)
        case Call() if node.function in INTEGER_FUNCTIONS:
            inner = names_of(node)
        case Power() if (exact(node.base) or 0) < 0:
            inner = names_of(node.exponent)
        case _:
            inner = frozenset()
    return inner.union(*map(_names_of_integers, children(node)))
