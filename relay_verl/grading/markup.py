r"""LaTeX that changes an answer's looks and not its meaning: dollars, sizes, fonts, blanks. Pure.

Invariant: what is dropped between two numbers leaves a blank, so that they stay two numbers. `\text`, `\mathrm` and
`\operatorname` are the only commands for words that are left.
"""

from __future__ import annotations

import re

_DOLLAR = re.compile(r"(?<!\\)\$+")
_SIZES = re.compile(
    r"\\(?:left|right|middle|[bB]igg?[lrm]?)(?![A-Za-z])\s{0,4}\.?"
    r"|\\(?:displaystyle|textstyle|scriptstyle|limits|nolimits|strut|mathstrut|boldmath|bf|it|rm|sf)(?![A-Za-z])"
)
_BRACED_FONT = re.compile(r"\{\s{0,4}\\(?:rm|bf|it|sf|tt)\s{1,4}(?=[^{}]{0,80}\})")
_CURRENCY_TEXT = re.compile(r"\\(?:text|mathrm|mbox)\s{0,4}\{\s{0,4}(\\\$|[€£¥₹])\s{0,4}")
_WORDS = re.compile(r"\\(?:textbf|textit|textrm|textnormal|texttt|textsf|textup|mbox|hbox|emph)\s{0,4}(?=\{)")
_BLANKS = re.compile(
    r"(?<!\\)\\(?:[,;: ]|q?quad(?![A-Za-z])|enspace(?![A-Za-z])|thinspace(?![A-Za-z])|hspace\*?\{[^{}]{0,20}\})|~"
)
_BACK_BLANK = re.compile(r"(?<!\\)\\!\s{0,4}")
_FORMATTED = re.compile(
    r"\\(?:mathbf|boldsymbol|bm|pmb|mathit|mathsf|mathtt|mathrm|mathnormal|text|underline|uline|mathop|operatorname)"
    r"\s{0,4}\{|[{}]"
)
_WORD_IN_MATH = re.compile(r"(?<!\\)(?<![A-Za-z])[A-Za-z]{2,}|(?<![A-Za-z\\])[A-Za-z](?![A-Za-z])")
_NOT_MATH = re.compile(r"[^\d\s+\-*/^_().,|!=<>\\{}A-Za-z%~]")
_MAX_FORMATTED_CHARS = 200
_BRACE = re.compile(r"\\.|[{}]", re.DOTALL)
_BRACED_COMMA = re.compile(r"\s{0,4}\{\s{0,4},\s{0,4}\}")
_EMPTY_TEXT = re.compile(r"\\(?:text|mathrm)\s{0,4}\{\s*\}")
_DOUBLED = re.compile(r"\\\\(?=[A-Za-z])")
_ENDS_WITH_BACKSLASHES = re.compile(r"(?<!\\)\\+$")
_DOTS = re.compile(r"\\(?:ldots|dots|dotsc|dotsb|cdots)(?![A-Za-z])|(?<=,)\s{0,4}\.\.\.\s{0,4}(?=,)")
_FEET = re.compile(
    r"(?<![\d.])(\d{1,6})\s{0,4}(?:'|\^\{?\\prime\}?)(?!')\s{0,4}(\d{1,2}(?:\.\d{1,6})?)\s{0,4}(?:''|\"|\^\{?\\prime\s?\\prime\}?)"
)
_PRIMES = re.compile(r"(?<=[A-Za-z)\d}])('{1,3})")
_QUOTED_NUMBER = re.compile(r"(?<=\d)[\"']+(?=\s{0,4}\d)")
_SYNONYMS = re.compile(r"\\(?:varnothing|leqslant|geqslant|leqq|geqq|R|N|Z|Q)(?![A-Za-z])|\\mathbb\s{1,4}([A-Z])")
_SYNONYM_OF = {
    r"\varnothing": r"\emptyset ",
    r"\leqslant": r"\le ",
    r"\leqq": r"\le ",
    r"\geqslant": r"\ge ",
    r"\geqq": r"\ge ",
    r"\R": r"\mathbb{R}",
    r"\N": r"\mathbb{N}",
    r"\Z": r"\mathbb{Z}",
    r"\Q": r"\mathbb{Q}",
}
_COMMAND_SUBSCRIPT = re.compile(
    r"_\s{0,4}\{\s{0,4}\\([A-Za-z]{2,20})\s{0,4}\}|_\s{0,4}\\(max|min|odot|oplus|infty|sup|inf)(?![A-Za-z])"
)
_SPACED_INTERVAL = re.compile(r"\s*([a-z])\s{0,4}([(\[][^()\[\],]{1,40},[^()\[\],]{1,40}[)\]])\s*")


def drop_emphasis(text: str) -> str:
    r"""Without Markdown's stars around the whole answer; a product or a power in Python's spelling keeps its own.

    >>> drop_emphasis("**73**"), drop_emphasis("2**3")
    ('73', '2**3')
    """
    inside = text.strip().removeprefix("**").removesuffix("**")
    is_marked = len(text.strip()) - len(inside) == 4 and "*" not in inside
    return inside if is_marked else text


def drop_looks(text: str) -> str:
    r"""The text without what only changes its looks.

    >>> drop_looks(r"$\displaystyle\textbf{1.25}$"), drop_looks(r"$3$ and $5$"), drop_looks(r"\mathbf{\frac12}\\")
    ('1.25', '3  and  5', '\\frac12')
    """
    text = _DOLLAR.sub(" ", text.strip())
    if r"\begin" not in text:  # there, it ends a row
        text = _DOUBLED.sub(r"\\", text)
    text = _CURRENCY_TEXT.sub(r"\1\\text{", text.replace(r"\textdollar", r"\$ "))
    text = _BRACED_FONT.sub(r"\\mathrm{", text)
    text = _SIZES.sub(lambda size: " " if size[0][-1].isalpha() else "", text)
    text = _WORDS.sub(r"\\text", text)
    text = _EMPTY_TEXT.sub(" ", text)
    text = _BRACED_COMMA.sub(",", _BACK_BLANK.sub("", text))
    text = _SYNONYMS.sub(lambda name: rf"\mathbb{{{name[1]}}}" if name[1] else _SYNONYM_OF[name[0]], text)
    text = _COMMAND_SUBSCRIPT.sub(lambda name: rf"_{{\text{{{name[1] or name[2]}}}}}", text)
    text = _ENDS_WITH_BACKSLASHES.sub("", text.strip()).strip()
    return _drop_outer_braces(_unwrap_numbers(text))


def _unwrap_numbers(text: str) -> str:
    r"""`\mathbf{1.25}` is `{1.25}`: the braces stay, since a number may follow. Words and names keep their fonts."""
    opened: list[tuple[int, int]] = []  # where each open group's command and content start
    unwrapped: set[int] = set()
    commands: dict[int, int] = {}
    for match in _FORMATTED.finditer(text):
        if match[0] != "}":
            opened.append((match.start(), match.end()))
        elif opened:
            start, content_start = opened.pop()
            is_wrapper = content_start - start > 1
            if is_wrapper and match.start() - content_start <= _MAX_FORMATTED_CHARS:
                content = text[content_start : match.start()]
                if _is_number_or_formula(content):
                    unwrapped.add(start)
                    commands[start] = content_start
    parts: list[str] = []
    position = 0
    for start in sorted(unwrapped):
        parts += [text[position:start], "{"]
        position = commands[start]
    return "".join([*parts, text[position:]])


def _is_number_or_formula(content: str) -> bool:
    """Whether it holds a digit or a command and no word: not `5 cm`, not `x`, not `Evelyn`."""
    inner = re.sub(r"\\(?:mathbf|boldsymbol|mathrm|text)\s{0,4}\{", "{", content)
    has_value = bool(re.search(r"\d|\\(?:frac|dfrac|tfrac|sqrt|pi|infty|times)(?![A-Za-z])", inner))
    words = _WORD_IN_MATH.findall(re.sub(r"\\[A-Za-z]+", " ", inner))
    return (
        has_value and not _NOT_MATH.search(inner) and not any(word not in ("e", "E", "x", "y", "n") for word in words)
    )


def _drop_outer_braces(text: str) -> str:
    """The text out of all braces that are around the whole of it; empty braces stay."""
    num_outer = min(len(text) - len(text.lstrip("{")), len(text) - len(text.rstrip("}")))
    inside = text[num_outer : len(text) - num_outer]
    if inside.endswith("\\"):  # the last brace is escaped
        return text
    depth = num_outer
    for match in _BRACE.finditer(inside):
        if len(match[0]) == 1:
            depth += 1 if match[0] == "{" else -1
            num_outer = min(num_outer, depth)
    core = text[num_outer : len(text) - num_outer].strip() if num_outer > 0 else ""
    return core or text


def drop_blanks(text: str) -> str:
    """The text with plain blanks for the blanks of LaTeX."""
    return _BLANKS.sub(" ", text)


def name_primes(text: str) -> str:
    r"""`f'` is another function than `f`, `5'10''` is a length, `1,2,\ldots,10` is a longer list than `1,2,10`.

    >>> name_primes("f'(x)"), name_primes("5'10''"), name_primes(r"1,\ldots,9")
    ('f^{\\prime}(x)', '5\\text{ ft }10\\text{ in}', '1,\\text{dots},9')
    """
    text = _FEET.sub(r"\1\\text{ ft }\2\\text{ in}", text)
    text = _QUOTED_NUMBER.sub(r" \\text{ quote } ", text)
    text = _PRIMES.sub(lambda primes: rf"^{{{chr(92)}prime{(chr(92) + 'prime') * (len(primes[1]) - 1)}}}", text)
    return _DOTS.sub(r"\\text{dots}", text)


def name_membership(text: str) -> str:
    r"""`t(0,4]` cannot be a function's value, since its brackets do not match.

    >>> name_membership("t(0,4]"), name_membership("f(0,4)")
    ('t\\in (0,4]', 'f(0,4)')
    """
    match = _SPACED_INTERVAL.fullmatch(text)
    is_half_open = match and (match[2][0] == "(") != (match[2][-1] == ")")
    return rf"{match[1]}\in {match[2]}" if match and is_half_open else text
