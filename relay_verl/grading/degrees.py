r"""Degrees: in a sine they are radians, alone they are their number, and next to a pi they are radians again. Pure.

Invariant: `30^\circ` is 30 unless it stands in a trigonometric function or is compared with a multiple of pi, so the
answers `90`, `90^\circ` and `\frac{\pi}{2}` to one question are right for `90^\circ`, and `90` is wrong for
`\frac{\pi}{2}`.
"""

from __future__ import annotations

import re

DEGREE = r"^{\circ}"
_SPELLINGS = re.compile(
    r"\s{0,4}(?:\^\s{0,4}(?:\{\s{0,4}\\(?:circ|degree)\s{0,4}\}|\\(?:circ|degree)(?![A-Za-z]))"
    r"|(?<=[\d}])\^\s?(?:\{o\}|o(?![A-Za-z]))|\\(?:degree|textdegree)(?![A-Za-z])"
    r"|(?<=[\d})])\s{0,4}\\(?:text|mathrm)\{\s{0,4}deg(?:rees?)?\.?\s{0,4}\})"
)
_MINUTES = re.compile(
    r"(\d{1,40}(?:\.\d{1,40})?)\^\{\\circ\}\s{0,4}(\d{1,2}(?:\.\d{1,40})?)\s{0,4}(?:'|\^\{?\\prime\}?)(?!')"
    r"(?:\s{0,4}(\d{1,2}(?:\.\d{1,40})?)\s{0,4}(?:''|\"|\^\{?\\prime\\prime\}?))?"
)
_TEMPERATURE = re.compile(r"\^\{\\circ\}\s{0,4}(?:\\(?:text|mathrm)\{\s{0,4}([CF])\s{0,4}\}|([CF])(?![A-Za-z]))")
_TRIGONOMETRIC = re.compile(r"\\(?:sin|cos|tan|cot|sec|csc)(?![A-Za-z])(?!\s{0,4}\^\s{0,4}\{\s{0,4}-\s{0,4}1)")
_PI = re.compile(r"\\pi(?![A-Za-z])")
_BASE = re.compile(r"(\d{0,40}(?:\.\d{1,40})?\s?(?:[A-Za-z]|\\(?:alpha|beta|gamma|theta|phi|varphi)\s?)?)$")
_FRACTION = re.compile(r"\\frac\{[^{}]{1,40}\}\{[^{}]{1,40}\}$")
_MAX_BASE_CHARS = 200


def spell_degrees(text: str) -> str:
    r"""The text with one spelling of the degree sign; minutes and seconds of arc become fractions of a degree.

    >>> spell_degrees(r"90^\circ, 45\degree"), spell_degrees(r"30^\circ 15'"), spell_degrees(r"20^\circ C")
    ('90^{\\circ}, 45^{\\circ}', '(30+\\frac{15}{60})^{\\circ}', '20\\text{ degC}')
    """
    text = _SPELLINGS.sub(lambda _: DEGREE, text)
    if DEGREE not in text:
        return text
    text = _TEMPERATURE.sub(lambda scale: rf"\text{{ deg{scale[1] or scale[2]}}}", text)
    return _MINUTES.sub(_fraction_of_degree, text)


def _fraction_of_degree(match: re.Match[str]) -> str:
    degrees, minutes, seconds = match.groups()
    terms = [degrees, rf"\frac{{{minutes}}}{{60}}", *([rf"\frac{{{seconds}}}{{3600}}"] if seconds else [])]
    return f"({'+'.join(terms)}){DEGREE}"


def has_degrees(text: str) -> bool:
    return DEGREE in text


def has_pi(text: str) -> bool:
    return bool(_PI.search(text))


def is_trigonometric(text: str) -> bool:
    r"""Whether a sine or one of its kin is taken, which `\sin^{-1}` is not."""
    return bool(_TRIGONOMETRIC.search(text))


def to_radians(text: str) -> str:
    r"""The text with a multiple of pi for each number of degrees.

    >>> to_radians(r"\sin 30^{\circ}"), to_radians(r"\cos(90^{\circ}-x)"), to_radians(r"(90-x)^{\circ}")
    ('\\sin \\frac{30\\pi}{180}', '\\cos(\\frac{90\\pi}{180}-x)', '\\frac{(90-x)\\pi}{180}')
    """
    parts = text.split(DEGREE)
    converted: list[str] = []
    for part in parts[:-1]:
        start = _start_of_base(part)
        if start == len(part):  # a degree of nothing: leave it to the parser, which refuses it
            converted.append(part + DEGREE)
        else:
            converted.append(rf"{part[:start]}\frac{{{part[start:].strip()}\pi}}{{180}}")
    return "".join([*converted, parts[-1]])


def _start_of_base(text: str) -> int:
    """Where the number, letter, fraction or group in front of a degree sign starts."""
    text = text.rstrip()
    tail = text[-_MAX_BASE_CHARS:]
    offset = len(text) - len(tail)
    if fraction := _FRACTION.search(tail):
        return offset + fraction.start()
    if tail.endswith(("}", ")")):
        depth = 0
        for position in range(len(tail) - 1, -1, -1):
            depth += (tail[position] in "})") - (tail[position] in "{(")
            if depth == 0:
                return offset + position
        return len(text)
    base = _BASE.search(tail)
    start = base.start(1) if base else len(tail)
    if base and "\\" not in base[1] and re.search(r"\\[A-Za-z]*$", tail[: start + 1]):
        # The letter ends a command, such as the n of \sin: nothing has this degree sign.
        return len(text)
    return offset + start


def drop_degrees(text: str) -> str:
    """The text with the bare numbers of degrees; a blank stays, since a number may follow."""
    return text.replace(DEGREE, " ")
