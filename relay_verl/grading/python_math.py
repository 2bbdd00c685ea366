r"""Answers that are Python, as some of Minerva's ground truths are: `np.arcsin(10/13)`, `2**0.5`, `-1./3`. Pure.

Invariant: text without `**`, `np.`, `numpy.` or `math.` is returned as it is.
"""

from __future__ import annotations

import re

_IS_PYTHON = re.compile(r"(?<![A-Za-z])(?:np|numpy|math|sp|sympy)\.(?=[A-Za-z])|\*\*")
_MODULE = re.compile(r"(?<![A-Za-z])(?:np|numpy|math|sp|sympy)\.([A-Za-z]\w{0,20})")
_NAMES = {
    **{
        name: rf"\{name}" for name in ("sin", "cos", "tan", "sinh", "cosh", "tanh", "arcsin", "arccos", "arctan", "exp")
    },
    "asin": r"\arcsin",
    "acos": r"\arccos",
    "atan": r"\arctan",
    "sqrt": r"\sqrt",
    "log": r"\ln",
    "ln": r"\ln",
    "log10": r"\log_{10}",
    "log2": r"\log_{2}",
    "pi": r"\pi ",
    "e": r"\exp(1)",
    "E": r"\exp(1)",
    "inf": r"\infty ",
    "oo": r"\infty ",
}


def from_python(text: str) -> str:
    r"""The text as LaTeX.

    >>> from_python("np.arcsin(10/13)"), from_python("2**-0.5*np.pi")
    ('\\arcsin(10/13)', '2^-0.5*\\pi ')
    """
    if not _IS_PYTHON.search(text):
        return text
    text = _MODULE.sub(lambda name: _NAMES.get(name[1], name[0]), text)
    return text.replace("**", "^")
