r"""The rational value of a formula, where it has one. Pure.

Invariant: no number outgrows MAX_BITS, and no evaluation MAX_STEPS: 9^{9^9}, 10^9! and a sum to 10^9 end at once.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from fractions import Fraction

from relay_verl.grading.formula_tree import Call, Name, Node, Number, Percentage, Power, Product, Series, Sum

MAX_BITS = 1 << 17
"""Most bits of a number that is calculated exactly."""
MAX_STEPS = 100_000
"""Most operations of one evaluation."""
INTEGER_FUNCTIONS = frozenset(["factorial", "binomial", "floor", "ceil", "gcd", "lcm"])
"""Functions that are about integers, or give integers."""


class UnevaluableError(Exception):
    """The formula has no value here, or none that is found within the bounds."""


class _NotRationalError(Exception):
    """The value is not rational, or is not found with rational numbers alone."""


def exact(node: Node, point: Mapping[str, Fraction] | None = None) -> Fraction | None:
    """The formula's rational value; None if it has none, or none that is found with rational numbers alone."""
    try:
        return _Exact(point or {}).value(node)
    except (_NotRationalError, ZeroDivisionError, OverflowError):
        return None


class _Exact:
    def __init__(self, point: Mapping[str, Fraction]) -> None:
        self.point = dict(point)
        self.num_steps = 0

    def value(self, node: Node) -> Fraction:
        self.num_steps += 1
        if self.num_steps > MAX_STEPS:
            raise UnevaluableError("too many operations")
        result = self._value(node)
        if max(result.numerator.bit_length(), result.denominator.bit_length()) > MAX_BITS:
            raise _NotRationalError
        return result

    def _value(self, node: Node) -> Fraction:
        match node:
            case Number():
                return node.value
            case Name():
                if node.text not in self.point:
                    raise _NotRationalError
                return self.point[node.text]
            case Sum():
                return sum((self.value(term) for term in node.terms), Fraction(0))
            case Product():
                result = Fraction(1)
                for factor in node.factors:
                    result *= self.value(factor)
                    if result.numerator.bit_length() + result.denominator.bit_length() > 2 * MAX_BITS:
                        raise _NotRationalError
                return result
            case Power():
                return _exact_power(self.value(node.base), self.value(node.exponent))
            case Percentage():
                return self.value(node.value) / 100
            case Call():
                return self.call(node.function, [self.value(argument) for argument in node.arguments])
            case Series():
                return self.series(node)
        raise _NotRationalError

    def call(self, function: str, arguments: list[Fraction]) -> Fraction:
        value = arguments[0]
        if function in ("floor", "ceil", "abs"):
            return abs(value) if function == "abs" else Fraction(getattr(math, function)(value))
        if function in ("max", "min"):
            return max(arguments) if function == "max" else min(arguments)
        if function == "log":
            return _exact_logarithm(value, arguments[1])
        if function in INTEGER_FUNCTIONS and all(argument.denominator == 1 for argument in arguments):
            return Fraction(_integer_function(function, [argument.numerator for argument in arguments]))
        raise _NotRationalError

    def series(self, node: Series) -> Fraction:
        first, last = self.value(node.first), self.value(node.last)
        outer = self.point.get(node.counter)
        result = Fraction(node.kind == "prod")
        for counter in counters(first, last):
            self.point[node.counter] = Fraction(counter)
            value = self.value(node.body)
            result = result * value if node.kind == "prod" else result + value
            if result.numerator.bit_length() + result.denominator.bit_length() > MAX_BITS:
                raise _NotRationalError
        self.point.pop(node.counter, None)
        if outer is not None:
            self.point[node.counter] = outer
        return result


def counters(first: Fraction, last: Fraction) -> range:
    if first.denominator != 1 or last.denominator != 1:
        raise UnevaluableError("a sum whose limits are not integers")
    if last - first > MAX_STEPS:
        raise UnevaluableError("a sum with too many terms")
    if last < first - 1:
        raise UnevaluableError("a sum whose limits are in the wrong order")
    return range(first.numerator, last.numerator + 1)


def _exact_power(base: Fraction, exponent: Fraction) -> Fraction:
    if base in (0, 1) or exponent in (0, 1):
        if base == 0 and exponent <= 0:
            raise ZeroDivisionError
        return base if exponent == 1 or base in (0, 1) else Fraction(1)
    if base == -1 and exponent.denominator == 1:
        return Fraction(-1 if exponent.numerator % 2 else 1)
    num_bits = max(base.numerator.bit_length(), base.denominator.bit_length())
    if abs(exponent) * num_bits > MAX_BITS:
        raise _NotRationalError
    if exponent.denominator == 1:
        return base**exponent.numerator
    if base < 0 and exponent.denominator % 2 == 0:
        raise _NotRationalError
    above, below = (_exact_root(abs(part), exponent.denominator) for part in (base.numerator, base.denominator))
    root = Fraction(above, below) * (-1 if base < 0 else 1)
    return root**exponent.numerator


def _exact_root(value: int, degree: int) -> int:
    if degree == 2:
        root = math.isqrt(value)
    elif degree > value.bit_length():
        raise _NotRationalError
    else:
        low, high = 0, 1 << (value.bit_length() // degree + 1)
        while low < high - 1:
            middle = (low + high) // 2
            low, high = (middle, high) if middle**degree <= value else (low, middle)
        root = low
    if root**degree != value:
        raise _NotRationalError
    return root


def _exact_logarithm(value: Fraction, base: Fraction) -> Fraction:
    """Of a power of the base: log_2 8 is 3, and log_4 8 is 3/2."""
    if value == 1 and base > 0 and base != 1:
        return Fraction(0)
    if value <= 0 or base <= 0 or base == 1:
        raise _NotRationalError
    estimate = Fraction(math.log(value) / math.log(base)).limit_denominator(64)
    if estimate == 0 or value.numerator.bit_length() + value.denominator.bit_length() > 4096:
        raise _NotRationalError
    if base ** abs(estimate.numerator) != (value if estimate > 0 else 1 / value) ** estimate.denominator:
        raise _NotRationalError
    return estimate


def _integer_function(function: str, arguments: list[int]) -> int:
    if function == "factorial":
        return _factorial(arguments[0])
    if function == "binomial":
        above, below = arguments
        if above < 0:
            raise _NotRationalError
        below = min(below, above - below) if 0 <= below <= above else below
        if below > 0 and min(below, above) * max(above.bit_length(), 1) > MAX_BITS:
            raise _NotRationalError
        return math.comb(above, below) if below >= 0 else 0
    if function == "gcd":
        return math.gcd(*arguments)
    if max(argument.bit_length() for argument in arguments) > 4096 or len(arguments) > 20:
        raise _NotRationalError
    return math.lcm(*arguments)


def _factorial(value: int) -> int:
    if value < 0:
        raise ZeroDivisionError
    if value * max(value.bit_length(), 1) > MAX_BITS:
        raise _NotRationalError
    return math.factorial(value)
