r"""Words around an answer's value: `\text{The answer is }9`, `7^{\text{th}}`, `5 million`, `sqrt(2)`. Pure.

Invariant: words go only if they say nothing about the value. What limits, negates or doubts it stays, and the parser
then finds no number: `\text{not }9`, `\text{at least }9`, `9 \text{ or more}`.
"""

from __future__ import annotations

import re
from collections.abc import Callable

TEXT = re.compile(r"\\(?:text|mathrm|operatorname)\s{0,4}\{[^{}]*\}")
_WORD = re.compile(r"[A-Za-z']+")
_FILLER = frozenset((
    "the", "a", "an", "our", "my", "final", "correct", "answer", "answers", "ans", "is", "are", "was", "be",
    "value", "values", "result", "results", "solution", "solutions", "total", "sum", "product", "number", "of",
    "so", "thus", "hence", "therefore", "we", "get", "have", "find", "obtain", "that", "this", "it", "its",
    "equals", "equal", "to", "smallest", "largest", "minimum", "maximum", "minimal", "maximal", "least", "most",
    "greatest", "biggest", "highest", "lowest", "required", "desired", "area", "volume", "length", "perimeter",
    "probability", "distance", "time", "speed", "cost", "price", "amount", "ratio", "remainder", "expected",
))  # fmt: skip
_LIMITS = frozenset((
    "not", "no", "non", "never", "neither", "nor", "isn't", "aren't", "wrong", "incorrect", "false", "at", "than",
    "if", "unless", "or", "either", "between", "about", "approximately", "around", "nearly", "almost", "roughly",
    "maybe", "perhaps", "possibly", "probably", "over", "under", "above", "below", "up", "down", "within",
    "except", "but", "and", "both", "from", "option", "choice", "any", "all", "every", "cannot", "can't",
    "negative", "minus", "opposite", "reciprocal", "inverse", "square", "root", "cube", "log", "half", "double",
    "twice", "power", "mod", "modulo", "base", "percent", "with", "without", "exceeds", "exceed", "more", "less",
))  # fmt: skip
_MAX_WORDS = 12
_LEADING_TEXT = re.compile(r"\s*\\(?:text|mathrm)\s{0,4}\{([^{}\d]{1,120})\}\s*(:|=(?!=))?\s*(?=\S)")
_LEADING_WORDS = re.compile(
    r"\s*((?:[A-Za-z']{1,24}[ ]{1,3}){0,12}[A-Za-z']{1,24})\s{0,4}(:|=)?\s{1,4}(?=\S)"
    r"|\s*([A-Za-z]{2,24}(?: [A-Za-z']{1,24}){0,12})\s{0,2}:\s*(?=\S)"
)
_LEADING_SIGN = re.compile(r"\s*(?:\\(?:therefore|implies|Rightarrow|Longrightarrow|approx)(?![A-Za-z])|≈|∴|=(?!=))\s*")
_TEXT_ALONE = re.compile(r"\s*\\(text|mathrm)\s{0,4}\{([^{}]{1,400})\}\s*\.?\s*")
_STARTS_WITH_NUMBER = re.compile(r"\s*[-+]?\d")
_SUFFIX = r"(st|nd|rd|th)"
_ORDINAL = re.compile(
    rf"(?<![\d.])(\d{{1,40}})\s?(?:\^\s?\{{\s?\\(?:text|mathrm|textsuperscript)\s?\{{\s?{_SUFFIX}\s?\}}\s?\}}"
    rf"|\^?\s?\\(?:text|mathrm|textsuperscript)\s?\{{\s?{_SUFFIX}\s?\}}|{_SUFFIX}(?![A-Za-z(_^]))(?!\s{{0,4}}[\d{{])"
)
_BARE_ORDINAL = re.compile(rf"\s*(\d{{1,40}})\s?\^\s?\{{\s?{_SUFFIX}\s?\}}\s*")
_POWERS = {"hundred": 2, "thousand": 3, "million": 6, "billion": 9, "trillion": 12}
_SCALE_WORD = re.compile(
    rf"(?<=[\d}}])\s{{0,4}}(?:\\(?:text|mathrm)\{{\s{{0,4}}({'|'.join(_POWERS)})s?\b(?:\s+(?:of\b)?)?|\b({'|'.join(_POWERS)})s?\b)(?=([^{{}}]{{0,40}}\}})?)",
)
_NAMES = re.compile(
    r"(?<![A-Za-z\\])(sqrt|arcsin|arccos|arctan|sin|cos|tan|cot|sec(?=\s*[({\\A-Za-z\d])|csc|sinh|cosh|tanh|ln|log|exp|"
    r"pi|theta|alpha|beta|gamma|delta|lambda|omega|sigma|phi)(?![A-Za-z])"
)
_GLUED_PI = re.compile(r"(?<=\d)pi(?![A-Za-z])")
_CONJUNCTION = re.compile(r"(?<=\s)(and|or)(?=\s)")


def outside_text(text: str, rewrite: Callable[[str], str]) -> str:
    """The text with a rewrite of everything but the words in `\\text{}`."""
    parts: list[str] = []
    position = 0
    for words in TEXT.finditer(text):
        parts += [rewrite(text[position : words.start()]), words[0]]
        position = words.end()
    return "".join([*parts, rewrite(text[position:])])


def drop_leading_words(text: str) -> str:
    r"""The text without words that only announce the value.

    >>> drop_leading_words(r"\text{The answer is }9"), drop_leading_words("at least 9")
    ('9', 'at least 9')
    """
    alone = _TEXT_ALONE.fullmatch(text)
    if alone:  # '\text{Answer: 9}'
        inner = drop_leading_words(alone[2]).strip()
        if inner != alone[2].strip():
            return rf"\{alone[1]}{{{inner}}}" if inner[:1].isalpha() else inner
        is_quantity = _STARTS_WITH_NUMBER.match(alone[2])  # '\text{5 cm}'
        return alone[2].strip() if is_quantity else text
    for _ in range(3):
        lead = _LEADING_TEXT.match(text) or _LEADING_WORDS.match(text)
        if lead:
            words, sign = lead[1], lead[2]
            if lead.re is _LEADING_WORDS and lead[3]:
                words, sign = lead[3], ":"
            is_plain = lead.re is _LEADING_WORDS
            if not _only_announces(words + (sign or "")) or (is_plain and not _announces_plainly(words, sign)):
                return text
            text = text[lead.end() :]
        else:
            sign_only = _LEADING_SIGN.match(text)
            if not sign_only or sign_only.end() == len(text):
                return text
            text = text[sign_only.end() :]
    return text


def _announces_plainly(words: str, sign: str | None) -> bool:
    """Whether plain words are words and no product: `xy = 9` and the ratio `AB: CD` name what they are about."""
    listed = [word.lower() for word in _WORD.findall(words)]
    return _FILLER.issuperset(listed) or (sign is None and len(listed) > 2 and listed[-1] in ("is", "are", "equals"))


def _only_announces(phrase: str) -> bool:
    words = [word.lower() for word in _WORD.findall(phrase)]
    if not words or len(words) > _MAX_WORDS or not _LIMITS.isdisjoint(words):
        return False
    if any(len(word) == 1 and word != "a" for word in words):  # a variable
        return False
    is_complete = phrase.rstrip().endswith((":", "=")) or words[-1] in ("is", "are", "equals")
    return is_complete or _FILLER.issuperset(words)


def drop_ordinals(text: str) -> str:
    r"""The text with numbers for ordinals; the ending must be the number's own.

    >>> drop_ordinals(r"7^{\text{th}}, 21st, 7st, 2^{nd}"), drop_ordinals("7^{th}")
    ('7, 21, 7st, 2^{nd}', '7')
    """
    text = _BARE_ORDINAL.sub(_drop_ending, text) if _BARE_ORDINAL.fullmatch(text) else text
    return _ORDINAL.sub(_drop_ending, text)


def _drop_ending(match: re.Match[str]) -> str:
    number, *endings = match.groups()
    ending = next(ending for ending in endings if ending)
    is_teen = number[-2:-1] == "1"
    expected = "th" if is_teen else {"1": "st", "2": "nd", "3": "rd"}.get(number[-1], "th")
    return number if ending == expected else match[0]


def spell_scales(text: str) -> str:
    r"""The text with powers of ten for words such as million.

    >>> spell_scales(r"5 million"), spell_scales(r"5 \text{ million dollars}")
    ('5 \\times 10^{6}', '5 \\times 10^{6}\\text{ dollars}')
    """
    return _SCALE_WORD.sub(_power_of_ten, text)


def _power_of_ten(match: re.Match[str]) -> str:
    power = rf" \times 10^{{{_POWERS[match[1] or match[2]]}}}"
    return power + r"\text{ " if match[1] else power


def name_functions(text: str) -> str:
    r"""The text with commands for functions and Greek letters that are spelled in plain words.

    >>> name_functions("2*sqrt(3) + pi"), name_functions(r"x or \text{pi}")
    ('2*\\sqrt(3) + \\pi ', 'x or \\text{pi}')
    """
    return outside_text(text, lambda part: _NAMES.sub(r"\\\1 ", _GLUED_PI.sub(r"\\pi ", part)).replace("t (", "t("))


def name_conjunctions(text: str) -> str:
    r"""`3 and 4` with its word in a `\text{}`."""
    return outside_text(text, lambda part: _CONJUNCTION.sub(r"\\text{ \1 }", part))
