r"""Reads a name from tokens: a variable with its subscript, primes and accent, or a function of plain arguments. Pure.

A name is compared by its spelling, without braces: `m_{\text{red}}` is `m_{red}`, and `\dot{x}_0` is not `x_0`.
"""

from __future__ import annotations

import re

from relay_verl.grading.formula_tree import Constant, Name, Node
from relay_verl.grading.latex import Token, UnreadableError, matching, plain

_FUNCTION_LETTERS = frozenset("fgh")
_PLAIN_ARGUMENTS = re.compile(r"-?(?:[A-Za-z]|\\[a-z]+|\d+)(?:,-?(?:[A-Za-z]|\\[a-z]+|\d+))*")


class NameReader:
    """A position in a list of tokens, and the names that stand there."""

    def __init__(self, tokens: list[Token]) -> None:
        self.tokens = tokens
        self.position = 0
        # Where a sum counts with i, i is its counter and not the imaginary unit.
        self.counters = {
            tokens[n + 2].text
            for n, token in enumerate(tokens[:-3])
            if token.text == "_" and n and tokens[n - 1].text in (r"\sum", r"\prod") and tokens[n + 3].text == "="
        }

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
        is_plain = _PLAIN_ARGUMENTS.fullmatch(arguments)
        is_function = (
            text[:1] in _FUNCTION_LETTERS and text.rstrip("'0123456789_").removesuffix("^-1") in _FUNCTION_LETTERS
        )
        if not is_function and not is_plain:
            return None
        if not is_function and (arguments in (text,) or self.tokens[end].text != ")"):
            return None
        self.position = end + 1
        return Name(f"{text}({arguments})")

    def derivative(self) -> Node | None:
        r"""`\frac{dx}{dt}` is one name: as a quotient of products it would be x/t."""
        if self.peek() != "{":
            return None
        middle = matching(self.tokens, self.position)
        if middle + 1 >= len(self.tokens) or self.tokens[middle + 1].text != "{":
            return None
        end = matching(self.tokens, middle + 1)
        above, below = self.tokens[self.position + 1 : middle], self.tokens[middle + 2 : end]
        # '\\frac{d_1}{d_2}' and '\\frac{d}{2}' are quotients
        is_derivative = (
            len(below) > 1
            and below[0].text in ("d", r"\partial")
            and below[1].kind in ("letter", "command")
            and above[:1] == below[:1]
            and (len(above) == 1 or above[1].text != "_")
        )
        if not is_derivative:
            return None
        if len(above) == 1 or (above[1].text == "^" and len(above) < 6):
            raise UnreadableError("a derivative of what follows")
        self.position = end + 1
        text = "/".join("".join(t.text for t in side if t.text not in ("{", "}")) for side in (above, below))
        return self.name(f"({text})")
