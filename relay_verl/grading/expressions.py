r"""The formula of an answer as a tree, and the reader that makes it from tokens. Pure; evaluates nothing.

Why not latex2sympy: it drops the base of `52_8`, takes `I` for the imaginary unit and `2E+3` for 2000, adds in
`2\binom{5}{2}`, calculates `\gcd(m,n)` as that of polynomials, needs 15 to 150 ms for a formula, and none of this is
an option. What it cannot read is refused here, too: an answer that can be read in two ways is not graded as either.

What is read (the room's README has the reasons):
- Each letter is a variable, and capitals count; `e` is Euler's number, `i` the imaginary unit (unless a sum counts
  with it), `\pi` is pi. A subscript, a prime and an accent belong to the name.
- `f(x)`, `I(0)`, `x(t)` are applied functions, `n(n+1)` is a product.
- `1/2x` and `\sqrt12` have two readings: UnreadableError. `a/bc` is a/(bc).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

from relay_verl.grading.latex import Token, UnreadableError, plain

MAX_DEPTH = 60
"""Most brackets inside one another; each costs the reader six frames of the stack."""
MAX_DIGITS = 4096
"""Most digits of a number, and the largest power of ten of one."""


@dataclass(frozen=True)
class Node:
    """A part of a formula."""


@dataclass(frozen=True)
class Number(Node):
    """A rational number as written."""

    value: Fraction
    num_digits: int | None = None
    """Significant digits, if it is written as a decimal."""
    num_places: int = 0
    """Digits behind the point."""


@dataclass(frozen=True)
class Name(Node):
    """A variable, or a function applied to plain arguments: `x`, `v_0`, `f(x)`."""

    text: str


@dataclass(frozen=True)
class Constant(Node):
    """`pi`, `e`, `i` or `oo`."""

    text: str


@dataclass(frozen=True)
class Sum(Node):
    """Terms."""

    terms: tuple[Node, ...]


@dataclass(frozen=True)
class Product(Node):
    """Factors."""

    factors: tuple[Node, ...]


@dataclass(frozen=True)
class Power(Node):
    """`base^exponent`; a quotient is a product with a power of -1."""

    base: Node
    exponent: Node


@dataclass(frozen=True)
class Call(Node):
    """A known function: sin, log with its base second, floor, factorial, binomial, gcd, max, ..."""

    function: str
    arguments: tuple[Node, ...]


@dataclass(frozen=True)
class Series(Node):
    """A finite sum or product over a counter."""

    kind: str
    """`sum` or `prod`."""
    body: Node
    counter: str
    first: Node
    last: Node


@dataclass(frozen=True)
class Scaled(Node):
    """A percentage or an angle in degrees, whose sign an answer may leave out."""

    unit: str
    """`%` or `°`."""
    value: Node


ONE, MINUS_ONE = Number(Fraction(1)), Number(Fraction(-1))


def negative(node: Node) -> Node:
    return Number(-node.value, node.num_digits, node.num_places) if isinstance(node, Number) else product(MINUS_ONE, node)


def product(*factors: Node) -> Node:
    return factors[0] if len(factors) == 1 else Product(factors)


def quotient(above: Node, below: Node) -> Node:
    return Product((above, Power(below, MINUS_ONE)))


_TRIGONOMETRIC = "sin cos tan cot sec csc sinh cosh tanh coth".split()
_ARC = {f"arc{name}": f"a{name}" for name in _TRIGONOMETRIC} | {
    f"ar{name}": f"a{name}" for name in ("sinh", "cosh", "tanh")
}
_FUNCTIONS = frozenset([*_TRIGONOMETRIC, *_ARC, "log", "ln", "lg", "exp"])
_LIST_FUNCTIONS = frozenset(["gcd", "lcm", "max", "min"])
_WORD_FUNCTIONS = _FUNCTIONS | _LIST_FUNCTIONS | {"sqrt", "pi", "floor", "ceil", "abs", "infty", "infinity"}
_ACCENTS = frozenset(
    r"\hat \widehat \dot \ddot \vec \bar \overline \tilde \widetilde \overrightarrow \mathcal \mathscr \mathfrak"
    r" \mathbb \underline".split()
)
_GREEK = frozenset(
    r"\alpha \beta \gamma \delta \epsilon \zeta \eta \theta \iota \kappa \lambda \mu \nu \xi \rho \sigma \tau \upsilon"
    r" \phi \chi \psi \omega \Gamma \Delta \Theta \Lambda \Xi \Pi \Sigma \Upsilon \Phi \Psi \Omega \hbar \ell \varpi"
    r" \imath \jmath \nabla \partial \aleph \mho \odot \oplus \angle \triangle".split()
)
_CLOSERS = {"(": ")", "[": "]", "{": "}", r"\lfloor": r"\rfloor", r"\lceil": r"\rceil"}
_STARTS_NO_FACTOR = frozenset([")", "]", "}", r"\rfloor", r"\rceil", "+", "-", "*", "/", "^", "_", "!", ",", ";", "&"])
_FUNCTION_LETTERS = frozenset("fgh")


def read_expression(tokens: list[Token]) -> Node:
    r"""The formula that the tokens are. Raises UnreadableError if they are none, or more than one.

    >>> from relay_verl.grading.latex import tokenize
    >>> read_expression(tokenize("3x^2"))
    Product(factors=(Number(value=Fraction(3, 1), num_digits=None, num_places=0), Power(base=Name(text='x'), \
exponent=Number(value=Fraction(2, 1), num_digits=None, num_places=0))))
    """
    reader = _Reader(tokens)
    infix = reader.infix(0, len(tokens))
    if infix is not None:
        return infix
    node = reader.sum()
    if reader.position < len(tokens):
        raise UnreadableError(f"{tokens[reader.position].text!r} is not expected here")
    return node


def matching(tokens: list[Token], position: int) -> int:
    """Where the bracket closes that opens at a position; round and square ones may close one another."""
    depth = 0
    for index in range(position, len(tokens)):
        text = tokens[index].text if tokens[index].kind != "text" else ""
        if text in OPENERS or text.startswith(r"\begin{"):
            depth += 1
        elif text in CLOSERS or text.startswith(r"\end{"):
            depth -= 1
            if depth == 0:
                return index
    raise UnreadableError("a bracket that does not close")


OPENERS = frozenset(["(", "[", "{", r"\{", r"\lfloor", r"\lceil", r"\langle"])
CLOSERS = frozenset([")", "]", "}", r"\}", r"\rfloor", r"\rceil", r"\rangle"])


class _Reader:
    """Recursive descent over a list of tokens."""

    def __init__(self, tokens: list[Token]) -> None:
        self.tokens = tokens
        self.position = 0
        self.depth = 0
        self.num_bars = 0
        self.loose_digit = -1
        """Where the second digit of an unbraced pair stands."""
        # Where a sum counts with i, i is its counter and not the imaginary unit.
        self.counters = {
            tokens[n + 2].text
            for n, token in enumerate(tokens[:-3])
            if token.text in ("_",) and n and tokens[n - 1].text in (r"\sum", r"\prod") and tokens[n + 3].text == "="
        }

    # ---- tokens ----

    def peek(self, ahead: int = 0) -> str:
        index = self.position + ahead
        return self.tokens[index].text if index < len(self.tokens) and self.tokens[index].kind != "text" else ""

    def kind(self) -> str:
        return self.tokens[self.position].kind if self.position < len(self.tokens) else ""

    def take(self) -> Token:
        if self.position >= len(self.tokens):
            raise UnreadableError("the formula ends too early")
        self.position += 1
        return self.tokens[self.position - 1]

    def expect(self, text: str) -> None:
        if self.take().text != text:
            raise UnreadableError(f"expected {text!r}")

    # ---- grammar ----

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
                start = self.position
                sign = self.sign()
                below = self.implicit_product(is_divisor=True)
                if sign < 0 and self.position - start > 1:
                    below = negative(below)
                factors[-1] = quotient(factors[-1], below)
            elif operator in (r"\bmod", r"\mod"):
                raise UnreadableError("a residue")
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
        if len(factors) > 1:
            if any(isinstance(factor, Name) and factor.text.startswith("<") for factor in factors):
                raise UnreadableError("words in a formula")
            factors = self.as_mixed_number(start, factors)
        return product(*factors)

    def is_number_a_factor(self) -> bool:
        r"""In `(n-2)2^n` and `2^a 3^b`, but not in `3 5`, `x2` and `\frac{1}25`."""
        before = self.tokens[self.position - 1]
        is_power = self.position + 1 < len(self.tokens) and self.tokens[self.position + 1].text == "^"
        is_closed = before.text in (")", "}", "]", "!") or (is_power and before.kind != "number")
        return is_closed and self.position != self.loose_digit

    def as_mixed_number(self, start: int, factors: list[Node]) -> list[Node]:
        r"""`2\frac{1}{2}` is two and a half: an integer, then a fraction of plain integers below one."""
        whole, part = self.tokens[start], self.tokens[start + 1]
        is_plain = whole.kind == "number" and whole.text.isdigit() and part.text == r"\frac"
        fraction = factors[1]
        if not is_plain or not isinstance(fraction, Product) or len(fraction.factors) != 2:
            return factors
        above, below = fraction.factors[0], fraction.factors[1]
        if not (isinstance(above, Number) and isinstance(below, Power) and isinstance(below.base, Number)):
            return factors
        if any(number.num_digits is not None for number in (above, below.base)) or above.value < 0:
            return factors
        if not 0 < above.value < below.base.value:
            raise UnreadableError("an integer before an improper fraction has two readings")
        return [Sum((factors[0], fraction)), *factors[2:]]

    def starts_factor(self) -> bool:
        kind, text = self.kind(), self.peek()
        if kind in ("number", "letter", "text"):
            return True
        if kind == "command":
            return text not in _STARTS_NO_FACTOR and not text.startswith(r"\end") and text not in (r"\bmod", r"\mod")
        return text in ("(", "[", "{") or (text == "|" and self.num_bars == 0)

    def factor(self) -> Node:
        """A base with what is behind it: powers, factorials, the signs of percent and of degrees."""
        node = self.base()
        while True:
            text = self.peek()
            if text == "^":
                self.take()
                if self.peek() in (r"\circ",) or (self.peek() == "{" and self.peek(1) == r"\circ"):
                    self.skip_circle()
                    node = Scaled("°", node)
                    continue
                node = Power(node, self.exponent())
            elif text == r"\circ":
                self.take()
                node = Scaled("°", node)
            elif text == "!":
                self.take()
                if self.peek() == "!":
                    raise UnreadableError("a double factorial")
                node = Call("factorial", (node,))
            elif text == "%":
                self.take()
                node = Scaled("%", node)
            elif text == "_":
                raise UnreadableError("a subscript of what has no name")
            else:
                return node

    def skip_circle(self) -> None:
        if self.take().text == "{":
            self.take()
            self.expect("}")

    def exponent(self) -> Node:
        sign = self.sign()  # '10^-3'
        node = self.argument(is_digit=False)
        return negative(node) if sign < 0 else node

    def argument(self, *, is_digit: bool) -> Node:
        r"""What a command or `^` takes: a group, or one token; of a number one digit, as TeX has it, if `is_digit`."""
        if self.peek() == "{":
            return self.group("{")
        token = self.take()
        if token.kind == "number":
            if is_digit and len(token.text) > 1:
                rest = token.text[1:]
                if not token.text.isdigit() or len(token.text) > 2 or self.tokens[self.position - 2].text == r"\sqrt":
                    raise UnreadableError("a command with unbraced digits has two readings")
                # \frac12: the second digit is the next argument's
                self.position -= 1
                self.loose_digit = self.position
                self.tokens = [*self.tokens[: self.position], Token("number", rest), *self.tokens[self.position + 1 :]]
                return number(token.text[0])
            return number(token.text)
        self.position -= 1
        if token.text == "(":
            return self.group("(")
        return self.base()

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
            depth += (text in OPENERS) - (text in CLOSERS)
            if depth == 0 and text in (r"\choose", r"\over"):
                above = read_expression(self.tokens[start:index])
                below = read_expression(self.tokens[index + 1 : end])
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
            if run in _WORD_FUNCTIONS:
                self.position = end
                return self.function(run)
        self.take()
        text = token.text
        if token.kind == "text":
            if text in _WORD_FUNCTIONS:
                return self.function(text)
            if not re.fullmatch(r"[A-Za-z]+", text):
                raise UnreadableError("words in a formula")
            if len(text) == 1:
                return self.name(text)
            return self.name(f"<{text}>")
        return self.name(text)

    def name(self, text: str) -> Node:
        """A variable with its subscript and primes, or a function applied to plain arguments."""
        start = len(text)
        while True:
            if self.peek() == "_":
                self.take()
                text += f"_{self.subscript()}"
            elif self.peek() == "'":
                self.take()
                text += "'"
            elif self.peek() == "^" and self.peek(1) in ("'", "*") and not self.peek(2)[:1].isdigit():
                self.take()
                text += self.take().text
            elif self.peek() == "^" and self.peek(1) == "{" and self.peek(2) in ("'", "*"):
                self.take()
                content = plain(self.tokens[self.position + 1 : (end := matching(self.tokens, self.position))])
                if set(content) - set("'*"):
                    raise UnreadableError("an exponent that begins with a prime")
                text, self.position = text + content, end + 1
            else:
                break
        applied = self.applied(text)
        if applied is not None:
            return applied
        if len(text) == start and text in ("e", "i") and text not in self.counters:
            return Constant(text)
        return Name(text)

    def subscript(self) -> str:
        if self.peek() == "{":
            end = matching(self.tokens, self.position)
            inner = self.tokens[self.position + 1 : end]
            self.position = end + 1
        else:
            inner = [self.take()]
        text = "".join(token.text.replace("\\", "") for token in inner if token.text not in ("{", "}"))
        if not text:
            raise UnreadableError("an empty subscript")
        return text

    def applied(self, text: str) -> Node | None:
        r"""`f(x)`, `I(0)`, `f^{-1}(x)`, `F(a,b)`; `n(n+1)` is a product, and f, g and h are functions of anything."""
        if self.peek() == "^" and text[:1] in _FUNCTION_LETTERS and len(text) == 1:
            inverse = plain(self.tokens[self.position : self.position + 5])
            if inverse == "^{-1}" and self.peek(5) == "(":
                self.position += 5
                text += "^-1"
        if self.peek() != "(":
            return None
        end = matching(self.tokens, self.position)
        inner = self.tokens[self.position + 1 : end]
        arguments = plain(inner)
        is_plain = re.fullmatch(r"-?(?:[A-Za-z]|\\[a-z]+|\d+)(?:,-?(?:[A-Za-z]|\\[a-z]+|\d+))*", arguments)
        is_function = text[:1] in _FUNCTION_LETTERS and text.rstrip("'0123456789_").removesuffix("^-1") in _FUNCTION_LETTERS
        if not is_function and not is_plain:
            return None
        if not is_function and (arguments in (text,) or self.tokens[end].text != ")"):
            return None
        self.position = end + 1
        return Name(f"{text}({arguments})")

    def command(self) -> Node:
        token = self.take()
        text = token.text
        if text == r"\frac":
            derivative = self.derivative()
            if derivative is not None:
                return derivative
            above = self.argument(is_digit=True)
            if plain(self.tokens[self.position : self.position + 1]) == "":
                raise UnreadableError("a fraction without a denominator")
            below = self.argument(is_digit=True)
            return quotient(above, below)
        if text == r"\binom":
            return Call("binomial", (self.argument(is_digit=True), self.argument(is_digit=True)))
        if text == r"\sqrt":
            return self.root()
        if text == r"\pi":
            return Constant("pi")
        if text == r"\infty":
            return Constant("oo")
        if text in (r"\sum", r"\prod"):
            return self.series(text[1:])
        if text in _ACCENTS:
            return self.name(f"{text[1:]}<{self.subscript()}>")
        if text in _GREEK:
            return self.name(text[1:])
        if text[1:] in _WORD_FUNCTIONS:
            return self.function(text[1:])
        if text in (r"\lvert", r"\lVert", r"\|"):
            raise UnreadableError("a norm")
        raise UnreadableError(f"{text} is not read")

    def derivative(self) -> Node | None:
        r"""`\frac{dx}{dt}` is one name: as a quotient of products it would be x/t."""
        if self.peek() != "{":
            return None
        middle = matching(self.tokens, self.position)
        if middle + 1 >= len(self.tokens) or self.tokens[middle + 1].text != "{":
            return None
        end = matching(self.tokens, middle + 1)
        above, below = self.tokens[self.position + 1 : middle], self.tokens[middle + 2 : end]
        differentials = ("d", r"\partial")
        is_derivative = len(below) > 1 and below[0].text in differentials and above[:1] and above[0].text == below[0].text
        if not is_derivative:
            return None
        if len(above) == 1 or above[1].text == "^" and len(above) <= 3:
            raise UnreadableError("a derivative of what follows")
        self.position = end + 1
        text = "/".join("".join(t.text for t in side if t.text not in ("{", "}")) for side in (above, below))
        return self.name(f"({text})")

    def root(self) -> Node:
        degree: Node = Number(Fraction(2))
        if self.peek() == "[":
            degree = self.group("[")
        elif self.peek() == "(":  # 'sqrt(2)'
            return Power(self.group("("), quotient(ONE, degree))
        return Power(self.argument(is_digit=True), quotient(ONE, degree))

    def function(self, name: str) -> Node:
        if name == "pi":
            return Constant("pi")
        if name in ("infty", "infinity"):
            return Constant("oo")
        if name == "sqrt":
            return self.root()
        if name in _LIST_FUNCTIONS or name in ("floor", "ceil", "abs"):
            return self.list_function(name)
        base: Node | None = None
        if self.peek() == "_":
            self.take()
            base = self.argument(is_digit=True)
        power: Node | None = None
        if self.peek() == "^":
            self.take()
            power = self.exponent()
        argument = self.function_argument()
        name = _ARC.get(name, name)
        if power == MINUS_ONE and name in _TRIGONOMETRIC:
            name, power = f"a{name}", None
        node: Node
        if name in ("log", "ln", "lg"):
            default = Constant("e") if name == "ln" else Number(Fraction(10))
            node = Call("log", (argument, base or default))
        elif base is not None:
            raise UnreadableError("a subscript of a function")
        elif name == "exp":
            node = Power(Constant("e"), argument)
        else:
            node = Call(name, (argument,))
        return Power(node, power) if power is not None else node

    def function_argument(self) -> Node:
        r"""`(x)`, `{x}`, or what stands behind the name: `\sin 2x`; a quotient there has two readings."""
        if self.peek() in ("(", "{", "["):
            return _in_radians(self.group(self.peek()))
        sign = self.sign()
        factors: list[Node] = []
        while self.kind() in ("number", "letter") or self.peek() in (r"\frac", r"\sqrt", r"\pi", *_GREEK, *_ACCENTS, "|"):
            if factors and (self.kind() == "number" or self.next_word() in _WORD_FUNCTIONS):
                break
            is_closed = self.peek() in (r"\frac", r"\sqrt", "|")
            factors.append(self.factor())
            if is_closed:
                break
        if not factors and self.kind() == "command" and self.peek()[1:] in _FUNCTIONS:
            factors = [self.factor()]  # '\ln \sin x'
        if not factors:
            raise UnreadableError("a function without an argument")
        if self.peek() == "/":
            following = self.tokens[self.position + 1 : self.position + 2]
            is_angle = any(factor == Constant("pi") for factor in factors)
            if not (is_angle and following and following[0].kind == "number"):
                raise UnreadableError(r"\sin x/2 has two readings")
            self.take()
            factors.append(Power(self.factor(), MINUS_ONE))
        node = _in_radians(product(*factors))
        return negative(node) if sign < 0 else node

    def next_word(self) -> str:
        end = self.position + 1
        while end < len(self.tokens) and self.tokens[end].kind == "letter" and not self.tokens[end].is_spaced:
            end += 1
        return plain(self.tokens[self.position : end])

    def list_function(self, name: str) -> Node:
        opener = self.peek()
        if opener == "{":
            return Call(name, (self.group("{"),))
        if opener not in ("(", r"\{"):
            raise UnreadableError(f"{name} without its arguments")
        end = matching(self.tokens, self.position)
        arguments, start, depth = [], self.position + 1, 0
        for index in range(start, end + 1):
            text = self.tokens[index].text
            depth += (text in OPENERS) - (text in CLOSERS)
            if index == end or (text == "," and depth == 0):
                arguments.append(read_expression(self.tokens[start:index]))
                start = index + 1
        self.position = end + 1
        return Call(name, tuple(arguments))

    def series(self, kind: str) -> Node:
        limits: dict[str, list[Token]] = {}
        while self.peek() in ("_", "^") and self.peek() not in limits:
            sign = self.take().text
            if self.peek() == "{":
                end = matching(self.tokens, self.position)
                limits[sign] = self.tokens[self.position + 1 : end]
                self.position = end + 1
            else:
                limits[sign] = [self.take()]
        lower = limits.get("_", [])
        if len(lower) < 3 or lower[1].text != "=" or lower[0].kind != "letter" or "^" not in limits:
            raise UnreadableError("a sum without two limits")
        self.counters.add(lower[0].text)
        body = self.product()
        return Series(kind, body, lower[0].text, read_expression(lower[2:]), read_expression(limits["^"]))


def number(text: str) -> Number:
    whole, point, places = text.partition(".")
    if len(text) > MAX_DIGITS:
        raise UnreadableError("a number with too many digits")
    digits = (whole + places).lstrip("0")
    if not point:
        return Number(Fraction(int(whole)))
    return Number(Fraction(int(whole + places), 10 ** len(places)), len(digits), len(places))


def _in_radians(node: Node) -> Node:
    if isinstance(node, Scaled) and node.unit == "°":
        return Product((node.value, Constant("pi"), Number(Fraction(1, 180))))
    if isinstance(node, Product):
        return Product(tuple(_in_radians(factor) for factor in node.factors))
    if isinstance(node, Sum):
        return Sum(tuple(_in_radians(term) for term in node.terms))
    return node
