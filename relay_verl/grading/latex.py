r"""The LaTeX of an answer as tokens: commands, numbers, letters and signs, without what only changes its looks. Pure.

Invariant: takes time linear in the text, and joins no two numbers: a blank is kept as a flag of the token behind it.
The text is respelled before (`relay_verl.grading.spelling`), which leaves ASCII, and braces around all arguments.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

Kind = Literal["number", "letter", "command", "sign", "text"]


class UnreadableError(Exception):
    """The text is not an answer that the grader reads as mathematics."""


@dataclass(frozen=True)
class Token:
    """One piece of LaTeX."""

    kind: Kind
    text: str
    r"""The number, the letter, the command with its backslash, the sign, or the content of a `\text{...}`."""
    is_spaced: bool = False
    """Whether a blank stands before it."""


def words(text: str) -> frozenset[str]:
    """The words of a text, to look one up."""
    return frozenset(text.split())


OPENERS = frozenset(["(", "[", "{", r"\{", r"\lfloor", r"\lceil", r"\langle"])
CLOSERS = frozenset([")", "]", "}", r"\}", r"\rfloor", r"\rceil", r"\rangle"])

_TOKEN = re.compile(r"\\[A-Za-z]+|\\.|\d+(?:\.\d+)?|\.\d+|[A-Za-z]|\s+|<=|>=|!=|.", re.DOTALL)
_DOUBLED_BACKSLASH = re.compile(r"\\\\(?=[A-Za-z{}])")  # answers that went through JSON twice
_GLUED_SPACE = re.compile(r"\\(q?quad)(?=[A-Za-z])")  # ',\quadx'
_BRACE = re.compile(r"\\.|[{}]", re.DOTALL)
_IGNORED = words(
    r"\left \right \big \Big \bigg \Bigg \bigl \bigr \Bigl \Bigr \biggl \biggr \middle \displaystyle \textstyle "
    r"\limits \nolimits \quad \qquad \, \! \; \: \> $ ~ \$ \( \) \[ \] \rm \bf \it \hfill"
)
_SPACES = words(r"\quad \qquad \, \; \: \> ~ $")
_SYNONYMS = {
    alias: name
    for name, aliases in {
        r"\le": r"\leq \leqslant <=",
        r"\ge": r"\geq \geqslant >=",
        r"\ne": r"\neq !=",
        "(": r"\lparen",
        ")": r"\rparen",
        "[": r"\lbrack",
        "]": r"\rbrack",
        "|": r"\vert \lvert \rvert",
        "<": r"\lt",
        ">": r"\gt",
        "%": r"\%",
        "*": r"\cdot \times \ast \bullet",
        "/": r"\div",
        ":": r"\colon",
        "'": r"\prime",
        r"\cup": r"\bigcup",
        r"\cap": r"\bigcap",
        r"\setminus": r"\backslash \smallsetminus",
        r"\emptyset": r"\varnothing",
        r"\approx": r"\simeq \thickapprox",
        r"\and": r"\land \wedge",
        r"\or": r"\lor \vee",
        r"\epsilon": r"\varepsilon",
        r"\phi": r"\varphi",
        r"\theta": r"\vartheta",
        r"\rho": r"\varrho",
        r"\sigma": r"\varsigma",
        r"\kappa": r"\varkappa",
        r"\dots": r"\ldots \cdots \dotsc \dotsb",
    }.items()
    for alias in aliases.split()
}
_TEXT_COMMANDS = frozenset([r"\text", r"\textbf", r"\textit", r"\textrm", r"\textnormal", r"\mbox", r"\operatorname"])
_FONT_COMMANDS = frozenset([r"\mathrm", r"\mathbf", r"\mathit", r"\mathsf", r"\boldsymbol", r"\bm"])
_CONJUNCTION = re.compile(r"[\s,]*(and|or)[\s,]*")
_WORDS = re.compile(r"[A-Za-z][A-Za-z ]+")
_ENVIRONMENT = re.compile(r"\{([A-Za-z]+)\*?\}")


def tokenize(text: str) -> list[Token]:
    r"""The tokens of an answer. Raises UnreadableError for the braces of a text that do not close.

    >>> [token.text for token in tokenize(r"\left( \frac{1}{2} , 3\text{ or }x\right]")]
    ['(', '\\frac', '{', '1', '}', '{', '2', '}', ',', '3', '\\or', 'x', ']']
    """
    text = _GLUED_SPACE.sub(r"\\\1 ", text.replace("{,}", ","))
    if r"\begin" not in text:
        text = _DOUBLED_BACKSLASH.sub(r"\\", text)
    tokens: list[Token] = []
    is_spaced, position = False, 0
    while position < len(text):
        piece = _TOKEN.match(text, position)
        assert piece is not None  # the last alternative matches any character
        position, name = piece.end(), _SYNONYMS.get(piece[0], piece[0])
        if name.isspace() or name == "\\ " or name in _IGNORED:
            is_spaced = is_spaced or name not in _IGNORED or name in _SPACES
            if name in (r"\left", r"\right") and text[position : position + 1] == ".":
                position += 1  # the invisible partner of a bracket
            continue
        if name in _TEXT_COMMANDS or name in _FONT_COMMANDS:
            content, position = _braced(text, position)
            if content is not None:
                tokens.extend(_from_text(name, content, is_spaced))
            is_spaced = is_spaced and content is None
            continue
        if name in (r"\begin", r"\end"):
            environment = _ENVIRONMENT.match(text, position)
            if environment is None:
                raise UnreadableError("an environment without a name")
            position, name = environment.end(), f"{name}{{{environment[1]}}}"
        tokens.append(Token(_kind(name), name, is_spaced))
        is_spaced = False
    return [token for run in letter_runs(tokens) for token in _as_joining_word(run)]


def plain(tokens: list[Token]) -> str:
    """The tokens as one text without blanks: what two answers share that differ in their looks only."""
    return "".join(token.text for token in tokens)


def letter_runs(tokens: list[Token]) -> list[list[Token]]:
    """The tokens in their order: letters without a blank between them together, every other token alone."""
    runs: list[list[Token]] = []
    for token in tokens:
        if token.kind == "letter" and not token.is_spaced and runs and runs[-1][0].kind == "letter":
            runs[-1].append(token)
        else:
            runs.append([token])
    return runs


def bracket_step(token: Token) -> int:
    """1 for a token that opens a bracket, -1 for one that closes one, else 0."""
    if token.kind == "text":
        return 0
    is_opener = token.text in OPENERS or token.text.startswith(r"\begin{")
    is_closer = token.text in CLOSERS or token.text.startswith(r"\end{")
    return is_opener - is_closer


def matching(tokens: list[Token], position: int) -> int:
    """Where the bracket closes that opens at a position; any kind closes any other, as in `[0,1)`."""
    depth = 0
    for index in range(position, len(tokens)):
        depth += bracket_step(tokens[index])
        if depth <= 0:
            break
    else:
        raise UnreadableError("a bracket that does not close")
    return index


def _kind(name: str) -> Kind:
    if name.startswith("\\"):
        return "command"
    if name[0].isdigit() or (name[0] == "." and len(name) > 1):
        return "number"
    return "letter" if name.isascii() and name.isalpha() else "sign"


def _braced(text: str, position: int) -> tuple[str | None, int]:
    """The content of the braces that open at a position, and where they end; None if none open there."""
    start = position + len(text[position : position + 8]) - len(text[position : position + 8].lstrip())
    if text[start : start + 1] != "{":
        return None, position
    depth = 0
    for match in _BRACE.finditer(text, start):
        depth += {"{": 1, "}": -1}.get(match[0], 0)
        if depth == 0:
            return text[start + 1 : match.start()], match.end()
    raise UnreadableError("a brace that does not close")


def _from_text(command: str, content: str, is_spaced: bool) -> list[Token]:
    r"""What a `\text{...}` or `\mathbf{...}` holds: a joining word, mathematics in other letters, or words."""
    conjunction = _CONJUNCTION.fullmatch(content)
    if conjunction:
        return [Token("command", rf"\{conjunction[1]}", True)]
    if not content.strip():
        return []
    if content.strip() == "dots":
        return [Token("command", r"\dots", is_spaced)]
    # A font changes the looks of a formula only; several letters in it are one word, as \mathrm{red} is.
    if command in _FONT_COMMANDS and not _WORDS.fullmatch(content.strip()):
        return [Token("sign", "{", is_spaced), *tokenize(content), Token("sign", "}")]
    if content.strip().isdecimal():
        return [Token("number", content.strip(), is_spaced)]
    return [Token("text", " ".join(content.replace("$", "").split()), is_spaced)]


def _as_joining_word(run: list[Token]) -> list[Token]:
    """The letters of `and` and `or` as commands."""
    word = plain(run)
    return [Token("command", rf"\{word}", True)] if run[0].kind == "letter" and word in ("and", "or") else run
