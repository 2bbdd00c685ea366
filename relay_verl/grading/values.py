"""The kinds of values that answers have. Pure; `relay_verl.grading.structure` reads them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from relay_verl.grading.formula_tree import Node


@dataclass(frozen=True)
class Value:
    """An answer."""


@dataclass(frozen=True)
class Formula(Value):
    """A number or an expression."""

    node: Node
    text: str
    """Without blanks, to compare it with a word."""


@dataclass(frozen=True)
class Word(Value):
    r"""Text: `\text{Evelyn}`, `no solution`. Capitals say nothing."""

    text: str


@dataclass(frozen=True)
class Numeral(Value):
    """Digits with their base: `52_8`."""

    digits: str
    base: int


@dataclass(frozen=True)
class Ratio(Value):
    """`1:2:3`, or a time of day."""

    terms: tuple[Formula, ...]
    text: str


@dataclass(frozen=True)
class Listing(Value):
    """Values with nothing around them: their order does not count, repetitions do."""

    items: tuple[Value, ...]
    is_choice: bool = False
    """Whether they are joined by `or` throughout: one value in several spellings is then one value."""


@dataclass(frozen=True)
class Braces(Value):
    """A finite set: neither order nor repetitions count."""

    items: tuple[Value, ...]


@dataclass(frozen=True)
class Brackets(Value):
    """A tuple, a vector or, with two items, an interval."""

    items: tuple[Value, ...]
    opening: str
    closing: str


@dataclass(frozen=True)
class Matrix(Value):
    """Rows of formulas."""

    rows: tuple[tuple[Formula, ...], ...]


@dataclass(frozen=True)
class NamedSet(Value):
    r"""`R`, `Z`, `N`, `Q`, `C`, or `empty`."""

    text: str


@dataclass(frozen=True)
class Combination(Value):
    r"""`A \cup B`, `A \cap B`, `A \setminus B`."""

    operator: Literal["union", "intersection", "difference"]
    parts: tuple[Value, ...]


@dataclass(frozen=True)
class Relation(Value):
    r"""A chain of sides and the signs between them: `=`, `<`, `\le`, `>`, `\ge`, `\ne`, `\in`."""

    sides: tuple[Value, ...]
    operators: tuple[str, ...]
    name: str | None = None
    """The first side, if it only names what the others say: `x`, `f(x)`, `AB`, `(p,q)`, `V_1:V_2`."""


@dataclass(frozen=True)
class Alternatives(Value):
    """Inequalities joined by `or`."""

    parts: tuple[Value, ...]


@dataclass(frozen=True)
class Conditions(Value):
    """Inequalities joined by `and`."""

    parts: tuple[Value, ...]
