r"""Unicode's characters for mathematics, rewritten into ASCII and LaTeX commands. Pure.

Invariant: each character is rewritten by itself or with its run of superscripts or subscripts, so that two numbers
that a character separates stay two numbers. Invisible characters are dropped: the reader sees none either.

Departure: an en dash between two digits is the word `to`. It may be a range, which is not a number.
"""

from __future__ import annotations

import re
import unicodedata

_GREEK = {
    "α": "alpha",
    "β": "beta",
    "γ": "gamma",
    "δ": "delta",
    "ε": "epsilon",
    "ϵ": "epsilon",
    "ζ": "zeta",
    "η": "eta",
    "θ": "theta",
    "ϑ": "theta",
    "κ": "kappa",
    "λ": "lambda",
    "μ": "mu",
    "µ": "mu",
    "ν": "nu",
    "ξ": "xi",
    "π": "pi",
    "ρ": "rho",
    "σ": "sigma",
    "τ": "tau",
    "φ": "phi",
    "ϕ": "phi",
    "χ": "chi",
    "ψ": "psi",
    "ω": "omega",
    "Γ": "Gamma",
    "Δ": "Delta",
    "Θ": "Theta",
    "Λ": "Lambda",
    "Ξ": "Xi",
    "Π": "Pi",
    "Σ": "Sigma",
    "Φ": "Phi",
    "Ψ": "Psi",
    "Ω": "Omega",
}
_COMMANDS = {
    "×": "times",
    "✕": "times",
    "·": "cdot",
    "⋅": "cdot",
    "∙": "cdot",
    "•": "cdot",
    "\u2062": "cdot",  # invisible times
    "÷": "div",
    "±": "pm",
    "∓": "mp",
    "≤": "le",
    "⩽": "le",
    "≦": "le",
    "≥": "ge",
    "⩾": "ge",
    "≧": "ge",
    "≠": "ne",
    "≈": "approx",
    "≡": "equiv",
    "∞": "infty",
    "∪": "cup",
    "∩": "cap",
    "∈": "in",
    "∉": "notin",
    "∖": "setminus",
    "∅": "emptyset",
    "⟨": "langle",
    "〈": "langle",
    "⟩": "rangle",
    "〉": "rangle",
    "⌊": "lfloor",
    "⌋": "rfloor",
    "⌈": "lceil",
    "⌉": "rceil",
    "…": "ldots",
    "⋯": "cdots",
    "√": "sqrt",
}
_OTHERS = {
    "−": "-",
    "‐": "-",
    "‑": "-",
    "﹣": "-",
    "⁄": "/",
    "∕": "/",
    "∗": "*",
    "∛": r"\sqrt[3]",
    "∜": r"\sqrt[4]",
    "°": r"^{\circ}",
    "º": r"^{\circ}",
    "˚": r"^{\circ}",
    "′": "'",
    "’": "'",
    "″": "''",
    "ℝ": r"\mathbb{R}",
    "ℤ": r"\mathbb{Z}",
    "ℕ": r"\mathbb{N}",
    "ℚ": r"\mathbb{Q}",
    "ℂ": r"\mathbb{C}",
    "\u2063": ",",  # invisible separator
}
_TABLE = {
    **{character: rf"\{name} " for character, name in {**_GREEK, **_COMMANDS}.items()},
    **_OTHERS,
    **dict.fromkeys("\u200b\u200c\u200d\u200e\u200f\u2060\u2061\ufeff", ""),
}
_NOT_ASCII = re.compile(r"[^\x00-\x7f]")
_SUPERSCRIPTS = re.compile("[⁰¹²³⁴-⁹⁺⁻ⁿⁱ]+")
_SUBSCRIPTS = re.compile("[₀-₉₊₋]+")
_VULGAR_FRACTION = re.compile("[¼-¾⅐-⅞]")
_DASH = re.compile(r"(?<=\d)(\s{0,4})–(?=\s{0,4}\d)|–")


def to_latex(text: str) -> str:
    r"""The text with ASCII characters and LaTeX commands wherever there is one for what it shows.

    >>> to_latex("４·10⁻³ ≤ 2√3"), to_latex("2½π")
    ('4\\cdot 10^{-3} \\le  2\\sqrt 3', '2\\frac{1}{2}\\pi ')
    """
    if text.isascii():
        return text
    text = _SUPERSCRIPTS.sub(lambda run: f"^{{{_plain(run[0])}}}", text)
    text = _SUBSCRIPTS.sub(lambda run: f"_{{{_plain(run[0])}}}", text)
    text = _VULGAR_FRACTION.sub(_vulgar_fraction, text)
    text = _DASH.sub(lambda dash: "-" if dash[1] is None else r" \text{ to } ", text)
    return _NOT_ASCII.sub(_rewrite, text)


def _plain(run: str) -> str:
    return unicodedata.normalize("NFKC", run).replace("−", "-")


def _vulgar_fraction(match: re.Match[str]) -> str:
    numerator, denominator = unicodedata.normalize("NFKC", match[0]).split("⁄")
    return rf"\frac{{{numerator}}}{{{denominator}}}"


def _rewrite(match: re.Match[str]) -> str:
    character = match[0]
    if character in _TABLE:
        return _TABLE[character]
    digit = unicodedata.decimal(character, None)  # full-width, Arabic, Devanagari, mathematical bold
    if digit is not None:
        return str(digit)
    if (
        "\uff01" <= character <= "\uff5e" or "\U0001d400" <= character <= "\U0001d7ff"
    ):  # full-width, letters of formulas
        plain = unicodedata.normalize("NFKC", character)
        return _TABLE.get(plain, plain)
    return " " if character.isspace() else character
