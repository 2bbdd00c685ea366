r"""Percentages: one sign for the word, its short forms and its LaTeX. Pure.

Invariant: a percentage that is the whole answer ends in `\%`, and so does a list of nothing else, once. Any other `\%`
stands for a hundredth. `50\%` is compared as 50 and as 0.5 where it is the whole answer.
"""

from __future__ import annotations

import re

_SIGN = re.compile(
    r"(?<=[\d})])\s{0,4}(?:\\?%|\\(?:text|mathrm)\{\s{0,4}(?:\\?%|percent|per cent|percentages?|pct)\.?\s{0,4}\}"
    r"|(?:percent|per cent|percentages?|pct)(?![A-Za-z])\.?)"
)
_IN_TEXT = re.compile(r"(?<=[\d})])\s{0,4}\\(?:text|mathrm)\{\s{0,4}(?:percent|per cent|pct)\s{1,4}(?=[^{}]{1,60}\})")
_NUMBER = re.compile(r"(\d{1,40}(?:\.\d{1,40})?)\s{0,4}\\%")
_ITEM = re.compile(r"[^,;%]{1,200}\\%\s*")


def spell_percentages(text: str) -> str:
    r"""The text with `\%` for each spelling of percent.

    >>> spell_percentages("28 pct"), spell_percentages(r"28 \text{ percent}"), spell_percentages("50%, 25%")
    ('28\\%', '28\\%', '50, 25\\%')
    """
    text = _IN_TEXT.sub(r"\\%\\text{ ", text)
    text = _SIGN.sub(r"\\%", text)
    if text.count(r"\%") < 2 and text.rstrip().endswith(r"\%"):
        return text
    items = re.split("[,;]", text)
    if all(_ITEM.fullmatch(item) for item in items):
        return text.replace(r"\%", "") + r"\%"
    return _NUMBER.sub(r"\\frac{\1}{100}", text)
