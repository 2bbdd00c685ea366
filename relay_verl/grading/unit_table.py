r"""What the names of units mean: `km/h` is 5/18 of a metre per second, `apples` is a word. Pure.

Invariant: `parse_unit` gives None for what may change an answer's value or meaning (`million`, `or more`, `if odd`,
`mod`): such text is not a unit, and whoever asks must leave it where it stands.

Departures: `degree` is a unit of angle unless a scale of temperature follows; Celsius, Fahrenheit and Kelvin are not
converted; plurals of unknown words are theirs without the s.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from fractions import Fraction

Dimension = tuple[tuple[str, int], ...]
"""Base units and their exponents, sorted: metre per second is (("m", 1), ("s", -1))."""


@dataclass(frozen=True)
class Unit:
    """A unit that an answer names."""

    name: str
    """Its words, in lower case and without plurals, to compare units that have no size."""
    size: Fraction | None
    """How many of its dimension's base units it is; None if one of its words is unknown."""
    dimension: Dimension
    """Empty if one of its words is unknown."""

    @property
    def is_known(self) -> bool:
        return self.size is not None


DEGREES = Unit("degree", Fraction(1), (("deg", 1),))
"""The unit of `90^\\circ`."""

# Names by size, for each dimension. A name of one or two letters, or with a capital, is matched as it is spelled.
_SIZES: dict[str, dict[str, str]] = {
    "m": {
        "1/1000000000": "nm nanometer nanometre",
        "1/1000000": "um micrometer micrometre micron",
        "1/1000": "mm millimeter millimetre",
        "1/100": "cm centimeter centimetre",
        "1/10": "dm decimeter decimetre",
        "1": "m meter metre mtr",
        "1000": "km kilometer kilometre",
        "127/5000": "in inch inches",
        "381/1250": "ft foot feet",
        "1143/1250": "yd yard",
        "201168/125": "mi mile",
    },
    "m2": {"40468564224/10000000": "acre", "10000": "ha hectare"},
    "m3": {"1/1000000": "ml mL cc milliliter millilitre", "1/1000": "L l liter litre"},
    "s": {
        "1/1000000000": "ns nanosecond",
        "1/1000000": "us microsecond",
        "1/1000": "ms millisecond",
        "1": "s sec second",
        "60": "min minute",
        "3600": "h hr hour",
        "86400": "d day",
        "604800": "wk week",
    },
    "month": {"1": "mo month", "12": "yr year", "120": "decade", "1200": "century centuries"},
    "kg": {
        "1/1000000": "mg milligram",
        "1/1000": "g gm gram",
        "1": "kg kilogram",
        "45359237/100000000": "lb lbs pound",
        "45359237/1600000000": "oz ounce",
        "1000": "tonne",
    },
    "m s-1": {"1397/3125": "mph", "5/18": "kph kmh kmph"},
    "kg m s-2": {"1": "N newton", "1000": "kN", "1/100000": "dyn dyne"},
    "kg m2 s-2": {"1": "J joule", "1000": "kJ", "1000000": "MJ", "1/10000000": "erg", "3600000": "kWh"},
    "kg m2 s-3": {"1": "W watt", "1000": "kW kilowatt", "1000000": "MW megawatt"},
    "kg m-1 s-2": {"1": "Pa pascal", "1000": "kPa", "1000000": "MPa", "101325": "atm"},
    "s-1": {"1": "Hz hertz", "1000": "kHz", "1000000": "MHz", "1000000000": "GHz"},
    "eV": {"1": "eV", "1000": "keV", "1000000": "MeV", "1000000000": "GeV"},
    "A": {"1": "A amp ampere", "1/1000": "mA"},
    "V": {"1": "V volt", "1/1000": "mV", "1000": "kV"},
    "ohm": {"1": "ohm"},
    "coulomb": {"1": "coulomb"},
    "farad": {"1": "farad"},
    "tesla": {"1": "T tesla"},
    "mol": {"1": "mol mole", "1/1000": "mmol"},
    "byte": {"1": "B byte"},
    "kilobyte": {"1": "kB KB kilobyte"},  # 1000 or 1024 of them: not converted
    "megabyte": {"1": "MB megabyte"},
    "gigabyte": {"1": "GB gigabyte"},
    "terabyte": {"1": "TB terabyte"},
    "bit": {"1": "bit"},
    "pc": {"1": "pc parsec", "1000": "kpc", "1000000": "Mpc"},
    "ly": {"1": "ly light-year lightyear"},
    "au": {"1": "AU"},
    "angstrom": {"1": "angstrom Å"},
    "kelvin": {"1": "K kelvin"},
    "celsius": {"1": "celsius degC"},
    "fahrenheit": {"1": "fahrenheit degF"},
    "deg": {"1": "deg degree"},
    "rad": {"1": "rad radian"},
    "usd": {"1": "usd dollar bucks buck", "1/100": "cent ¢"},
    "eur": {"1": "eur euro"},
    "gbp": {"1": "gbp"},
    "inr": {"1": "inr rs rupee"},
    "jpy": {"1": "yen"},
    "pm": {"1": "pm"},
    "am": {"1": "am"},
}
# What changes the value or the claim in front of it.
_NO_UNIT = frozenset((
    "or", "and", "if", "when", "where", "while", "whenever", "unless", "until", "not", "no", "non", "none",
    "never", "neither", "nor", "more", "less", "fewer", "than", "at", "least", "most", "greater", "smaller",
    "bigger", "larger", "between", "within", "under", "over", "above", "below", "exactly", "approximately",
    "about", "around", "nearly", "almost", "for", "with", "without", "such", "that", "is", "are", "be", "was",
    "can", "cannot", "may", "mod", "modulo", "base", "binary", "octal", "decimal", "hexadecimal", "radix",
    "ternary", "remainder", "times", "plus", "minus", "divided", "multiplied", "by", "factorial", "choose",
    "percent", "percentage", "hundred", "thousand", "million", "billion", "trillion", "dozen", "half", "halves",
    "third", "quarter", "fourth", "fifth", "tenth", "pair", "couple", "score", "twice", "double", "triple", "to",
    "from", "then", "but", "except", "excluding", "including", "otherwise", "else", "only", "any", "all", "every",
    "some", "infinite", "infinitely", "many", "even", "odd", "prime", "composite", "positive", "negative",
    "integer", "real", "rational", "irrational", "complex", "natural", "imaginary", "power", "powers", "root",
    "true", "false", "yes", "undefined", "nonnegative", "non-negative", "nonzero", "impossible", "does", "do",
    "exist", "exists", "sin", "cos", "tan", "cot", "csc", "log", "ln", "exp", "lim", "max", "gcd", "lcm",
    "sqrt", "pi", "alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "iota", "kappa", "lambda",
    "mu", "nu", "xi", "rho", "sigma", "tau", "upsilon", "phi", "chi", "psi", "omega", "infinity", "inf",
))  # fmt: skip
_LATER_EXPONENT_WORDS = {"squared": 2, "cubed": 3}
_EXPONENT_WORDS = {"square": 2, "sq": 2, "cubic": 3, "cu": 3}
_SCALES = {"c": "celsius", "celsius": "celsius", "f": "fahrenheit", "fahrenheit": "fahrenheit"}
_WORD_OR_SIGN = re.compile(
    r"([^\W\d_]+(?:[-'][^\W\d_]+)*)\.?|\^\s*\{?\s*(-?\d)\s*\}?|(/)|([\s~]+|\\cdot|\\times|\*|·)|(.)"
)
_SHORT_WORDS = frozenset(["C", "F", "H", "S", "M"])  # Celsius or coulomb, Fahrenheit or farad: units, but which?
MAX_WORDS = 6
_Factor = tuple[Fraction, dict[str, int]]
"""A unit's size and the exponents of its base units."""


def _table() -> dict[str, _Factor]:
    table = {}
    for dimension, sizes in _SIZES.items():
        exponents = {base: int(exponent or 1) for base, exponent in re.findall(r"([A-Za-z]+)(-?\d)?", dimension)}
        for size, names in sizes.items():
            for name in names.split():
                table[name] = Fraction(size), exponents
    return table


_TABLE = _table()


def _look_up(word: str) -> _Factor | None:
    lower = word.lower()
    names = [word] if len(word) <= 2 else [word, lower]
    names += [lower.removesuffix("s"), lower.removesuffix("es")] if len(word) > 3 else []
    names += [lower] if word in ("AM", "PM", "Rs", "Ft", "FT", "CM", "KM", "KG", "Kg", "Lb", "In") else []
    return next((_TABLE[name] for name in names if name in _TABLE), None)


def is_unit_word(word: str) -> bool:
    """Whether the table has it, be it singular or plural."""
    return _look_up(word) is not None


def parse_unit(text: str) -> Unit | None:
    r"""The unit that a text names; None if it is not the name of a unit or of things that are counted.

    >>> parse_unit("km/h") == parse_unit("kilometers per hour"), parse_unit(" apples ").name, parse_unit("or more")
    (False, 'apple', None)
    >>> parse_unit("cm^2").size == parse_unit("square centimeters").size
    True
    """
    words: list[str] = []
    factors: list[tuple[_Factor | None, int]] = []  # with their exponents; None for an unknown word
    sign = exponent = 1
    for token in _WORD_OR_SIGN.finditer(text.replace("p.m.", "pm").replace("a.m.", "am")):
        word, power, slash, blank, other = token.groups(default="")
        lower = word.lower()
        if other or len(words) > MAX_WORDS or lower in _NO_UNIT or lower.removesuffix("s") in _NO_UNIT:
            return None
        if blank:
            continue
        if lower == "of" and words:  # 'liters of water'
            break
        if slash or lower == "per":
            sign = -1
        elif lower in _EXPONENT_WORDS:
            exponent = _EXPONENT_WORDS[lower]
        elif power or lower in _LATER_EXPONENT_WORDS:
            if not factors or (factors[-1][0] is None and not power):  # '5 squared' is 25
                return None
            raised = int(power) if power else _LATER_EXPONENT_WORDS[lower]
            factors[-1] = factors[-1][0], factors[-1][1] * raised
            words.append(f"^{raised}")
        else:
            if words == ["degree"] and lower in _SCALES:  # 'degrees Celsius'
                words, factors = [], []
                word = _SCALES[lower]
            factor = _look_up(word)
            if factor is None and len(word) < 3 and word not in _SHORT_WORDS:
                return None
            factors.append((factor, sign * exponent))
            words.append(f"{'/' if sign < 0 else ''}{_singular(word)}")
            sign = exponent = 1
    if not words or sign < 0:
        return None
    return _product(" ".join(words), factors)


def _product(name: str, factors: list[tuple[_Factor | None, int]]) -> Unit:
    size = Fraction(1)
    exponents: Counter[str] = Counter()
    for factor, exponent in factors:
        if factor is None:
            return Unit(name, None, ())
        size *= factor[0] ** exponent
        for base, number in factor[1].items():
            exponents[base] += number * exponent
    return Unit(name, size, tuple(sorted((base, number) for base, number in exponents.items() if number)))


def _singular(word: str) -> str:
    lower = word.lower() if len(word) > 2 else word
    return lower.removesuffix("s") if len(lower) > 3 else lower
