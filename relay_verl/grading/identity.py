r"""Are two formulas equal? Exactly where both are rational, else at as many digits as it takes. Pure.

Invariants:
- "Not equal" is certain: two values differ if the bounds of their errors say so (`relay_verl.grading.balls`).
- "Equal" means: the same rational number, or no difference within a relative error of 1e-40, at a precision that grows
  with the spread of the magnitudes that are added. `1+2^{-99}` is not `1+2^{-98}`. Nothing is chopped.
- A formula that cannot be evaluated is equal only to its copy.

Formulas with variables are compared at points (`relay_verl.grading.points`), those at which both sides are real; where
there are too few, complex values count.

A decimal is the rational number that it spells. It also equals a value that is not a decimal if it has at least
MIN_ROUNDED_DIGITS digits and is that value rounded, or cut, at its last digit: 0.33333333 is 1/3, and 0.333 is not.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import mpmath
from mpmath import mp

from relay_verl.grading.balls import Ball, BallEvaluator
from relay_verl.grading.exact import UnevaluableError, exact
from relay_verl.grading.formula_tree import Node, Number, Product, children, names_of, quotient, with_names
from relay_verl.grading.points import integer_names, is_smooth, points, points_of_integers

BASE_DIGITS = 60
"""Decimal digits of the first evaluation; further ones have 4 and 16 times as many."""
EQUAL_DIGITS = 40
"""Digits in which equal values agree at least."""
MAX_SPREAD = 4000
"""Most decimal orders of magnitude between two numbers that are added."""
MAX_SPREAD_AT_POINTS = 400
"""The same for formulas with variables: points of which more is asked are left out."""
MIN_ROUNDED_DIGITS = 8
"""Least significant digits of a decimal that may stand for a value that is not one."""
NUM_POINTS_OF_SMOOTH, NUM_POINTS = 3, 30
"""At how many points two formulas must agree: smooth ones, and others."""
MAX_NUM_MISSES = 40
"""After how many points without a value no further ones are tried."""


def is_equal(one: Node, other: Node) -> bool:
    """Whether two formulas are the same, whatever their variables stand for."""
    if one == other:
        return True
    names = sorted(names_of(one) | names_of(other))
    try:
        if not names:
            return _compare_at(one, other, {}).is_same or _is_rounded(one, other) or _is_rounded(other, one)
        return _is_identity(one, other, names) or _is_identity_of_integers(one, other, names)
    except UnevaluableError:
        return False


def is_zero(node: Node) -> bool:
    return is_equal(node, Number(Fraction(0)))


def real_value(node: Node) -> Any:
    """A closed formula's real value at BASE_DIGITS digits, to order it by. Raises UnevaluableError if it has none."""
    with mp.workdps(BASE_DIGITS):
        ball = BallEvaluator({}).ball(node)
        if not ball.is_real:
            raise UnevaluableError("a value that is not real")
        return mpmath.re(ball.value)


def is_proportional(one: Node, other: Node, *, is_positive: bool = False) -> bool:
    """Whether one formula is the other times a number that is not zero, or that is positive."""
    names = sorted(names_of(one))
    if not names or names != sorted(names_of(other)):
        return False
    # At some point both have a value; crossed with these values, the two must be the same formula.
    for point in points(names, [1], num_points=8):
        numbers = {name: Number(value) for name, value in point.items()}
        left, right = (with_names(node, dict(numbers)) for node in (one, other))
        try:
            if is_zero(left) or is_zero(right):
                continue
            if is_positive and not real_value(quotient(left, right)) > 0:
                return False
        except UnevaluableError:
            continue
        return is_equal(Product((one, right)), Product((other, left)))
    return False


# ---- at one point ----


@dataclass(frozen=True)
class _Comparison:
    """Two formulas at one point."""

    is_same: bool
    is_real: bool
    """Whether both values are."""


def _compare_at(one: Node, other: Node, point: Mapping[str, Fraction]) -> _Comparison:
    left, right = exact(one, point), exact(other, point)
    if left is not None and right is not None:
        return _Comparison(left == right, is_real=True)
    spread, is_real = 0, False
    for num_digits in (BASE_DIGITS, 4 * BASE_DIGITS, 16 * BASE_DIGITS):
        balls, gap, needed_spread = _evaluate(one, other, point, num_digits + spread)
        if needed_spread > spread + 10:
            if needed_spread > (MAX_SPREAD_AT_POINTS if point else MAX_SPREAD):
                raise UnevaluableError("magnitudes too far apart")
            spread = needed_spread
            balls, gap, _ = _evaluate(one, other, point, num_digits + spread)
        is_real = all(ball.is_real for ball in balls)
        if not gap.is_zero:
            return _Comparison(False, is_real)
        size = max(abs(ball.value) for ball in balls)
        with mp.workdps(BASE_DIGITS):
            if gap.error <= size * mp.mpf(10) ** -EQUAL_DIGITS:
                return _Comparison(True, is_real)
    # All precision is used up and the difference is still noise: both are zero, or nothing is known.
    return _Comparison(all(ball.is_zero for ball in balls), is_real)


def _evaluate(
    one: Node, other: Node, point: Mapping[str, Fraction], num_digits: int
) -> tuple[tuple[Ball, Ball], Ball, int]:
    """Both values, their difference, and the spread of magnitudes that was met."""
    with mp.workdps(num_digits):
        evaluator = BallEvaluator(point)
        left, right = evaluator.ball(one), evaluator.ball(other)
        spread = evaluator.spread
        return (left, right), evaluator.sum([left, Ball(-right.value, right.error)]), spread


# ---- at many points ----


def _is_identity(one: Node, other: Node, names: list[str]) -> bool:
    is_each_smooth = is_smooth(one) and is_smooth(other)
    num_needed = NUM_POINTS_OF_SMOOTH if is_each_smooth else NUM_POINTS
    scales = [1] if is_each_smooth else _scales(one, other)
    num_real, num_complex, num_misses, is_complex_same = 0, 0, 0, True
    for point in points(names, scales, num_points=num_needed + 2 * MAX_NUM_MISSES):
        try:
            result = _compare_at(one, other, point)
        except UnevaluableError:
            num_misses += 1
            if num_misses > MAX_NUM_MISSES:
                return False
            continue
        counts = result.is_real or is_each_smooth
        if counts and not result.is_same:
            return False
        num_real, num_complex = num_real + counts, num_complex + (not counts)
        is_complex_same = is_complex_same and result.is_same
        if num_real >= num_needed:
            return True
    return is_complex_same and num_real + num_complex >= num_needed


def _is_identity_of_integers(one: Node, other: Node, names: list[str]) -> bool:
    r"""`\lfloor 2n/3\rfloor+1` is `\lceil(2n+1)/3\rceil` for integers only, which n is."""
    if not integer_names(one, other):
        return False
    num_equal = 0
    for point in points_of_integers(names, num_points=2 * NUM_POINTS):
        try:
            if not _compare_at(one, other, point).is_same:
                return False
        except UnevaluableError:
            continue
        num_equal += 1
    return num_equal >= NUM_POINTS


def _scales(one: Node, other: Node) -> list[int]:
    """Sizes of points: the formulas' own numbers are where their pieces can meet."""
    numbers = {max(1, abs(math.ceil(value))) for node in (one, other) for value in _numbers_in(node)}
    return [1, 12, 300, *sorted(numbers - {1, 2, 3})[:6]]


def _numbers_in(node: Node) -> list[Fraction]:
    if isinstance(node, Number):
        return [node.value] if abs(node.value) < 1 << 40 else []
    return [value for child in children(node) for value in _numbers_in(child)]


# ---- decimals ----


def _is_rounded(decimal: Node, value: Node) -> bool:
    """Whether a decimal with enough digits is another value, rounded or cut at the last digit."""
    if not isinstance(decimal, Number) or (decimal.num_digits or 0) < MIN_ROUNDED_DIGITS or isinstance(value, Number):
        return False
    rational = exact(value)
    if rational is not None:
        scaled = rational * 10**decimal.num_places
        candidates = set() if _is_decimal(rational) else {round(scaled), math.trunc(scaled)}
    else:
        with mp.workdps(BASE_DIGITS + (decimal.num_digits or 0)):
            ball = BallEvaluator({}).ball(value)
            number = mpmath.re(ball.value) * mp.mpf(10) ** decimal.num_places
            candidates = {int(mp.nint(number)), int(number)} if ball.is_real else set()
    return decimal.value * 10**decimal.num_places in candidates


def _is_decimal(value: Fraction) -> bool:
    """Whether the value has a decimal that ends."""
    rest = value.denominator
    for prime in (2, 5):
        while rest % prime == 0:
            rest //= prime
    return rest == 1
