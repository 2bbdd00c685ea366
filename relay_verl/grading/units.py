r"""Units are taken off an answer, each by itself, and kept aside: `7 \text{ apples}, 8 \text{ pears}` is `7, 8`. Pure.

Invariant: a unit goes only from behind an amount, and only where nothing but an operator, a comma or the end follows;
what is left keeps every number, and no two numbers come together. Units in front are currency signs.

What counts as a unit:
- Text in a command such as `\text{}` or `\mathrm{}` that `relay_verl.grading.unit_table` reads as one. Behind an amount
  with a variable, only units of its table count: `n \text{ even}` and `2k \text{ apples}` keep theirs.
- Plain words behind a blank, from the table (`cm`, `mph`) or in the plural (`12 apples`). Letters are variables
  otherwise: `6m`, `6 m`, `3 mg`, `24 abcd`. Glued to the number, only units that cannot be meant as a product.
- Amounts that belong together become one: `5\text{ hours } 20\text{ minutes}` is 5 + 20/60 hours.
"""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass

from relay_verl.grading.unit_table import Dimension, Unit, is_unit_word, parse_unit

_CONTENT = r"(?:[^{}]|\{[^{}]{0,8}\}){1,80}"
_EXPONENT = r"(?:\s{0,4}\^\s{0,4}(?:(-?\d)|\{\s{0,4}(-?\d)\s{0,4}\}))?"
_ATOM = rf"\\(?:text|mathrm|operatorname)\s{{0,4}}\{{({_CONTENT})\}}{_EXPONENT}"
ATOM = re.compile(_ATOM)
_BETWEEN = re.compile(r"\s{0,4}(?:/|\\cdot(?![A-Za-z])|\*)?\s{0,4}")
_FRACTION_OF_UNITS = re.compile(
    rf"\\frac\s{{0,4}}\{{\s{{0,4}}{_ATOM}\s{{0,4}}\}}\s{{0,4}}\{{\s{{0,4}}{_ATOM}\s{{0,4}}\}}"
)
_MICRO = re.compile(r"\\mu\s{0,4}(\\(?:text|mathrm)\{)(?=(?:m|s|g|A|C|F)\})")
_ENDS_WITH_WORD = re.compile(r"\\(?:text|mathrm)\{([^{}]{1,60}?)(?:\s{0,4},)?\s{1,4}(and|or)\s{0,4}\}")
_ENDS_WITH_COMMA = re.compile(r"(\\(?:text|mathrm)\{[^{}]{1,60}?)\s{0,4}([,;])\s{0,4}\}")
_AMOUNT = r"(?:\d{1,40}(?:\.\d{1,40})?|(?:\d{1,40}\s?)?\\frac\{\d{1,40}\}\{\d{1,40}\})"
_COMPOUND = re.compile(
    rf"(?<![\d.}}])({_AMOUNT})\s{{0,4}}{_ATOM}((?:\s{{0,4}}(?:\\text\{{\s{{0,4}}and\s{{0,4}}\}})?\s{{0,4}}{_AMOUNT}\s{{0,4}}{_ATOM}){{1,3}})"
)
_PART = re.compile(rf"({_AMOUNT})\s{{0,4}}{_ATOM}")
_AFTER_UNIT = re.compile(
    r"\s*(?:$|[,;:=<>+\-*/^)\]}!&]|\\[\\}|,;]|\\(?:times|cdot|div|pm|mp|leq?|geq?|ne|neq|lt|gt|in|cup|cap|approx|right|quad|"
    r"text|mathrm|end|rangle)(?![A-Za-z]))"
)
_COMMAND = re.compile(r"\\[A-Za-z]+")
_LETTER = re.compile(r"[A-Za-z]")
_SEPARATOR = re.compile(r"[,;=<>]|\\text\{[^{}]{0,80}\}")
_ITEM_CHARS = 200
_CURRENCY = re.compile(
    r"(?:US\s?)?(\\\$|[€£¥₹])\s{0,4}(?=[\d.(\\+-])|(?<![A-Za-z\\])(USD|EUR|GBP|INR|JPY|Rs)\.?\s{0,4}(?=\d)"
    r"|(?<=[\d}])\s{0,4}(\\\$|[€£¥₹])"
)
_CURRENCY_NAMES = {r"\$": "usd", "€": "eur", "£": "pound", "¥": "yen", "₹": "inr", "Rs": "inr", "JPY": "yen"}
_PLAIN_WORDS = re.compile(
    r"(?:(?<=[\d}%)])|(?<=\\pi))(?:\s{1,4}|\\,\s{0,4})((?:[A-Za-z]{2,24}\.?(?:\s{0,2}/\s{0,2}|\s|-)){0,5}[A-Za-z]{1,24}\.?)"
    r"(?=\s{0,4}(?:$|[,;^=)\]\d]|\\(?:text|times|cdot|,|;)))"
)
_NUMBER_IN_TEXT = re.compile(r"\\(?:text|mathrm)\{\s{0,4}([-+]?\d{1,40}(?:\.\d{1,40})?)\s{0,4}([A-Za-z][^{}]{0,60})\}")
_TIME_OF_DAY = re.compile(r"(:\d\d)\s{0,2}([aApP])\.?\s?[mM]\b\.?")
_GLUED_WORD = re.compile(r"(?<![A-Za-z_^{])(\d{1,40}(?:\.\d{1,40})?)([A-Za-z]{2,16})(?![A-Za-z(_])")
_GLUED = frozenset((
    "cm", "mph", "kph", "kmh", "kmph", "hrs", "hr", "mins", "secs", "sec", "ft", "kHz", "MHz", "GHz", "kWh", "keV",
    "MeV", "GeV",
))  # fmt: skip
# Units that may be a product of variables, such as m times g.
_PRODUCTS = frozenset((
    "mg", "ms", "ns", "us", "nm", "um", "dm", "mi", "ha", "gm", "mo", "cc", "pc", "ly", "au", "wk", "am", "pm", "AM",
    "PM", "AU", "MB", "GB", "TB", "KB", "kB", "MJ", "MW", "kN", "kJ", "kV", "kW", "mA", "mV", "eV", "Pa", "Hz",
))  # fmt: skip
_FUNCTIONS = ("sin", "cos", "tan", "sec", "csc", "cot", "arc", "log", "exp", "sqrt", "max", "lim", "gcd", "lcm", "det")
_IRREGULAR_PLURALS = frozenset(("people", "children", "women", "men", "sheep", "fish", "mice", "feet", "dice", "deer"))


@dataclass(frozen=True)
class Quantity:
    """A unit that an answer names, and what stands in front of it."""

    amount: str
    unit: Unit


def name_plain_units(text: str) -> str:
    r"""The text with plain words that are units in a `\text{}`.

    >>> name_plain_units("12 apples, 3 mg, 5cm"), name_plain_units("6m, 24 abcd")
    ('12\\text{ apples}, 3 mg, 5\\text{cm}', '6m, 24 abcd')
    """
    text = _NUMBER_IN_TEXT.sub(_name_rest, text)
    text = _TIME_OF_DAY.sub(lambda time: rf"{time[1]}\text{{ {time[2].lower()}m}}", text)
    text = _GLUED_WORD.sub(_name_glued, text)
    return _PLAIN_WORDS.sub(_name_words, text)


def _name_rest(match: re.Match[str]) -> str:
    r"""`\text{12 cm}^2` is the number 12 and a unit that has its exponent outside."""
    return rf" {match[1]}\text{{{match[2]}}}" if parse_unit(match[2]) else match[0]


def _name_glued(match: re.Match[str]) -> str:
    number, word = match.groups()
    is_unit = word in _GLUED or (len(word) >= 5 and is_unit_word(word))
    return rf"{number}\text{{{word}}}" if is_unit else match[0]


def _name_words(match: re.Match[str]) -> str:
    words = re.findall(r"[A-Za-z]+", match[1])
    # The first word decides: 'm square' and 'a bc' are products, 'square m' and 'km/h' are not.
    are_units = _is_plain_unit(words[0]) and all(_is_plain_unit(word) or is_unit_word(word) for word in words[1:])
    if not are_units and not (_is_word(words[-1]) and _is_plural(words[-1]) and min(map(len, words)) > 2):
        return match[0]
    unit = parse_unit(match[1])
    is_followed_by_digit = match.string[match.end() : match.end() + 5].lstrip()[:1].isdigit()  # '5 feet 10 inches'
    if unit is None or (is_followed_by_digit and not unit.is_known):
        return match[0]
    return rf"\text{{ {match[1]}}}"


def _is_plain_unit(word: str) -> bool:
    """Whether a word names a unit and cannot be meant as a product of variables."""
    return word in ("per", "of", "square", "sq", "cubic", "cu", "squared", "cubed") or (
        is_unit_word(word) and len(word) > 1 and word not in _PRODUCTS
    )


def _is_word(word: str) -> bool:
    """Whether letters are a word of English rather than a product: `wxyz`, `abcd`, `sinx`."""
    is_alphabetical = all(one < following for one, following in itertools.pairwise(word.lower()))
    looks_like_word = len(word) >= 4 and word[1:].islower() and bool(re.search("[aeiou]", word.lower()))
    return looks_like_word and not is_alphabetical and not word.lower().startswith(_FUNCTIONS)


def _is_plural(word: str) -> bool:
    return word.endswith("s") or word in _IRREGULAR_PLURALS


def take_units_off(text: str) -> tuple[str, list[Quantity]]:
    r"""The text without its units, and what they were.

    >>> take_units_off(r"7 \text{ apples}, 8 \text{ pears}")[0], take_units_off(r"4\mathrm{ft}\times 12\mathrm{ft}")[0]
    ('7  , 8  ', '4 \\times 12 ')
    """
    quantities: list[Quantity] = []
    text = _CURRENCY.sub(lambda sign: _drop_currency(sign, quantities), text)
    if "\\text" not in text and "\\mathrm" not in text:
        return text, quantities
    text = _MICRO.sub(r"\1u", text)
    text = _FRACTION_OF_UNITS.sub(_slash, text)
    text = _ENDS_WITH_WORD.sub(r"\\text{\1}\\text{ \2 }", text)
    text = _ENDS_WITH_COMMA.sub(r"\1}\2", text)
    text = _COMPOUND.sub(_join_compound, text)
    kept: list[str] = []
    position = 0
    first_units: dict[Dimension, Unit] = {}  # of this item
    for start, end, unit in _runs(text):
        before = text[max(position, start - _ITEM_CHARS) : start].rstrip()
        item = re.split(r"[,;=<>]|\\text\{[^{}]*\}", before)[-1]
        if _SEPARATOR.search(text, position, start):
            first_units.clear()
        if unit and _is_amount_of(item, unit) and _AFTER_UNIT.match(text, end):
            kept += [text[position:start], _conversion(unit, first_units)]
            quantities.append(Quantity(item.strip(), unit))
            position = end
    return "".join([*kept, text[position:]]), quantities


def _conversion(unit: Unit, first_units: dict[Dimension, Unit]) -> str:
    """What stands for the unit: a blank, or its size in the item's first unit of this kind: `5 km + 300 m` is 5.3."""
    first = first_units.setdefault(unit.dimension, unit) if unit.is_known else unit
    if first.size is None or unit.size is None or first.size == unit.size:
        return " "
    ratio = unit.size / first.size
    return rf"\cdot\frac{{{ratio.numerator}}}{{{ratio.denominator}}} "


def _drop_currency(sign: re.Match[str], quantities: list[Quantity]) -> str:
    symbol = sign[1] or sign[2] or sign[3]
    unit = parse_unit(_CURRENCY_NAMES.get(symbol, symbol.lower()))
    if unit:
        quantities.append(Quantity("", unit))
    return " "


def _slash(match: re.Match[str]) -> str:
    above, above_power, above_braced, below, below_power, below_braced = match.groups()
    powers = [f"^{power}" if power else "" for power in (above_power or above_braced, below_power or below_braced)]
    return rf"\text{{{above}{powers[0]}/{below}{powers[1]}}}"


def _join_compound(match: re.Match[str]) -> str:
    """`5 hours 20 minutes` as a sum in its first unit; as a tuple in this order if the units have no common measure."""
    parts = [(amount, parse_unit(_unit_text(content, power or braced)))
             for amount, content, power, braced in _PART.findall(match[0])]  # fmt: skip
    units = [unit for _, unit in parts]
    if None in units:
        return match[0]
    first = units[0]
    assert first is not None
    sizes = [unit.size for unit in units if unit and unit.size is not None and unit.dimension == first.dimension]
    if len(sizes) == len(units) and all(one > other for one, other in itertools.pairwise(sizes)):
        terms = [parts[0][0]]
        for (amount, _), size in zip(parts[1:], sizes[1:], strict=True):
            ratio = size / sizes[0]
            terms.append(rf"{amount}\cdot\frac{{{ratio.numerator}}}{{{ratio.denominator}}}")
        first_atom = ATOM.search(match[0])
        assert first_atom is not None
        return f"({'+'.join(terms)}){first_atom[0]}"
    if r"\text{ and" in match[0].replace(r"\text{and", r"\text{ and"):
        return match[0]  # 3 apples and 4 pears: a list
    return f"({','.join(amount for amount, _ in parts)})"


def _unit_text(content: str, power: str | None) -> str:
    return f"{content}^{power}" if power else content


def _runs(text: str) -> list[tuple[int, int, Unit | None]]:
    """Where units are: neighbouring ones such as `\\mathrm{m}/\\mathrm{s}^2` are one."""
    runs: list[tuple[int, int, str]] = []
    for match in ATOM.finditer(text):
        content = _unit_text(match[1], match[2] or match[3])
        if runs and parse_unit(content) is not None and parse_unit(runs[-1][2]) is not None:
            start, end, earlier = runs[-1]
            between = _BETWEEN.fullmatch(text, end, match.start())
            if between:
                runs[-1] = start, match.end(), f"{earlier}{between[0] or ' '}{content}"
                continue
        runs.append((match.start(), match.end(), content))
    return [(start, end, parse_unit(content)) for start, end, content in runs]


def _is_amount_of(item: str, unit: Unit) -> bool:
    """Whether what stands in front can have this unit: behind a variable, unknown words are conditions, not units."""
    item = item.strip()
    if not item or not (item[-1].isalnum() or item[-1] in "})]!%.|'"):
        return False
    has_variable = bool(_LETTER.search(_COMMAND.sub("", item)))
    return unit.is_known or not has_variable
