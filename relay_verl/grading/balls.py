r"""The value of a formula at a point as a ball: a number with a bound of its error, at any precision. Pure.

Invariant: the true value is within the ball, so that balls apart are values apart. Bounds of functions are measured by
their slope, with a margin. No evaluation outgrows `exact`'s bounds, nor 2^(2^40).

Roots: an odd root of a negative number is the real one, `\sqrt[3]{-8}` is -2; other roots and logarithms of negative
numbers are complex.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import mpmath
from mpmath import mp

from relay_verl.grading.exact import MAX_STEPS, UnevaluableError, counters, exact
from relay_verl.grading.formula_tree import (
    Call,
    Constant,
    Name,
    Node,
    Number,
    Percentage,
    Power,
    Product,
    Series,
    Sum,
)


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


class BallEvaluator:
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
            case Percentage():
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
            if not (power.is_real and 1 << 20 > mpmath.re(power.value) > power.error):
                raise UnevaluableError("a power of zero")
            return Ball(mp.zero, (abs(base.value) + base.error) ** mpmath.re(power.value))
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
        return self.rounded(
            value, abs(value) * (relative + self.epsilon * (1 + abs(power.value) * (abs(logarithm) + 4)))
        )

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
            return Ball(base.value ** min(exponent, 1 << 20), size ** min(exponent, 1 << 20))
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
            num_chosen = exact(node.arguments[1], self.point)
            if num_chosen is not None and num_chosen.denominator == 1 and 0 <= num_chosen <= 200:
                return self.falling_binomial(first, num_chosen.numerator)
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

    def falling_binomial(self, above: Ball, num_chosen: int) -> Ball:
        """x(x-1)...(x-k+1)/k!"""
        factors = [self.sum([above, Ball(mp.mpf(-n), mp.zero)]) for n in range(num_chosen)]
        return self.product([self.rational(Fraction(1, math.factorial(num_chosen))), *factors])

    def logarithm(self, value: Ball, base: Ball) -> Ball:
        if value.is_zero or base.is_zero:
            raise UnevaluableError("a logarithm of zero")
        above = self.slope(mp.log, value)
        if base.value == mp.e:
            return above
        below = self.slope(mp.log, base)
        return self.product([above, self.integer_power(below, -1)])

    def slope(self, function: Callable[[Any], Any], argument: Ball, limit: int = 1 << 40) -> Ball:
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
        for counter in counters(first, last):
            self.point[node.counter] = Fraction(counter)
            balls.append(self.ball(node.body))
        self.point.pop(node.counter, None)
        if outer is not None:
            self.point[node.counter] = outer
        if not balls:
            return self.rational(Fraction(node.kind == "prod"))
        return self.sum(balls) if node.kind == "sum" else self.product(balls)
