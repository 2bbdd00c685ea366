r"""Are two formulas equal? Exactly where both are rational, else at as many digits as it takes. Pure.

Invariants:
- "Not equal" is certain: each value comes with a bound of its error, and two values differ only if the bounds say so.
- "Equal" means: the same rational number, or no difference within a relative error of 1e-40, at a precision that grows
  with the spread of the magnitudes that are added. `1+2^{-99}` is not `1+2^{-98}`.
- No evaluation outgrows MAX_BITS and MAX_STEPS: 9^{9^9}, 10^9! and a sum to 10^9 raise UnevaluableError at once.

Formulas with variables are compared at points: random dyadic numbers, of both signs, at which both sides are real. If
there are none, complex values count. If a formula is about integers (factorials, floors, sums), and is written in n, m
or k, then points are natural numbers.

A decimal is the rational number that it spells. It also equals a value that is no decimal if it has at least
MIN_ROUNDED_DIGITS digits and is that value rounded, or cut, at its last digit: 0.33333333 is 1/3, and 0.333 is not.
"""

from __future__ import annotations

import math
import random
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import mpmath
from mpmath import mp

from relay_verl.grading.expressions import Call, Constant, Name, Node, Number, Power, Product, Scaled, Series, Sum

MAX_BITS = 1 << 17
"""Most bits of a number that is calculated exactly."""
MAX_SPREAD = 4000
"""Most decimal orders of magnitude between two numbers that are added."""
MAX_STEPS = 100_000
"""Most operations of one evaluation."""
MIN_ROUNDED_DIGITS = 8
"""Least significant digits of a decimal that may stand for a value which is no decimal."""
BASE_DIGITS = 60
EQUAL_DIGITS = 40
MIN_NUM_POINTS = 3
NUM_POINTS = 24
INTEGER_NAMES = frozenset("nmkjlNMK")
_SMOOTH_FUNCTIONS = frozenset("sin cos tan cot sec csc sinh cosh tanh coth".split())
_INTEGER_FUNCTIONS = frozenset(["factorial", "binomial", "floor", "ceil", "gcd", "lcm"])


class UnevaluableError(Exception):
    """The formula has no value here, or none that is found within the bounds."""


# ---- exact values ----


def exact(node: Node, point: Mapping[str, Fraction] | None = None) -> Fraction | None:
    """The formula's rational value; None if it has none, or none that is found with rational numbers alone."""
    try:
        return _Exact(point or {}).value(node)
    except (_NotRationalError, ZeroDivisionError, OverflowError):
        return None


class _NotRationalError(Exception):
    pass


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
            case Scaled(unit="%"):
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
        if function in _INTEGER_FUNCTIONS and all(argument.denominator == 1 for argument in arguments):
            return Fraction(_integer_function(function, [argument.numerator for argument in arguments]))
        raise _NotRationalError

    def series(self, node: Series) -> Fraction:
        first, last = self.value(node.first), self.value(node.last)
        outer = self.point.get(node.counter)
        result = Fraction(node.kind == "prod")
        for counter in _counters(first, last):
            self.point[node.counter] = Fraction(counter)
            value = self.value(node.body)
            result = result * value if node.kind == "prod" else result + value
            if result.numerator.bit_length() + result.denominator.bit_length() > MAX_BITS:
                raise _NotRationalError
        self.point.pop(node.counter)
        if outer is not None:
            self.point[node.counter] = outer
        return result


def _counters(first: Fraction, last: Fraction) -> range:
    if first.denominator != 1 or last.denominator != 1:
        raise UnevaluableError("a sum between limits that are no integers")
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


# ---- values with a bound of their error ----


@dataclass(frozen=True)
class Ball:
    """A number of mpmath, and how far it can be from the true one."""

    value: Any
    error: Any

    @property
    def is_real(self) -> bool:
        return abs(mpmath.im(self.value)) <= self.error

    @property
    def is_zero(self) -> bool:
        """Whether it can be zero."""
        return abs(self.value) <= self.error


class _Evaluator:
    """Values of one formula at one point, at mpmath's current precision."""

    def __init__(self, point: Mapping[str, Fraction]) -> None:
        self.point = dict(point)
        self.epsilon = mp.mpf(10) ** (2 - mp.dps)
        self.num_steps = 0
        self.spread = 0
        """Largest number of decimal orders of magnitude between two terms of a sum."""

    def ball(self, node: Node) -> Ball:
        self.num_steps += 1
        if self.num_steps > MAX_STEPS:
            raise UnevaluableError("too many operations")
        match node:
            case Number():
                return self.rational(node.value)
            case Name():
                if node.text not in self.point:
                    raise UnevaluableError(node.text)
                return self.rational(self.point[node.text])
            case Constant(text="pi"):
                return self.rounded(+mp.pi)
            case Constant(text="e"):
                return self.rounded(+mp.e)
            case Constant(text="i"):
                return Ball(mp.mpc(0, 1), mp.zero)
            case Sum():
                return self.sum([self.ball(term) for term in node.terms])
            case Product():
                return self.product([self.ball(factor) for factor in node.factors])
            case Power():
                return self.power(node)
            case Scaled(unit="%"):
                return self.product([self.ball(node.value), self.rational(Fraction(1, 100))])
            case Call():
                return self.call(node)
            case Series():
                return self.series(node)
        raise UnevaluableError(repr(node)[:80])

    def rational(self, value: Fraction) -> Ball:
        if value.denominator == 1 and value.numerator.bit_length() <= mp.prec:
            return Ball(mp.mpf(value.numerator), mp.zero)
        return self.rounded(mp.mpf(value.numerator) / value.denominator)

    def rounded(self, value: Any, error: Any = 0) -> Ball:
        return Ball(value, error + abs(value) * self.epsilon)

    def sum(self, terms: list[Ball]) -> Ball:
        sizes = [mpmath.mag(term.value) for term in terms if not term.is_zero]
        if len(sizes) > 1:
            self.spread = max(self.spread, int(0.302 * (max(sizes) - min(sizes))))
        total, scale = terms[0].value, mp.zero
        for term in terms[1:]:
            total = total + term.value
        for term in terms:
            scale += abs(term.value)
        return Ball(total, sum((term.error for term in terms), mp.zero) + scale * self.epsilon)

    def product(self, factors: list[Ball]) -> Ball:
        result = factors[0]
        for factor in factors[1:]:
            error = abs(result.value) * factor.error + abs(factor.value) * result.error + result.error * factor.error
            result = self.rounded(result.value * factor.value, error)
        return result

    def power(self, node: Power) -> Ball:
        exponent = exact(node.exponent, self.point)
        base = self.ball(node.base)
        if exponent is not None and exponent.denominator == 1:
            return self.integer_power(base, exponent.numerator)
        power = self.ball(node.exponent)
        if base.is_zero:
            if base.value == 0 and base.error == 0 and power.is_real and mpmath.re(power.value) > power.error:
                return Ball(mp.zero, mp.zero)
            raise UnevaluableError("a power of zero")
        logarithm = mp.log(abs(base.value))
        if abs(power.value) * (abs(logarithm) + 4) > 1 << 30:
            raise UnevaluableError("too large a power")
        is_negative_real = base.is_real and mpmath.re(base.value) < 0
        if exponent is not None and is_negative_real and exponent.denominator % 2:
            value = mp.power(abs(mpmath.re(base.value)), mp.mpf(exponent.numerator) / exponent.denominator)
            value = -value if exponent.numerator % 2 else value  # the real root: \sqrt[3]{-8} is -2
        else:
            value = mp.power(mpmath.re(base.value) if base.is_real else base.value, power.value)
        relative = abs(power.value) * base.error / abs(base.value) * 2 + power.error * (abs(logarithm) + 4)
        return self.rounded(value, abs(value) * (relative + self.epsilon * (1 + abs(power.value) * (abs(logarithm) + 4))))

    def integer_power(self, base: Ball, exponent: int) -> Ball:
        if exponent == 0:
            return Ball(mp.one, mp.zero)
        if base.is_zero:
            if exponent > 0 and base.value == 0 and base.error == 0:
                return base
            if exponent < 0:
                raise UnevaluableError("a division by zero")
            # A value that may be zero: bound it from above.
            size = abs(base.value) + base.error
            return Ball(base.value**min(exponent, 1 << 20), size ** min(exponent, 1 << 20))
        if abs(exponent) * (abs(mpmath.mag(base.value)) + 1) > 1 << 40:
            raise UnevaluableError("too large a power")
        relative = base.error / (abs(base.value) - base.error) * abs(exponent)
        if relative > 0.1:
            raise UnevaluableError("too large a power")
        value = mp.power(base.value, exponent)
        return self.rounded(value, abs(value) * (2 * relative + self.epsilon * (abs(exponent).bit_length() + 1)))

    def call(self, node: Call) -> Ball:
        rational = exact(node, self.point)
        if rational is not None:
            return self.rational(rational)
        arguments = [self.ball(argument) for argument in node.arguments]
        function, first = node.function, arguments[0]
        if function == "log":
            return self.logarithm(first, arguments[1])
        if function in ("max", "min"):
            if not all(argument.is_real for argument in arguments):
                raise UnevaluableError("an order of complex numbers")
            return (max if function == "max" else min)(arguments, key=lambda ball: mpmath.re(ball.value))
        if function in ("floor", "ceil"):
            return self.integer_part(function, first)
        if function == "abs":
            return Ball(abs(first.value), first.error)
        if function == "factorial":
            return self.slope(lambda x: mp.gamma(x + 1), first, limit=10_000)
        if function == "binomial":
            above, below = (argument.value for argument in arguments)
            if abs(above) > 10_000 or abs(below) > 10_000:
                raise UnevaluableError("too large a binomial")
            shift = max(argument.error for argument in arguments) + self.epsilon
            value = mp.binomial(above, below)
            near = mp.binomial(above + shift, below + shift)
            return self.rounded(value, 4 * abs(near - value) + abs(value) * self.epsilon * 100)
        if not hasattr(mp, function):
            raise UnevaluableError(function)
        return self.slope(getattr(mp, function), first)

    def logarithm(self, value: Ball, base: Ball) -> Ball:
        if value.is_zero or base.is_zero:
            raise UnevaluableError("a logarithm of zero")
        above = self.slope(mp.log, value)
        if base.value == mp.e:
            return above
        below = self.slope(mp.log, base)
        return self.product([above, self.integer_power(below, -1)])

    def slope(self, function: Any, argument: Ball, limit: int = 1 << 40) -> Ball:
        """A function's value; its error is measured, by its value at the argument's next possible one."""
        value = mpmath.re(argument.value) if argument.is_real else argument.value
        if abs(value) > limit:
            raise UnevaluableError("too large an argument")
        shift = argument.error + self.epsilon * (abs(value) + self.epsilon)
        try:
            result, near = function(value), function(value + shift)
        except (ValueError, ZeroDivisionError) as error:
            raise UnevaluableError(str(error)) from error
        if not (mpmath.isfinite(result) and mpmath.isfinite(near)):
            raise UnevaluableError("a pole")
        return self.rounded(result, 4 * abs(near - result) + abs(result) * self.epsilon * 10)

    def integer_part(self, function: str, argument: Ball) -> Ball:
        if not argument.is_real or abs(argument.value) > 1 << 100:
            raise UnevaluableError("an integer part")
        value = mpmath.re(argument.value)
        nearest = mp.nint(value)
        if abs(value - nearest) <= max(argument.error, self.epsilon * 1000):
            return Ball(nearest, mp.zero)
        return Ball((mp.floor if function == "floor" else mp.ceil)(value), mp.zero)

    def series(self, node: Series) -> Ball:
        first, last = exact(node.first, self.point), exact(node.last, self.point)
        if first is None or last is None:
            raise UnevaluableError("a sum without limits")
        outer = self.point.get(node.counter)
        balls = []
        for counter in _counters(first, last):
            self.point[node.counter] = Fraction(counter)
            balls.append(self.ball(node.body))
        self.point.pop(node.counter, None)
        if outer is not None:
            self.point[node.counter] = outer
        if not balls:
            return self.rational(Fraction(node.kind == "prod"))
        return self.sum(balls) if node.kind == "sum" else self.product(balls)


# ---- comparing ----


def is_equal(one: Node, other: Node) -> bool:
    """Whether two formulas are the same, whatever their variables stand for."""
    if one == other:
        return True
    names = names_of(one) | names_of(other)
    try:
        if not names:
            return _is_equal_at(one, other, {}) or _is_rounded(one, other) or _is_rounded(other, one)
        return _is_identity(one, other, sorted(names))
    except UnevaluableError:
        return False


def names_of(node: Node) -> frozenset[str]:
    """The variables of a formula; a sum's counter is none."""
    match node:
        case Name():
            return frozenset([node.text])
        case Series():
            return names_of(node.first) | names_of(node.last) | (names_of(node.body) - {node.counter})
    return frozenset().union(*(names_of(child) for child in children(node)))


def children(node: Node) -> tuple[Node, ...]:
    match node:
        case Sum():
            return node.terms
        case Product():
            return node.factors
        case Power():
            return (node.base, node.exponent)
        case Call():
            return node.arguments
        case Series():
            return (node.body, node.first, node.last)
        case Scaled():
            return (node.value,)
    return ()


def real_value(node: Node) -> Any:
    """A closed formula's real value at BASE_DIGITS digits, to order it by. Raises UnevaluableError if it has none."""
    with mp.workdps(BASE_DIGITS):
        ball = _Evaluator({}).ball(node)
        if not ball.is_real:
            raise UnevaluableError("a value that is not real")
        return mpmath.re(ball.value)


def is_zero(node: Node) -> bool:
    return is_equal(node, Number(Fraction(0)))


def _is_equal_at(one: Node, other: Node, point: Mapping[str, Fraction]) -> bool:
    left, right = exact(one, point), exact(other, point)
    if left is not None and right is not None:
        return left == right
    balls = _compare_balls(one, other, point)
    return balls is not None


def _compare_balls(one: Node, other: Node, point: Mapping[str, Fraction]) -> tuple[Ball, Ball] | None:
    """The values of both if they are equal, else None."""
    spread, last_pair = 0, None
    for num_digits in (BASE_DIGITS, 4 * BASE_DIGITS, 16 * BASE_DIGITS):
        with mp.workdps(num_digits + spread):
            pair, difference, found_spread = _evaluate(one, other, point)
            if found_spread > spread + 10:
                spread = found_spread
                if spread > MAX_SPREAD:
                    raise UnevaluableError("magnitudes too far apart")
                mp.dps = num_digits + spread
                pair, difference, _ = _evaluate(one, other, point)
            if not difference.is_zero:
                return None
            size = max(abs(pair[0].value), abs(pair[1].value))
            if difference.error <= size * mp.mpf(10) ** -EQUAL_DIGITS or (size == 0 and difference.error == 0):
                return pair
            last_pair = pair
    # All precision is used up and the difference is still noise: both are zero, or nothing is known.
    assert last_pair is not None
    return last_pair if all(ball.is_zero for ball in last_pair) else None


def _evaluate(one: Node, other: Node, point: Mapping[str, Fraction]) -> tuple[tuple[Ball, Ball], Ball, int]:
    evaluator = _Evaluator(point)
    left, right = evaluator.ball(one), evaluator.ball(other)
    spread = evaluator.spread
    difference = evaluator.sum([left, Ball(-right.value, right.error)])
    return (left, right), difference, spread


def _is_identity(one: Node, other: Node, names: list[str]) -> bool:
    """Whether both have the same value at random points: a few for smooth formulas, many of all sizes for others."""
    is_smooth = _is_smooth(one) and _is_smooth(other)
    num_points, num_needed = (NUM_POINTS, MIN_NUM_POINTS) if is_smooth else (3 * NUM_POINTS, NUM_POINTS)
    scales = [1] if is_smooth else _scales(one, other)
    num_real, num_complex, is_complex_equal = 0, 0, True
    for index in range(num_points):
        point = {name: random_fraction(name, index) * scales[(index // 2 + n) % len(scales)] for n, name in enumerate(names)}
        try:
            is_real = _ball_at(one, point).is_real and _ball_at(other, point).is_real
            is_same = _is_equal_at(one, other, point)
        except UnevaluableError:
            continue
        if is_real and not is_same:
            break
        num_real, num_complex = num_real + is_real, num_complex + (not is_real)
        is_complex_equal = is_complex_equal and is_same
        if is_smooth and num_real >= num_needed:
            return True
    else:
        if num_real >= num_needed or (num_real == 0 and is_complex_equal and num_complex >= num_needed):
            return True
    integers = _integer_names(one) | _integer_names(other)
    return bool(integers) and integers <= INTEGER_NAMES and _is_identity_of_integers(one, other, names)


def _is_smooth(node: Node) -> bool:
    """Whether equality near some points is equality: no |x|, floor or root of variables, which have pieces."""
    if isinstance(node, Series) or (isinstance(node, Call) and node.function not in _SMOOTH_FUNCTIONS and names_of(node)):
        return False
    if isinstance(node, Power) and names_of(node.base):
        exponent = exact(node.exponent)
        if exponent is None or exponent.denominator != 1:
            return False
    if isinstance(node, Power) and names_of(node.exponent) and isinstance(node.base, Number) and node.base.value < 0:
        return False
    return all(map(_is_smooth, children(node)))


def _scales(one: Node, other: Node) -> list[int]:
    """Sizes of points: the formulas' own numbers are where their pieces can meet."""
    numbers = sorted({max(1, abs(math.ceil(value))) for node in (one, other) for value in _numbers_in(node)} - {1, 2, 3})
    return [1, 12, 300, *numbers[:6]]


def _numbers_in(node: Node) -> Iterator[Fraction]:
    if isinstance(node, Number) and abs(node.value) < 1 << 40:
        yield node.value
    for child in children(node):
        yield from _numbers_in(child)


def _is_identity_of_integers(one: Node, other: Node, names: list[str]) -> bool:
    num_equal = 0
    for index in range(3 * NUM_POINTS):
        point = {
            name: Fraction(_random(name, index).randrange(1, 6 + 3 * index))
            if name in INTEGER_NAMES
            else random_fraction(name, index)
            for name in names
        }
        try:
            if not _is_equal_at(one, other, point):
                return False
        except UnevaluableError:
            continue
        num_equal += 1
    return num_equal >= NUM_POINTS


def _ball_at(node: Node, point: Mapping[str, Fraction]) -> Ball:
    with mp.workdps(BASE_DIGITS):
        return _Evaluator(point).ball(node)


def _integer_names(node: Node) -> frozenset[str]:
    """The variables of a formula that must be integers: those of floors, factorials, sums' limits, powers of -1."""
    match node:
        case Series():
            inner = names_of(node.first) | names_of(node.last)
        case Call() if node.function in _INTEGER_FUNCTIONS:
            inner = names_of(node)
        case Power() if (exact(node.base) or 0) < 0:
            inner = names_of(node.exponent)
        case _:
            inner = frozenset()
    return inner.union(*(_integer_names(child) for child in children(node)))


def _random(name: str, index: int) -> random.Random:
    return random.Random(zlib.crc32(f"{name} {index}".encode()))


def random_fraction(name: str, index: int) -> Fraction:
    """A dyadic number between 0.25 and 4, of either sign at every second index; always the same."""
    generator = _random(name, index)
    value = Fraction(generator.randrange(1 << 14, 1 << 18) | 1, 1 << 16)
    return value if index % 2 or generator.random() < 0.5 else -value


def _is_rounded(decimal: Node, value: Node) -> bool:
    """Whether a decimal with enough digits is a value that is no decimal, rounded or cut at the last digit."""
    if not isinstance(decimal, Number) or (decimal.num_digits or 0) < MIN_ROUNDED_DIGITS or isinstance(value, Number):
        return False
    rational = exact(value)
    if rational is not None and _is_decimal(rational):
        return False
    with mp.workdps(BASE_DIGITS + (decimal.num_digits or 0)):
        scaled = rational * 10**decimal.num_places if rational is not None else None
        if scaled is None:
            ball = _Evaluator({}).ball(value)
            if not ball.is_real:
                return False
            number = mpmath.re(ball.value) * mp.mpf(10) ** decimal.num_places
            candidates = {int(mp.nint(number)), int(number)}
        else:
            candidates = {round(scaled), math.trunc(scaled)}
    return decimal.value * 10**decimal.num_places in candidates


def _is_decimal(value: Fraction) -> bool:
    """Whether the value has a decimal that ends."""
    rest = value.denominator
    for prime in (2, 5):
        while rest % prime == 0:
            rest //= prime
    return rest == 1
