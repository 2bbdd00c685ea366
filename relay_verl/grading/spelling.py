r"""Spellings of an answer that the LaTeX parser does not read, rewritten into ones that it does. Pure."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable

PERCENTAGE = re.compile(  # math-verify sees a % only behind the box
    r"(?P<number>.*[^\s\\])\s*(?:\\?%|\bpercent|\\text\{\s*percent\})\s*", re.DOTALL
)


def _from_repeating_decimal(match: re.Match[str]) -> str:
    r"""`0.1\overline{6}` is 16 less 1, over 90."""
    whole, fixed, period = match.groups()
    numerator = int(whole + fixed + period) - int(whole + fixed)
    return rf"\frac{{{numerator}}}{{{'9' * len(period)}{'0' * len(fixed)}}}"


def _from_unicode_fraction(match: re.Match[str]) -> str:
    numerator, denominator = unicodedata.normalize("NFKC", match[0]).split("⁄")
    return rf"\frac{{{numerator}}}{{{denominator}}}"


_REWRITES: tuple[tuple[re.Pattern[str], str | Callable[[re.Match[str]], str]], ...] = (
    (re.compile(r"(?<!\\)\$"), ""),  # '$3$ and $5$'
    (re.compile("°"), r"^\\circ "),  # '90°'
    (re.compile("∞"), r"\\infty "),
    (re.compile(r"√\s*(?:\(([^()]*)\)|(\d+|[A-Za-z]))"), r"\\sqrt{\1\2}"),  # '2√3', '√(x+1)'
    (re.compile(r"^\s*(?:\\approx(?![A-Za-z])|≈)"), ""),  # '\approx 3.14'
    (re.compile(r"(?<!\d)(\d+)\.(\d*)\\overline\{(\d+)\}"), _from_repeating_decimal),  # '0.\overline{3}'
    (re.compile("[¼-¾⅐-⅞]"), _from_unicode_fraction),  # '2½'
    (re.compile(r"\\varnothing(?![A-Za-z])"), r"\\emptyset "),
    (re.compile(r"(?<=\d),?\\[,!:; ](?=\d{3}(?!\d))"), ""),  # '1\,234', '1,\!234'
    (re.compile(r"^\s*([+-]?\d+(?:\.\d+)?)[eE]([+-]?\d+)\s*$"), r"\1 \\times 10^{\2}"),  # '4.5e33'
    (re.compile(r"^\s*([+-]?\d+)\s+(\d+)\s*/\s*(\d+)\s*$"), r"\1\\frac{\2}{\3}"),  # '2 1/2'
)


def respell(answer: str) -> str:
    """The answer as the parser reads it."""
    for pattern, replacement in _REWRITES:
        answer = pattern.sub(replacement, answer)
    return answer
