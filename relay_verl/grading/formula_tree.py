"""The formula of an answer as a tree. Pure; evaluates nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction


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
class Percentage(Node):
    """`value%`, whose sign an answer may leave out."""

    value: Node


ONE, MINUS_ONE = Number(Fraction(1)), Number(Fraction(-1))


def negative(node: Node) -> Node:
    if isinstance(node, Number):
        return Number(-node.value, node.num_digits, node.num_places)
    return Product((MINUS_ONE, node))


def product(*factors: Node) -> Node:
    return factors[0] if len(factors) == 1 else Product(factors)


def quotient(above: Node, below: Node) -> Node:
    return Product((above, Power(below, MINUS_ONE)))


def difference(one: Node, other: Node) -> Node:
    return Sum((one, negative(other)))


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
        case Percentage():
            return (node.value,)
    return ()


def with_children(node: Node, function: Callable[[Node], Node]) -> Node:
    """The node with a function applied to its children."""
    match node:
        case Sum():
            return Sum(tuple(map(function, node.terms)))
        case Product():
            return Product(tuple(map(function, node.factors)))
        case Power():
            return Power(function(node.base), function(node.exponent))
        case Call():
            return Call(node.function, tuple(map(function, node.arguments)))
        case Series():
            return replace(node, body=function(node.body), first=function(node.first), last=function(node.last))
        case Percentage():
            return Percentage(function(node.value))
    return node


def names_of(node: Node) -> frozenset[str]:
    """The variables of a formula; the counter of a sum is bound and not one of them."""
    match node:
        case Name():
            return frozenset([node.text])
        case Series():
            return names_of(node.first) | names_of(node.last) | (names_of(node.body) - {node.counter})
    return frozenset().union(*map(names_of, children(node)))


def with_names(node: Node, replacements: dict[str, Node]) -> Node:
    """The formula with something else for some of its variables."""
    if isinstance(node, Name):
        return replacements.get(node.text, node)
    return with_children(node, lambda child: with_names(child, replacements))
