r"""Reads a formula from tokens. Pure; the tree it makes is in `relay_verl.grading.formula_tree`.

Why not latex2sympy, which math-verify has: it drops the base of `52_8`, takes `I` for the imaginary unit and `2E+3` for
2000, adds in `2\binom{5}{2}`, reduces `\gcd(m,n)` to 1, and needs 15 to 150 ms for a formula; none of it is an option.

What is read (the room's README has the reasons):
- Each letter is a variable, and capitals count; `e` is Euler's number, `i` the imaginary unit (unless a sum counts
  with it), `\pi` is pi. A subscript, a prime and an accent belong to the name.
- `f(x)`, `I(0)`, `x(t)` are applied functions, `n(n+1)` is a product, `\frac{dx}{dt}` is one name.
- `a/bc` is a/(bc). What has two readings is refused: `1/2x`, `\sin x/2`, `x2`, words in a formula.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from fractions import Fraction

from relay_verl.grading.formula_tree import (
    Call,
    Name,
    Node,
    Number,
    Percentage,
    Power,
    Sum,
    negative,
    product,
    quotient,
)
from relay_verl.grading.latex import Token, UnreadableError, bracket_step, matching, plain
from relay_verl.grading.name_reader import NameReader

MAX_DEPTH = 60
"""Most brackets inside one another; each costs the reader six frames of the stack."""

_TRIGONOMETRIC = ["sin", "cos", "tan", "cot", "sec", "csc", "sinh", "cosh", "tanh", "coth"]
ARC_FUNCTIONS = {f"arc{name}": f"a{name}" for name in _TRIGONOMETRIC} | {
    f"ar{name}": f"a{name}" for name in ("sinh", "cosh", "tanh")
}
TRIGONOMETRIC = frozenset(_TRIGONOMETRIC)
FUNCTIONS = frozenset([*_TRIGONOMETRIC, *ARC_FUNCTIONS, "log", "ln", "lg", "exp"])
LIST_FUNCTIONS = frozenset(["gcd", "lcm", "max", "min", "floor", "ceil", "abs"])
WORD_FUNCTIONS = FUNCTIONS | LIST_FUNCTIONS | {"sqrt", "pi", "infty", "infinity"}
_CLOSERS = {"(": ")", "[": "]", "{": "}", r"\lfloor": r"\rfloor", r"\lceil": r"\rceil"}
_STARTS_NO_FACTOR = frozenset([r"\rfloor", r"\rceil", r"\choose", r"\over"])


class FormulaReader(NameReader, ABC):
    """Recursive descent; `command_reader` has the commands."""

    def __init__(self, tokens: list[Token]) -> None:
        super().__init__(tokens)
        self.depth = 0
        """Open groups."""
        self.num_bars = 0
        """Open bars of absolute values in this group."""

    def all(self) -> Node:
        """The formula that all of the tokens are. Raises UnreadableError if they are none, or more than one."""
        node = self.infix(0, len(self.tokens))
        if node is None:
            node = self.sum()
            if self.position < len(self.tokens):
                raise UnreadableError(f"{self.tokens[self.position].text!r} is not expected here")
        return node

    def sum(self) -> Node:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise UnreadableError(f"more than {MAX_DEPTH} brackets inside one another")
        terms: list[Node] = []
        sign = self.sign()
        while True:
            term = self.product()
            terms.append(negative(term) if sign < 0 else term)
            if self.peek() not in ("+", "-"):
                break
            sign = self.sign()
        self.depth -= 1
        return terms[0] if len(terms) == 1 else Sum(tuple(terms))

    def sign(self) -> int:
        sign = 1
        while self.peek() in ("+", "-"):
            sign = -sign if self.take().text == "-" else sign
        return sign

    def product(self) -> Node:
        factors = [self.implicit_product()]
        while True:
            operator = self.peek()
            if operator == "*":
                self.take()
                sign = self.sign()  # '2 \cdot -3'
                factor = self.implicit_product()
                factors.append(negative(factor) if sign < 0 else factor)
            elif operator == "/":
                self.take()
                sign = self.sign()
                below = self.implicit_product(is_divisor=True)
                factors[-1] = quotient(factors[-1], negative(below) if sign < 0 else below)
            else:
                return product(*factors)

    def implicit_product(self, *, is_divisor: bool = False) -> Node:
        start = self.position
        factors = [self.factor()]
        while self.starts_factor():
            token = self.tokens[self.position]
            if token.kind == "number" and not self.is_number_a_factor():
                raise UnreadableError("a number behind a factor")
            if is_divisor and self.tokens[start].kind == "number" and len(factors) == 1:
                raise UnreadableError("1/2x has two readings")
            factors.append(self.factor())
        if len(factors) > 1 and any(isinstance(factor, Name) and factor.text.startswith("<") for factor in factors):
            raise UnreadableError("words in a formula")
        return product(*factors)

    def is_number_a_factor(self) -> bool:
        """In `(n-2)2^n` and `2^a 3^b`, but not in `3 5` and `x2`."""
        before = self.tokens[self.position - 1]
        is_power = self.position + 1 < len(self.tokens) and self.tokens[self.position + 1].text == "^"
        return before.text in (")", "}", "]", "!") or (is_power and before.kind != "number")

    def starts_factor(self) -> bool:
        kind, text = self.kind(), self.peek()
        if kind in ("number", "letter", "text"):
            return True
        if kind == "command":
            return text not in _STARTS_NO_FACTOR
        return text in ("(", "[", "{") or (text == "|" and self.num_bars == 0)

    def factor(self) -> Node:
        """A base with what is behind it: powers, factorials, a percent sign."""
        node = self.base()
        while True:
            text = self.peek()
            if text == "^":
                self.take()
                node = Power(node, self.exponent())
            elif text == "!":
                self.take()
                if self.peek() == "!":
                    raise UnreadableError("a double factorial")
                node = Call("factorial", (node,))
            elif text == "%":
                self.take()
                node = Percentage(node)
            elif text == "_":
                raise UnreadableError("a subscript of what has no name")
            else:
                return node

    def exponent(self) -> Node:
        sign = self.sign()  # '10^-3'
        node = self.argument()
        return negative(node) if sign < 0 else node

    def argument(self) -> Node:
        """What a command or `^` takes: a group, or one token. Respelled text has braces around all arguments."""
        return self.group("{") if self.peek() == "{" else self.base()

    def group(self, opener: str) -> Node:
        self.expect(opener)
        if self.position < len(self.tokens) and self.peek() == _CLOSERS[opener]:
            raise UnreadableError("an empty group")
        bars, self.num_bars = self.num_bars, 0
        start = self.position
        if opener == "{":
            end = matching(self.tokens, start - 1)
            infix = self.infix(start, end)
            if infix is not None:
                self.num_bars, self.position = bars, end + 1
                return infix
        node = self.sum()
        self.expect(_CLOSERS[opener])
        self.num_bars = bars
        return node

    def infix(self, start: int, end: int) -> Node | None:
        r"""`n \choose k` and `a \over b`, which divide all of their group."""
        depth = 0
        for index in range(start, end):
            text = self.tokens[index].text
            depth += bracket_step(self.tokens[index])
            if depth == 0 and text in (r"\choose", r"\over"):
                above = type(self)(self.tokens[start:index]).all()
                below = type(self)(self.tokens[index + 1 : end]).all()
                return Call("binomial", (above, below)) if text == r"\choose" else quotient(above, below)
        return None

    def base(self) -> Node:
        token = self.tokens[self.position] if self.position < len(self.tokens) else Token("sign", "")
        if token.kind == "number":
            self.take()
            return number(token.text)
        if token.kind in ("letter", "text"):
            return self.word()
        if token.text in _CLOSERS:
            if token.text in (r"\lfloor", r"\lceil"):
                return Call("floor" if token.text == r"\lfloor" else "ceil", (self.group(token.text),))
            return self.group(token.text)
        if token.text in ("|", r"\|"):
            return self.absolute()
        if token.kind == "command":
            return self.command()
        raise UnreadableError(f"{token.text!r} is not expected here")

    def absolute(self) -> Node:
        self.take()
        self.num_bars += 1
        node = self.sum()
        self.expect("|")
        self.num_bars -= 1
        return Call("abs", (node,))

    def word(self) -> Node:
        """A variable, or a function that is spelled without its backslash."""
        token = self.tokens[self.position]
        if token.kind == "letter":
            end = self.position + 1
            while end < len(self.tokens) and self.tokens[end].kind == "letter" and not self.tokens[end].is_spaced:
                end += 1
            run = plain(self.tokens[self.position : end])
            if run in WORD_FUNCTIONS:
                self.position = end
                return self.function(run)
        self.take()
        text = token.text
        if token.kind == "text":
            if text in WORD_FUNCTIONS:
                return self.function(text)
            if not re.fullmatch(r"[A-Za-z]+", text):
                raise UnreadableError("words in a formula")
            if len(text) == 1:
                return self.name(text)
            return self.name(f"<{text}>")
        return self.name(text)

    @abstractmethod
    def command(self) -> Node:
        """Read the command at the position."""

    @abstractmethod
    def function(self, name: str) -> Node:
        """Read the arguments of a function whose name was taken."""


def number(text: str) -> Number:
    whole, point, places = text.partition(".")
    digits = (whole + places).lstrip("0")
    if not point:
        return Number(Fraction(int(whole)))
    return Number(Fraction(int(whole + places), 10 ** len(places)), len(digits), len(places))
