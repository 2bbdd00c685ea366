r"""Sets of real numbers as pieces, with their union, complement and intersection. Pure.

Where all ends are numbers, pieces that touch are joined (`[1,2]\cup[2,3]` is `[1,3]`) and complements exist. Sets whose
ends are variables are compared piece by piece.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from mpmath import mp

from relay_verl.grading.formula_tree import Constant, Node, Number, negative
from relay_verl.grading.identity import is_equal


class NotASetError(Exception):
    """The answer is not a set of real numbers that is read here."""


@dataclass(frozen=True)
class End:
    """One end of a piece."""

    node: Node
    key: Any
    """Its value, to order it by; None if it has variables."""
    is_closed: bool


@dataclass(frozen=True)
class Piece:
    """An interval; a point is one whose ends are the same and closed."""

    low: End
    high: End


RealSet = tuple[Piece, ...]
INFINITY = Constant("oo")
MINUS_INFINITY = negative(INFINITY)
EVERYTHING: RealSet = (Piece(End(MINUS_INFINITY, mp.ninf, False), End(INFINITY, mp.inf, False)),)


def are_same_pieces(left: RealSet, right: RealSet) -> bool:
    """Whether two sets are the same."""
    if is_numeric(left) and is_numeric(right):
        left, right = union(left), union(right)
        return len(left) == len(right) and all(map(is_same_piece, left, right))
    rest = list(right)
    for piece in left:
        match = next((candidate for candidate in rest if is_same_piece(piece, candidate)), None)
        if match is None:
            return False
        rest.remove(match)
    return not rest


def is_numeric(pieces: RealSet) -> bool:
    return all(end.key is not None for piece in pieces for end in (piece.low, piece.high))


def _is_near(one: Any, other: Any) -> bool:
    return one == other or (
        mp.isfinite(one) and mp.isfinite(other) and abs(one - other) <= abs(one) * mp.mpf(10) ** -45
    )


def _is_below(one: Any, other: Any) -> bool:
    return one < other and not _is_near(one, other)


def union(pieces: RealSet) -> RealSet:
    """The pieces in their order, joined where they touch."""
    if not is_numeric(pieces):
        return pieces
    joined: list[Piece] = []
    for piece in sorted(pieces, key=lambda piece: (piece.low.key, not piece.low.is_closed)):
        last = joined[-1] if joined else None
        if (
            last is None
            or _is_below(last.high.key, piece.low.key)
            or (_is_near(last.high.key, piece.low.key) and not (last.high.is_closed or piece.low.is_closed))
        ):
            joined.append(piece)
            continue
        low = last.low
        if _is_near(last.low.key, piece.low.key):
            low = End(low.node, low.key, low.is_closed or piece.low.is_closed)
        high = last.high
        if _is_near(high.key, piece.high.key):
            high = End(high.node, high.key, high.is_closed or piece.high.is_closed)
        elif _is_below(high.key, piece.high.key):
            high = piece.high
        joined[-1] = Piece(low, high)
    return tuple(joined)


def complement(pieces: RealSet) -> RealSet:
    if not is_numeric(pieces):
        raise NotASetError
    gaps: list[Piece] = []
    low = EVERYTHING[0].low
    for piece in union(pieces):
        _add_piece(gaps, low, End(piece.low.node, piece.low.key, not piece.low.is_closed))
        low = End(piece.high.node, piece.high.key, not piece.high.is_closed)
    _add_piece(gaps, low, EVERYTHING[0].high)
    return tuple(gaps)


def _add_piece(pieces: list[Piece], low: End, high: End) -> None:
    is_point = _is_near(low.key, high.key) and low.is_closed and high.is_closed and mp.isfinite(low.key)
    if _is_below(low.key, high.key) or is_point:
        pieces.append(Piece(low, high))


def intersection(sets: list[RealSet]) -> RealSet:
    if not all(map(is_numeric, sets)):
        return _symbolic_interval(sets)
    return complement(union(tuple(piece for pieces in sets for piece in complement(pieces))))


def _symbolic_interval(sets: list[RealSet]) -> RealSet:
    """`a<x<b` with letters for its ends: a half line to the right and one to the left."""
    if len(sets) == 2 and all(len(pieces) == 1 for pieces in sets):
        for one, other in (sets, sets[::-1]):
            if one[0].high.key == mp.inf and other[0].low.key == mp.ninf:
                return (Piece(one[0].low, other[0].high),)
    raise NotASetError


def is_same_piece(one: Piece, other: Piece) -> bool:
    return all(
        left.is_closed == right.is_closed and _is_same_end(left, right)
        for left, right in ((one.low, other.low), (one.high, other.high))
    )


def _is_same_end(one: End, other: End) -> bool:
    if one.key is not None and not mp.isfinite(one.key):
        return one.key == other.key
    return is_equal(one.node, other.node)


def mirrored(pieces: RealSet) -> RealSet:
    """Where |x| is in the set."""
    zero = End(Number(Fraction(0)), mp.zero, True)
    positive = intersection([pieces, (Piece(zero, EVERYTHING[0].high),)])
    mirrored = tuple(Piece(_negative(piece.high), _negative(piece.low)) for piece in positive)
    return union((*mirrored, *positive))


def _negative(end: End) -> End:
    return End(negative(end.node), mp.fneg(end.key, exact=True), end.is_closed)
