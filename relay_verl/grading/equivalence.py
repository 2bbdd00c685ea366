r"""Are two mathematical answers equal? Runs in the worker process only: it can take forever.

Departures from a plain `math_verify.verify(parse(ground_truth), parse(response))`, each a row in the tests:
1. math-verify's own timeouts are off: they need signals in the main thread, and score 0 when they fire.
2. Both sides are put in a box before they are parsed. Bare, `3\sqrt{2}` is read as 3 and `2\frac{1}{2}` as 1/2.
3. Only the box is read. Else `\boxed{??? $5$}`, which does not parse, is searched for a number and counts as 5.
4. Spellings that math-verify does not read are rewritten first: see `relay_verl.grading.spelling`.
"""

from __future__ import annotations

from typing import Any

from relay_verl.grading.spelling import PERCENTAGE, respell_pair


def is_equivalent(answer: str, ground_truth: str) -> bool:
    r"""Whether two answers, given without their boxes, are mathematically equal. Can take forever.

    >>> is_equivalent(r"\sqrt{18}", r"3\sqrt{2}"), is_equivalent("3 or 5", "5")
    (True, False)
    """
    from math_verify import verify  # half a second of sympy that the asker's process has no use for

    pair = respell_pair(answer, ground_truth)
    if pair is None:  # their units differ
        return False
    return verify(_parse(pair[1]), _parse(pair[0]), allow_set_relation_comp=True, timeout_seconds=None)


def _parse(answer: str) -> list[Any]:
    """What math-verify reads in a respelled answer. Units are taken off before."""
    from latex2sympy2_extended import NormalizationConfig
    from math_verify import LatexExtractionConfig, parse

    percentage = PERCENTAGE.fullmatch(answer)
    boxed = rf"$\boxed{{{percentage['number']}}}$\%" if percentage else rf"\boxed{{{answer}}}"
    normalization = NormalizationConfig(
        basic_latex=True, units=False, malformed_operators=True, nits=True, boxed="all", equations=False
    )
    box_only = LatexExtractionConfig(
        try_extract_without_anchor=False, boxed_match_priority=0, normalization_config=normalization
    )
    return parse(boxed, [box_only], parsing_timeout=None)
