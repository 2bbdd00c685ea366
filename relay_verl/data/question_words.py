r"""A question as the words that it is compared by: one spelling for each of the many that LaTeX and Unicode have. Pure.

Invariant: `words_of(" ".join(words_of(q))) == words_of(q)`, and neither case nor the number of blanks changes a word.

What becomes one:
- Letters of a formula stand apart: `xy`, `x y` and `x{y}` are x, y. Words outside formulas, in `\text{...}` and the
  names of functions and units stay words. A `$` that is a currency opens no formula.
- Synonyms: `\le`, `\leqslant`, `<=` and the sign itself; `\to` and `\rightarrow`; `\not=` and `\neq`; `\cdot`, `\times`
  and `*`; `\dfrac{1}{2}`, `\frac12` and `1/2`; `1,000` and `1000`; `\pi` and the letter; `\sqrt` and its sign.
- Hyphens: non-negative, non negative and nonnegative. A number that is written out, from two to twelve, is its numeral.
- What says nothing: case, blanks, quotes, punctuation, dots (`\cdots`, `...`), sizes, fonts, spacing, alignment.
"""

from __future__ import annotations

import re
import unicodedata
from typing import NamedTuple

from relay_verl.data.synonyms import (
    COMMANDS,
    CONDITIONS,
    DROPPED,
    FORMULA_ENVIRONMENTS,
    FRACTIONS,
    FUNCTIONS,
    MODES,
    PREFIXES,
    SIGNS,
    UNITS,
    WORDS,
)

_CJK = "\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
_GREEK = "\u0370-\u03ff"
_SYMBOLS = "-+*/=<>^!%|·×÷±°∀-⋿←-⇿⌈-⌋⟵-⟿⩽⩾"
_TOKEN = re.compile(
    rf"""
    (?P<environment>\\(?:begin|end)\s*\{{[a-z]+\*?\}}(?:\s*\{{[lcrp|\s@]+\}})?)
    | (?P<skipped>\\[hv]space\*?\s*\{{[^{{}}]*\}} | \\label\s*\{{[^{{}}]*\}} | \\\\\s*\[[\d.]+\s*[a-z]{{2}}\]
        | \*{{2,}} | -{{2,}})
    | \\(?P<command>[a-z]+) | \\(?P<escaped>[\s\S]) | (?P<dollars>\$\$?) | (?P<brace>[{{}}])
    | (?P<thousands>(?<![\d.])\d{{1,3}}(?:(?:,|\{{,\}}|\\,|,\\!)\d{{3}})+(?!\d))
    | (?P<number>\d+(?:\.\d+)?|(?<![\d.])\.\d+) | (?P<single>[{_CJK}{_GREEK}])
    | (?P<letters>[^\W\d_{_CJK}{_GREEK}]+) | (?P<symbol><=|>=|[{_SYMBOLS}])
    """,
    re.VERBOSE,
)
_ENVIRONMENT = re.compile(r"\\(begin|end)\s*\{([a-z]+)")

_SUPERSCRIPT = re.compile("[⁰¹²³⁴-⁹]+")
_ESCAPES = (("\x0crac", r"\frac"), ("\x08inom", r"\binom"), ("\x08egin", r"\begin"), ("\times", r"\times"))
"""Commands whose backslash and first letter a JSON reader has taken for a control character, as in DAPO-Math-17k."""
_SPELLINGS = {"\u2212": "-", "\u2013": "-", "\u2014": "--", "\u2044": "/", "\u25b3": " triangle "}
"""Characters that Unicode does not take for their equals; the first one is the minus sign."""
_PROSE = re.compile(r"[a-z]{2,}[\s,.;]+[a-z]{3,}|[a-z]{3,}[\s,.;]+[a-z]{2,}|\n\s*\n")
_NOT_PROSE = re.compile(r"\\(?:text|mbox|textrm|mathrm|operatorname)\s*\{[^{}]*\}|\\[a-z]+")
_CLOSING_DOLLAR = re.compile(r"(?<!\\)\$")


class _Group(NamedTuple):
    """What is open at a place of the text."""

    mode: str
    """How letters are read: `text` as words, `formula` apart, `roman` apart but for functions and units."""
    closer: str
    """The token that closes it."""
    is_numerator: bool = False
    """Whether a fraction's bar follows."""


_OUTSIDE = _Group("text", "")


def words_of(question: str) -> list[str]:
    r"""The words that a question is compared by.

    >>> words_of("Find  $\\left(\\dfrac{1}{2}\\right)^2$, please."), words_of("2x−1")
    (['find', '1', '/', '2', '^', '2', 'please'], ['2', 'x', '-', '1'])
    >>> words_of("If $xy\\leqslant 2$, is it non-negative?") == words_of("if $x y \\le 2$ is it nonnegative")
    True
    """
    for broken, command in _ESCAPES:
        question = question.replace(broken, command)
    if question.isascii():
        return _Reader(question.lower()).words
    text = unicodedata.normalize("NFD", _SUPERSCRIPT.sub(r"^\g<0>", question)).casefold()
    text = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    for character, spelling in _SPELLINGS.items():
        text = text.replace(character, spelling)
    return _Reader(text).words


def normalize(question: str) -> str:
    """The words with a blank between; `normalize(normalize(q)) == normalize(q)`."""
    return " ".join(words_of(question))


class _Reader:
    """Reads a casefolded text once, from its first token to its last."""

    def __init__(self, text: str) -> None:
        self.words: list[str] = []
        self._text = text
        self._groups = [_OUTSIDE]
        self._next_mode: str | None = None  # of the group that a command announces
        self._has_bar_pending = False  # behind \frac, before its numerator
        self._is_negated = False  # behind \not
        readers = {kind: getattr(self, f"_read_{kind}") for kind in _TOKEN.groupindex}
        for match in _TOKEN.finditer(text):
            kind = match.lastgroup or ""
            readers[kind](match[kind], match)

    def _put(self, word: str) -> None:
        """Add a word, in the light of the word before it."""
        if word == "∘" and self.words and self.words[-1] == "^":
            word = "°"
        if word == "°":  # 30^\circ, 30° and 30 degrees
            while self.words and self.words[-1] == "^":
                self.words.pop()
        if self.words and self.words[-1] in PREFIXES and len(word) > 2 and word.isalpha():
            self.words[-1] += word
        else:
            self.words.append(word)

    def _put_argument(self, word: str) -> None:
        """Add a word, and the bar if it is a numerator without braces."""
        self._put(word)
        if self._has_bar_pending:
            self._has_bar_pending = False
            self._put("/")

    def _read_skipped(self, token: str, match: re.Match[str]) -> None:
        """Layout says nothing."""

    def _read_command(self, name: str, match: re.Match[str]) -> None:
        if name in FRACTIONS:
            self._has_bar_pending = True
        elif name in MODES:
            self._next_mode = MODES[name]
        elif name == "not":
            self._is_negated = True
        elif (word := COMMANDS.get(name) or WORDS.get(name, name)) != DROPPED:
            if self._is_negated:
                self._put_negated(word)
            else:
                self._put_argument(word)
        elif name == "prime" and self.words and self.words[-1] == "^":  # f^\prime and f'
            self.words.pop()

    def _read_environment(self, token: str, match: re.Match[str]) -> None:
        begin_or_end, name = _ENVIRONMENT.match(token).groups()  # type: ignore[union-attr]  # _TOKEN says that it does
        if name in FORMULA_ENVIRONMENTS:
            if begin_or_end == "begin":
                self._groups.append(_Group("formula", name))
            else:
                self._close(name)

    def _read_escaped(self, character: str, match: re.Match[str]) -> None:
        if character in "([":
            self._groups.append(_Group("formula", {"(": ")", "[": "]"}[character]))
        elif character in ")]":
            self._close(character)
        elif character == "%":
            self._put("%")
        elif character == "|":
            self._put("|")

    def _read_dollars(self, dollars: str, match: re.Match[str]) -> None:
        if self._close(dollars):
            return
        if dollars == "$$" and self._close("$"):  # $x$$y$
            dollars = "$"
        if self._groups[-1].mode == "text" and self._opens_formula(match.end(), dollars):
            self._groups.append(_Group("formula", dollars))

    def _opens_formula(self, start: int, dollars: str) -> bool:
        """Whether what stands up to the next dollar is a formula; else this one is a currency."""
        closing = _CLOSING_DOLLAR.search(self._text, start)
        if closing is None:
            return False
        content = self._text[start : closing.start()]
        if dollars == "$$":
            return True
        if not content[:1].isdigit() and not content[:1].isspace():
            return True
        follows = self._text[closing.end() : closing.end() + 1]
        is_price = content[:1].isdigit() and (content[-1:].isspace() or follows.isdigit())
        return not is_price and _PROSE.search(_NOT_PROSE.sub("", content)) is None

    def _read_brace(self, brace: str, match: re.Match[str]) -> None:
        if brace == "{":
            mode = self._next_mode or self._groups[-1].mode
            self._groups.append(_Group(mode, "}", is_numerator=self._has_bar_pending))
            self._next_mode, self._has_bar_pending = None, False
        elif self._groups[-1].closer == "}" and self._groups.pop().is_numerator:
            self._put("/")

    def _read_thousands(self, number: str, match: re.Match[str]) -> None:
        self._read_number("".join(filter(str.isdigit, number)), match)

    def _read_number(self, number: str, match: re.Match[str]) -> None:
        if number.startswith("."):
            number = f"0{number}"
        if self._has_bar_pending and len(number) > 1 and number.isdigit():  # \frac12
            self._put_argument(number[0])
            number = number[1:]
        self._put_argument(number)

    def _read_single(self, character: str, match: re.Match[str]) -> None:
        self._put_argument(character)

    def _read_letters(self, letters: str, match: re.Match[str]) -> None:
        mode = self._groups[-1].mode
        if mode == "text":
            self._put_argument(WORDS.get(letters, letters))
        elif letters in FUNCTIONS or letters in CONDITIONS or (mode == "roman" and letters in UNITS):
            self._put(letters)
        else:
            for letter in letters:
                self._put_argument(letter)

    def _read_symbol(self, symbol: str, match: re.Match[str]) -> None:
        sign = SIGNS.get(symbol, symbol)
        if sign == DROPPED or (symbol == "-" and self._is_hyphen(match)):
            return
        if self._is_negated:
            self._put_negated(sign)
        else:
            self._put(sign)

    def _is_hyphen(self, match: re.Match[str]) -> bool:
        """Whether a word of two letters or more is joined to something here."""
        if self._groups[-1].mode != "text":
            return False
        before, after = self._text[max(match.start() - 2, 0) : match.start()], self._text[match.end() : match.end() + 2]
        return (len(after) == 2 and after.isalpha()) or (
            len(before) == 2 and before.isalpha() and (after[:1].isalpha() or after[:1] == "$")
        )

    def _put_negated(self, word: str) -> None:
        self._is_negated = False
        if word == "|":
            self._put("∤")
            return
        composed = unicodedata.normalize("NFC", word + "\u0338")
        for part in [composed] if len(composed) == 1 else ["not", word]:
            self._put(part)

    def _close(self, closer: str) -> bool:
        """Close the innermost group of that closer, if the text that holds this place is in one."""
        for number in range(len(self._groups) - 1, 0, -1):
            group = self._groups[number]
            if group.closer == closer:
                del self._groups[number:]
                return True
            if group.mode == "text":  # \text{if $x$} inside a formula: its dollars are its own
                return False
        return False
