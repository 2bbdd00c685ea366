r"""The LaTeX of an answer as tokens: commands, numbers, letters and signs, without what only changes its looks. Pure.

Invariant: takes time linear in the text. `x^{2}` and `\left( x \right)^2` differ in their braces only; a blank is kept
as a flag of the token behind it, since `3 5` is not 35.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal


class UnreadableError(Exception):
    """The text is not an answer that the grader reads as mathematics."""


@dataclass(frozen=True)
class Token:
    """One piece of LaTeX."""

    kind: Literal["number", "letter", "command", "sign", "text"]
    text: str
    r"""The number, the letter, the command with its backslash, the sign, or the content of a `\text{...}`."""
    is_spaced: bool = False
    """Whether a blank stands before it."""


_TOKEN = re.compile(r"\\[A-Za-z]+|\\.|\d+(?:\.\d+)?|\.\d+|[A-Za-z]|\s+|<=|>=|!=|.", re.DOTALL)
_DOUBLED_BACKSLASH = re.compile(r"\\\\(?=[A-Za-z{}])")  # answers that went through JSON twice

_IGNORED = frozenset(
    r"\left \right \big \Big \bigg \Bigg \bigl \bigr \Bigl \Bigr \biggl \biggr \middle \displaystyle \textstyle"
    r" \scriptstyle \limits \nolimits \quad \qquad \, \! \; \: \> \thinspace \medspace \thickspace \negthinspace $ ~ \$"
    r" \( \) \[ \] \rm \bf \it \hfill \strut \mathstrut \hspace".split()
)
_SPACES = frozenset(r"\quad \qquad \, \; \: \> ~ \thinspace \medspace \thickspace $".split())
_SYNONYMS = {
    alias: name
    for name, aliases in {
        r"\frac": r"\dfrac \tfrac \cfrac",
        r"\binom": r"\dbinom \tbinom",
        r"\le": r"\leq \leqslant <= ≤ ⩽",
        r"\ge": r"\geq \geqslant >= ≥ ⩾",
        r"\ne": r"\neq != ≠",
        r"\{": r"\lbrace",
        r"\}": r"\rbrace",
        "(": r"\lparen",
        ")": r"\rparen",
        "[": r"\lbrack",
        "]": r"\rbrack",
        "|": r"\vert \lvert \rvert ∣",
        "<": r"\lt",
        ">": r"\gt",
        "-": "− – ﹣",
        "*": r"\cdot \times \ast · × ∗ ⋅ • \bullet",
        "/": r"\div ÷ ∕",
        ":": r"\colon",
        r"\pm": "±",
        r"\mp": "∓",
        r"\pi": "π",
        r"\infty": "∞",
        r"\cup": r"\bigcup ∪",
        r"\cap": r"\bigcap ∩",
        r"\setminus": r"\backslash \smallsetminus ∖",
        r"\in": "∈",
        r"\emptyset": r"\varnothing ∅",
        r"\approx": r"≈ \simeq \thickapprox",
        r"\and": r"\land \wedge ∧",
        r"\or": r"\lor \vee ∨",
        r"\epsilon": r"\varepsilon ε ϵ",
        r"\phi": r"\varphi φ ϕ",
        r"\theta": r"\vartheta θ ϑ",
        r"\rho": r"\varrho ρ",
        r"\sigma": r"\varsigma σ",
        r"\kappa": r"\varkappa κ",
        r"\alpha": "α",
        r"\beta": "β",
        r"\gamma": "γ",
        r"\delta": "δ",
        r"\lambda": "λ",
        r"\mu": "μ",
        r"\omega": "ω",
        r"\tau": "τ",
        r"\Delta": "Δ ∆",
        r"\Omega": "Ω",
        r"\langle": "⟨",
        r"\rangle": "⟩",
        r"\lfloor": "⌊",
        r"\rfloor": "⌋",
        r"\lceil": "⌈",
        r"\rceil": "⌉",
        r"\circ": r"\degree ∘",
        "'": r"\prime ′",
        r"\dots": r"\ldots \cdots … \dotsc \dotsb ⋯",
        "%": r"\%",
        r"\sum": "∑",
    }.items()
    for alias in aliases.split()
}
_TEXT_COMMANDS = frozenset(r"\text \textbf \textit \textrm \textnormal \textsf \texttt \mbox \hbox \operatorname".split())
_FONT_COMMANDS = frozenset(r"\mathrm \mathbf \mathit \mathsf \mathtt \boldsymbol \bm \pmb \mathnormal \bold".split())
_CONJUNCTION = re.compile(r"[\s,]*(and|or)[\s,]*")
_PERCENT = ("percent", "percentage", "pct")
_ENVIRONMENT = re.compile(r"\{([A-Za-z]+)\*?\}")


def tokenize(text: str) -> list[Token]:
    r"""The tokens of an answer. Raises UnreadableError for braces of a text that do not close.

    >>> [token.text for token in tokenize(r"\left( \dfrac12 , 3\text{ or }x\right]")]
    ['(', '\\frac', '1', '2', ',', '3', '\\or', 'x', ']']
    """
    if r"\begin" not in text:
        text = _DOUBLED_BACKSLASH.sub(r"\\", text)
    text = text.replace("{,}", ",")  # '1{,}234'
    tokens: list[Token] = []
    is_spaced, position = False, 0
    while position < len(text):
        piece = _TOKEN.match(text, position)
        assert piece is not None  # the last alternative matches any character
        position, name = piece.end(), piece[0]
        name = _SYNONYMS.get(name, name)
        if name.isspace() or name == "\\ " or name in _IGNORED:
            is_spaced = is_spaced or name not in _IGNORED or name in _SPACES
            if name == r"\!":  # '11,\! 111': it takes the blank back
                position += len(text[position:]) - len(text[position:].lstrip())
            if name in (r"\left", r"\right") and text[position : position + 1] == ".":
                position += 1  # the invisible partner of a bracket
            continue
        if name in _TEXT_COMMANDS or name in _FONT_COMMANDS:
            content, end = _braced(text, position)
            if content is not None:
                position = end
                tokens.extend(_from_text(name, content, is_spaced))
                is_spaced = False
                continue
            if name in _FONT_COMMANDS:  # '\mathbf v'
                continue
        if name in (r"\begin", r"\end"):
            environment = _ENVIRONMENT.match(text, position)
            if environment is None:
                raise UnreadableError("an environment without a name")
            position, name = environment.end(), f"{name}{{{environment[1]}}}"
        kind: Literal["number", "letter", "command", "sign"] = (
            "command"
            if name.startswith("\\")
            else "number"
            if name[0].isdigit() or (name[0] == "." and len(name) > 1)
            else "letter"
            if name.isascii() and name.isalpha()
            else "sign"
        )
        tokens.append(Token(kind, name, is_spaced))
        is_spaced = False
    return _join_words(tokens)


def _braced(text: str, position: int) -> tuple[str | None, int]:
    """The content of the braces that open at a position, and where they end; None if none open there."""
    while position < len(text) and text[position].isspace():
        position += 1
    if position >= len(text) or text[position] != "{":
        return None, position
    depth = 0
    for match in re.compile(r"\\.|[{}]", re.DOTALL).finditer(text, position):
        depth += {"{": 1, "}": -1}.get(match[0], 0)
        if depth == 0:
            return text[position + 1 : match.start()], match.end()
    raise UnreadableError("a brace that does not close")


def _from_text(command: str, content: str, is_spaced: bool) -> list[Token]:
    r"""What a `\text{...}` or `\mathbf{...}` holds: a joining word, mathematics in other letters, or words."""
    conjunction = _CONJUNCTION.fullmatch(content)
    if conjunction:
        return [Token("command", rf"\{conjunction[1]}", True)]
    if not content.strip():
        return []
    if content.strip() == "dots":  # \\ldots, respelled
        return [Token("command", r"\dots", is_spaced)]
    # A font changes the looks of a formula only; several letters in it are one word, as \mathrm{red} is.
    if command in _FONT_COMMANDS and not re.fullmatch(r"[A-Za-z][A-Za-z ]+", content.strip()):
        inner = tokenize(content)
        return [Token("sign", "{", is_spaced), *inner, Token("sign", "}")]
    if re.fullmatch(r"\s*[-+]?[\d.]+\s*", content):  # '\text{12}'
        return tokenize(content)
    return [Token("text", " ".join(content.replace("$", "").split()), is_spaced)]


def _join_words(tokens: list[Token]) -> list[Token]:
    """The letters of `and` and `or` as commands, where they are a word of their own."""
    joined: list[Token] = []
    for run in letter_runs(tokens):
        word = plain(run)
        if word in ("and", "or") and run[0].kind == "letter":
            joined.append(Token("command", rf"\{word}", True))
        elif word in _PERCENT and run[0].kind in ("letter", "text"):
            joined.append(Token("sign", "%"))
        else:
            joined.extend(run)
    return joined


def letter_runs(tokens: list[Token]) -> list[list[Token]]:
    """The tokens in their order: letters without a blank between them together, every other token alone."""
    runs: list[list[Token]] = []
    for token in tokens:
        if token.kind == "letter" and not token.is_spaced and runs and runs[-1][0].kind == "letter":
            runs[-1].append(token)
        else:
            runs.append([token])
    return runs


def plain(tokens: list[Token]) -> str:
    """The tokens as one text without blanks: what two answers share that differ in their looks only."""
    return "".join(token.text for token in tokens)
