r"""Whether two questions that are spelled differently are the same problem: their words, aligned. Pure.

Invariant: `align` is symmetric in its questions but for ties, and a question aligned with itself has a share of 1.0.

The longest common subsequence of the words leaves gaps, at which one or both questions have words of their own.
- An added clause is a gap on one side alone that is long, or stands at an end ("Please provide the value of k when
  n = 3."). It says nothing against the pair.
- All other gaps are differences. `share` is what both have in common over that and the differences.
- A numeral against another one is another problem of the same template, whatever the share.
- So are differences of formulas (numerals, operators and names of functions) that are more than a few: errors of
  scanning are rare.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from rapidfuzz.distance import LCSseq

from relay_verl.data.synonyms import FUNCTIONS

MIN_CLAUSE_WORDS = 6
"""Words that one question has inside the other's text from which on they are an added clause."""
MAX_FORMULA_DIFFERENCE = 0.05
"""Numerals, operators and names of functions that may differ, over the words of the shorter question."""


@dataclass(frozen=True)
class Alignment:
    """How two questions compare."""

    share: float
    """Twice the common words over that and the words of the differences, 0.0 to 1.0."""
    has_other_numbers: bool
    """Whether a numeral of one stands where the other has another one."""
    formula_difference: float
    """Numerals, operators and names of functions in differences, over the words of the shorter question."""

    @property
    def is_same_formula(self) -> bool:
        """Whether nothing but words differs, as far as one can tell."""
        return not self.has_other_numbers and self.formula_difference <= MAX_FORMULA_DIFFERENCE


def align(first: Sequence[str], second: Sequence[str]) -> Alignment:
    """Compare two questions, given as words.

    >>> align("find the sum of 3 and 5".split(), "compute the sum of 3 and 5".split()).share
    0.8571428571428571
    >>> align("find the sum of 3 and 5".split(), "find the sum of 3 and 6".split()).has_other_numbers
    True
    """
    gaps = list(_gaps(first, second))
    num_common = len(first) - sum(len(ours) for ours, _, _ in gaps)
    num_different = num_formula = 0
    has_other_numbers = False
    for ours, theirs, is_end in gaps:
        if not (ours and theirs) and (is_end or len(ours) + len(theirs) >= MIN_CLAUSE_WORDS):
            continue
        num_different += len(ours) + len(theirs)
        is_tail = is_end and min(len(ours), len(theirs)) >= MIN_CLAUSE_WORDS // 2
        if is_tail:  # two ways to ask for the answer
            continue
        numerals = [[word for word in words if word[0].isdigit()] for words in (ours, theirs)]
        only_ours, only_theirs = (
            Counter(numerals[0]) - Counter(numerals[1]),
            Counter(numerals[1]) - Counter(numerals[0]),
        )
        has_other_numbers |= bool(only_ours and only_theirs)
        num_formula += sum(not word.isalpha() or word in FUNCTIONS for word in (*ours, *theirs))
    return Alignment(
        share=2 * num_common / max(2 * num_common + num_different, 1),
        has_other_numbers=has_other_numbers,
        formula_difference=num_formula / max(min(len(first), len(second)), 1),
    )


def _gaps(first: Sequence[str], second: Sequence[str]) -> Iterator[tuple[Sequence[str], Sequence[str], bool]]:
    """The words of each between two common ones, and whether they stand at an end."""
    opcodes = list(LCSseq.opcodes(first, second))
    for is_common, run in groupby(opcodes, key=lambda opcode: opcode.tag == "equal"):
        if not is_common:
            blocks = list(run)
            ours = first[blocks[0].src_start : blocks[-1].src_end]
            second_tokens = second[blocks[0].dest_start : blocks[-1].dest_end]
            is_start = not blocks[0].src_start and not blocks[0].dest_start
            is_stop = blocks[-1].src_end == len(first) and blocks[-1].dest_end == len(second)
            yield ours, second_tokens, is_start or is_stop
