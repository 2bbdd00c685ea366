r"""Are two mathematical answers equal? Runs in the worker process only: it can take forever.

Departures from a plain `math_verify.verify(parse(ground_truth), parse(response))`, each a row in the tests:
1. math-verify's own timeouts are off: they need signals in the main thread, and score 0 when they fire.
2. Both sides are put in a box before they are parsed. Bare, `3\sqrt{2}` is read as 3 and `2\frac{1}{2}` as 1/2.
3. Only the box is read. Else `\boxed{??? $5$}`, which does not parse, is searched for a number and counts as 5.
4. Spellings that math-verify does not read are rewritten first: see `relay_verl.grading.spelling`.
"""

from __future__ import annotations

from typing import Any

from relay_verl.grading.spelling import PERCENTAGE, respell


def is_equivalent(answer: str, ground_truth: str) -> bool:
    r"""Whether two answers, given without their boxes, are mathematically equal. Can take forever.

    >>> is_equivalent(r"\sqrt{18}", r"3\sqrt{2}"), is_equivalent("3 or 5", "5")
    (True, False)
    """
    from math_verify import verify  # half a second of sympy that the asker's process has no use for

    return verify(_parse(ground_truth), _parse(answer), allow_set_relation_comp=True, timeout_seconds=None)


def _parse(answer: str) -> list[Any]:
    from math_verify import LatexExtractionConfig, parse

    answer = respell(answer)
    percentage = PERCENTAGE.fullmatch(answer)
    boxed = rf"$\boxed{{{percentage['number']}}}$\%" if percentage else rf"\boxed{{{answer}}}"
    box_only = LatexExtractionConfig(try_extract_without_anchor=False, boxed_match_priority=0)
    return parse(boxed, [box_only], parsing_timeout=None)


def is_readable(answer: str) -> bool:
    """Whether an answer, given without its box, parses, so that another spelling of it can be judged equal."""
    return any(not isinstance(reading, str) for reading in _parse(answer))
