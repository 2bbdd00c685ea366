r"""Reads the commands of a formula: fractions, roots, Greek letters, functions with their arguments, sums. Pure."""

from __future__ import annotations

from fractions import Fraction

from relay_verl.grading.formula_reader import (
    ARC_FUNCTIONS,
    FUNCTIONS,
    LIST_FUNCTIONS,
    TRIGONOMETRIC,
    WORD_FUNCTIONS,
    FormulaReader,
)
from relay_verl.grading.formula_tree import (
    MINUS_ONE,
    ONE,
    Call,
    Constant,
    Node,
    Number,
    Power,
    Series,
    negative,
    product,
    quotient,
)
from relay_verl.grading.latex import Token, UnreadableError, bracket_step, matching, plain, words

_ACCENTS = words(
    r"\hat \widehat \dot \ddot \vec \bar \overline \tilde \widetilde \overrightarrow \mathcal \mathscr \mathfrak "
    r"\mathbb \underline"
)
_GREEK = words(
    r"\alpha \beta \gamma \delta \epsilon \zeta \eta \theta \iota \kappa \lambda \mu \nu \xi \rho \sigma \tau "
    r"\upsilon \phi \chi \psi \omega \Gamma \Delta \Theta \Lambda \Xi \Pi \Sigma \Upsilon \Phi \Psi \Omega \hbar "
    r"\ell \varpi \imath \jmath \nabla \partial \aleph \mho \odot \oplus \angle \triangle"
)


def read_expression(tokens: list[Token]) -> Node:
    r"""The formula that the tokens are. Raises UnreadableError if they are none, or more than one.

    >>> read_expression([Token("letter", "x"), Token("sign", "^"), Token("letter", "n")])
    Power(base=Name(text='x'), exponent=Name(text='n'))
    """
    return _Reader(tokens).all()


class _Reader(FormulaReader):
    """A formula with its commands."""

    def command(self) -> Node:
        token = self.take()
        text = token.text
        if text == r"\frac":
            derivative = self.derivative()
            if derivative is not None:
                return derivative
            above = self.argument()
            return quotient(above, self.argument())
        if text == r"\binom":
            return Call("binomial", (self.argument(), self.argument()))
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
        if text[1:] in WORD_FUNCTIONS:
            return self.function(text[1:])
        if text in (r"\lvert", r"\lVert", r"\|"):
            raise UnreadableError("a norm")
        raise UnreadableError(f"{text} is not read")

    def root(self) -> Node:
        degree: Node = Number(Fraction(2))
        if self.peek() == "[":
            degree = self.group("[")
        elif self.peek() == "(":  # 'sqrt(2)'
            return Power(self.group("("), quotient(ONE, degree))
        return Power(self.argument(), quotient(ONE, degree))

    def function(self, name: str) -> Node:
        if name == "pi":
            return Constant("pi")
        if name in ("infty", "infinity"):
            return Constant("oo")
        if name == "sqrt":
            return self.root()
        if name in LIST_FUNCTIONS:
            return self.list_function(name)
        base: Node | None = None
        if self.peek() == "_":
            self.take()
            base = self.argument()
        power: Node | None = None
        if self.peek() == "^":
            self.take()
            power = self.exponent()
        argument = self.function_argument()
        name = ARC_FUNCTIONS.get(name, name)
        if power == MINUS_ONE and name in TRIGONOMETRIC:
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
            return self.group(self.peek())
        sign = self.sign()
        factors: list[Node] = []
        while self.kind() in ("number", "letter") or self.peek() in (
            r"\frac",
            r"\sqrt",
            r"\pi",
            *_GREEK,
            *_ACCENTS,
            "|",
        ):
            if factors and (self.kind() == "number" or self.next_word() in WORD_FUNCTIONS):
                break
            is_closed = self.peek() in (r"\frac", r"\sqrt", "|")
            factors.append(self.factor())
            if is_closed:
                break
        if not factors and self.kind() == "command" and self.peek()[1:] in FUNCTIONS:
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
        node = product(*factors)
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
            depth += bracket_step(self.tokens[index])
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
