r"""How numbers are spelled: thousands, powers of ten, repeating decimals, mixed numbers, bold digits. Pure.

Invariant: a rewrite keeps the digits of each number in their order and never joins two numbers, save for groups of
exactly three digits behind a group of one to three, which is how thousands are written.

Departures, each a spelling that could mean two things and is therefore left alone:
- A decimal comma: `3,14` is the list of 3 and 14.
- A power of ten without a decimal point that may be Euler's number: `2e-1` is twice e less 1, `2E+3k` a sum. `1e-5`,
  `1.5e-5`, `6e13` and `2e-19` are powers of ten.
- Two numbers that stand side by side and are neither thousands nor a mixed number: they become no number at all.
"""

from __future__ import annotations

import re

_THIN_THOUSANDS = re.compile(  # '1\,234', '1,\!234', and behind a point '3.141\,592'
    r"(?<![\d,^_])(?:\d{1,3}|(?<=\.)\d{3,40})(?:(?:\\[,:; !]|,\\!)\d{3}){1,40}(?!\d)"
)
_THOUSANDS = re.compile(  # '13 535', '13~535', "13'535", '1.234.567'
    r"(?<![\d.,^_'A-Za-z}])([1-9]\d{0,2})(?:((?:[ ~]\d{3}){1,12})|((?:'\d{3}){1,12})|((?:\.\d{3}){2,12}))"
    r"(?!\d|'|\s{0,4}(?:/|\\frac)|\s{1,4}\d)"
)
_POWER_OF_TEN = re.compile(
    r"(?<![\d.,^_A-Za-z\\])(\d{1,400}(?:\.\d{0,400})?|\.\d{1,400})(?:[eE]|\s?\*\s?10(?:\^|\*\*))"
    r"\{?([+-]?)(\d{1,6})\}?(?![\d.]*[A-Za-z\d({\\^])(?!\.\d)"
)
_NO_POWER_OF_TEN = re.compile(r"(\d)([eE])(?=[+-]?\d)")  # the parser reads '2E+3k' as 2000k
_UPRIGHT_E = re.compile(r"(?<=\d)\\(?:text|mathrm)\{\s?([eE])\s?\}\s?\{?([+-]?\d{1,6})\}?")  # '1.5\mathrm{e}3'
_TIMES_TEN = re.compile(r"(?<=[\d.}])\s{0,4}[xX]\s{0,4}(?=10\s{0,2}(?:\^|\*\*))")
_REPEATING = re.compile(r"(?<![\d.])(\d{1,400})?\.(\d{0,400})\\(?:overline|bar|dot)\s{0,2}\{(\d{1,400})\}")
_BARE_POINT = re.compile(r"(\d)\.(?![\d.])")
_MIXED = re.compile(r"(?<![\d.}_^\\A-Za-z)])(\d{1,40})\s{0,4}\\frac\{(\d{1,40})\}\{(\d{1,40})\}(?!\s*[\^])")
_PLAIN_MIXED = re.compile(
    r"(?<![\d./}_^\\A-Za-z)])(?<![\d] )(\d{1,40})\s{1,4}(\d{1,40})\s?/\s?(\d{1,40})(?![\d.,]*[\dA-Za-z^(\\/])"
)
_NUMBERS_IN_A_ROW = re.compile(r"(?<=\d)\s+(?=\.?\d)")


def join_thousands(text: str) -> str:
    r"""The text with the groups of each number together.

    >>> join_thousands("13 535, 13~535, 5 1234, 3 5"), join_thousands(r"1\,234")
    ('13535, 13535, 5 1234, 3 5', '1234')
    """
    text = _THIN_THOUSANDS.sub(_join, text)
    return _THOUSANDS.sub(_join, text)


def _join(match: re.Match[str]) -> str:
    return re.sub(r"\D", "", match[0])


def spell_numbers(text: str) -> str:
    r"""The text with powers of ten, repeating decimals and bare points as the parser reads them.

    >>> spell_numbers("4.5e33, 1E-5, 2e-1, 4.5 x 10^33"), spell_numbers("-1./3, 2E+3k")
    ('4.5 \\times 10^{33}, 1 \\times 10^{-5}, 2 e-1, 4.5 \\times 10^33', '-1/3, 2 E+3k')
    """
    text = _UPRIGHT_E.sub(r"\1\2", text)
    text = _TIMES_TEN.sub(r" \\times ", text)
    text = _POWER_OF_TEN.sub(_power_of_ten, text)
    text = _NO_POWER_OF_TEN.sub(r"\1 \2", text)
    text = _REPEATING.sub(_repeating, text)
    return _BARE_POINT.sub(r"\1", text)


def _power_of_ten(match: re.Match[str]) -> str:
    number, sign, exponent = match.groups()
    is_e = "e" in match[0].lower()
    may_be_euler = is_e and sign and number != "1" and "." not in number and len(exponent) == 1
    if may_be_euler:
        return match[0]
    return rf"{number} \times 10^{{{sign.replace('+', '')}{exponent}}}"


def _repeating(match: re.Match[str]) -> str:
    r"""`0.1\overline{6}` is 16 less 1, over 90."""
    whole, fixed, period = match[1] or "0", match[2], match[3]
    numerator = int(whole + fixed + period) - int(whole + fixed)
    return rf"\frac{{{numerator}}}{{{'9' * len(period)}{'0' * len(fixed)}}}"


def spell_mixed(text: str) -> str:
    r"""The text, whose arguments have braces, with a sum for each mixed number, and no two numbers in a row.

    >>> spell_mixed(r"-2\frac{1}{2}, 3 1/7"), spell_mixed(r"2\frac{3}{2}")[:7], spell_mixed("3 5")
    ('-(2+\\frac{1}{2}), (3+\\frac{1}{7})', '2\\cdot ', '3 \\text{ then } 5')
    """
    text = _MIXED.sub(_mixed, text)
    text = _PLAIN_MIXED.sub(_mixed, text)
    return _NUMBERS_IN_A_ROW.sub(r" \\text{ then } ", text)


def _mixed(match: re.Match[str]) -> str:
    whole, numerator, denominator = match.groups()
    if len(whole) == 3 and match.string[match.start() - 1] == "," and match.string[match.start() - 2].isdigit():
        return match[0]  # '1,234\\frac{1}{2}': the end of a longer number
    fraction = rf"\frac{{{numerator}}}{{{denominator}}}"
    # An improper fraction behind a whole number is a factor: mixed numbers have proper ones.
    return f"({whole}+{fraction})" if int(numerator) < int(denominator) else rf"{whole}\cdot {fraction}"
