r"""What an answer's text means, before it is parsed: spellings that the LaTeX parser does not read are rewritten. Pure.

Invariant: no rewrite changes a number or joins two, none makes a wrong answer equal to a right one, and all take time
linear in the text. Where a spelling may mean two things it stays as it is, and the parser refuses it.

`respell` reads one answer. `respell_pair` reads an answer and its ground truth together, since some things are settled
only there:
- Units do not count if one side names none. If both do, the same quantity is right in other units (`1 m`, `100 cm`),
  and another unit is wrong, as are values that have changed their units (`7 apples, 8 pears`).
- `60^\circ` is 60, and `\frac{\pi}{3}` where the other side has a pi or names radians.

Departures, each left to the parser and therefore refused: decimal commas (`3,14`), rounded values, numbers in words.
"""

from __future__ import annotations

from collections.abc import Callable

from relay_verl.grading.arguments import brace_arguments
from relay_verl.grading.characters import to_latex
from relay_verl.grading.degrees import (
    drop_degrees,
    has_degrees,
    has_pi,
    is_trigonometric,
    spell_degrees,
    to_radians,
)
from relay_verl.grading.markup import drop_blanks, drop_emphasis, drop_looks, name_membership, name_primes
from relay_verl.grading.numerals import join_thousands, spell_mixed, spell_numbers
from relay_verl.grading.percentages import spell_percentages
from relay_verl.grading.python_math import from_python
from relay_verl.grading.quantities import agree, rescale
from relay_verl.grading.unit_table import DEGREES
from relay_verl.grading.units import Quantity, name_plain_units, take_units_off
from relay_verl.grading.words import (
    drop_leading_words,
    drop_ordinals,
    name_conjunctions,
    name_functions,
    outside_text,
    spell_scales,
)

# The order counts: fonts hide digits, blanks hide thousands, words hide numbers, and units stand behind all of them.
_REWRITES: tuple[Callable[[str], str], ...] = (
    to_latex,
    drop_emphasis,
    from_python,
    drop_looks,
    join_thousands,
    drop_blanks,
    drop_leading_words,
    drop_looks,  # what stood in the words: '\text{Answer: $\frac12$}'
    name_membership,
    name_functions,
    name_conjunctions,
    lambda text: outside_text(text, name_primes),
    drop_ordinals,
    spell_scales,
    spell_numbers,
    spell_percentages,
    name_plain_units,
    spell_degrees,
)


def respell(answer: str) -> str:
    r"""The answer as the parser reads it.

    >>> respell(r"\text{The answer is }12\,345\text{ cm}^2"), respell(r"\frac{a+1}c"), respell("x+2c")
    ('12345', '\\frac{a+1}{c}', 'x+2c')
    """
    return _finish(_start(answer)[0])


def respell_pair(answer: str, ground_truth: str) -> tuple[str, str] | None:
    r"""Both as the parser reads them; None if their units make them different, whatever their numbers are.

    >>> respell_pair(r"60^\circ", r"\frac\pi3"), respell_pair(r"5\text{ cm}", r"5\text{ m}")
    (('\\frac{60\\pi}{180}', '\\frac{\\pi}{3}'), ('(5)\\cdot\\frac{1}{100}', '5'))
    >>> respell_pair(r"5\text{ cm}", r"5\text{ kg}"), respell_pair("5 cm", "5")
    (None, ('5', '5'))
    """
    (one, one_units), (other, other_units) = _start(answer), _start(ground_truth)
    if not agree((one, one_units), (other, other_units)):
        return None
    one = rescale(one, one_units, other_units)
    return _finish(one, other_text=other, units=other_units), _finish(other, other_text=one, units=one_units)


def _start(answer: str) -> tuple[str, list[Quantity]]:
    for rewrite in _REWRITES:
        answer = rewrite(answer)
    answer, quantities = take_units_off(answer)
    if has_degrees(answer) and not quantities:
        quantities = [Quantity("", DEGREES)]
    return brace_arguments(answer), quantities


def _finish(text: str, *, other_text: str = "", units: list[Quantity] | None = None) -> str:
    if has_degrees(text):
        names_radians = any(quantity.unit.name in ("rad", "radian") for quantity in units or ())
        is_radians_there = (has_pi(other_text) or names_radians) and not has_degrees(other_text) and not has_pi(text)
        text = to_radians(text) if is_trigonometric(text) or is_radians_there else drop_degrees(text)
    return spell_mixed(text).strip()
