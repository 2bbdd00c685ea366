"""Phrases that are not idiomatic English, counted over the whole repository: their number only falls.

Docstrings, comments, messages and Markdown are read, and the names of variables. `PHRASES` and `NAMES` hold how many
uses are left: whoever rewrites some lowers the number, and at zero the phrase is refused everywhere.
"""

import ast
import io
import re
import tokenize
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = ("relay_verl", "recipes", "examples", "tests", ".ci", ".github")
TEXT_FILES = {".md", ".yaml", ".yml", ".cfg", ".toml", ".sh", ".sbatch", ".html", ".css", ".js"}
STRINGS = {tokenize.COMMENT, tokenize.STRING, getattr(tokenize, "FSTRING_MIDDLE", tokenize.STRING)}

PHRASES = {
    # name: pattern, number of uses that are left, what to write instead
    "is no": (
        r"(?<!\bthere )\b(?:is|are|was|were) no\b(?! (?:longer|more)\b)",
        0,
        "is not a ..., or what is expected",
    ),
    "mend": (r"\bmend(?:s|ed|ing)?\b", 0, "fix"),
    "nobody": (r"\bnobody\b", 2, "no one, or say who"),
    "beside": (r"\bbeside\b", 0, "next to, along with"),
    "goes on": (r"\b(?:go|goes|going|went) on\b", 3, "continues"),
    "such ones": (r"\bsuch ones?\b", 0, "name them"),
    "one line": (r"\bone line\b", 6, "a one-line error"),
    "bound by": (r"\bbound by\b", 0, "what dominates"),
    "who wants": (r"\bwho(?:ever)? wants\b", 1, "to ..., use ..."),
}
NAMES = {"made": 62, "found": 28, "wanted": 30, "given": 28, "there": 13, "theirs": 27}
"""Variables are named by their content; how many of each of these names are left."""


def files(suffixes: set[str]) -> Iterator[Path]:
    """The repository's own files of these kinds, but for this one, which has to name the phrases."""
    for path in [*ROOT.iterdir(), *(path for folder in FOLDERS for path in (ROOT / folder).rglob("*"))]:
        if path.suffix in suffixes and path.is_file() and path != Path(__file__):
            yield path


def passages(path: Path) -> Iterator[tuple[int, str]]:
    """The English of a file, as line number and text; of Python that is comments and strings."""
    text = path.read_text(encoding="utf-8")
    if path.suffix != ".py":
        yield 1, text
        return
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type in STRINGS:
            yield token.start[0], token.string


@pytest.fixture(scope="module")
def uses() -> dict[str, list[str]]:
    """Where each phrase stands, as FILE:LINE."""
    places = defaultdict(list)
    for path in files({".py", *TEXT_FILES}):
        for line, text in passages(path):
            flat = re.sub(r"\s", " ", text)  # of the same length; a phrase may be broken over two lines
            for name, (pattern, _, _) in PHRASES.items():
                for match in re.finditer(pattern, flat, re.IGNORECASE):
                    number = line + text.count("\n", 0, match.start())
                    places[name].append(f"{path.relative_to(ROOT)}:{number}")
    return places


@pytest.mark.parametrize("phrase", PHRASES)
def test_a_phrase_is_not_used_more_often(phrase: str, uses: dict[str, list[str]]) -> None:
    _, num_left, instead = PHRASES[phrase]
    places = uses[phrase]
    assert len(places) <= num_left, f"{phrase!r} stands at {len(places)} places; write: {instead}\n" + "\n".join(places)


@pytest.mark.parametrize(
    ("text", "phrase"),
    [
        ("3 is no\n   number", "is no"),
        ("Nobody asked", "nobody"),
        ("training goes on", "goes on"),
        ("it ends with one line", "one line"),
        ("what mends it", "mend"),
    ],
)
def test_a_phrase_is_recognised(text: str, phrase: str) -> None:
    assert re.search(PHRASES[phrase][0], re.sub(r"\s", " ", text), re.IGNORECASE)


@pytest.mark.parametrize("text", ["there is no file", "it is no longer read", "besides", "a one-line error", "amend"])
def test_good_english_is_not_refused(text: str) -> None:
    assert [name for name, (pattern, _, _) in PHRASES.items() if re.search(pattern, text, re.IGNORECASE)] == []


def assigned(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Names that a module gives to values: variables and parameters."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id, node.lineno
        elif isinstance(node, ast.arg):
            yield node.arg, node.lineno


def test_variables_are_named_by_their_content() -> None:
    places = defaultdict(list)
    for path in files({".py"}):
        for name, line in assigned(ast.parse(path.read_text(encoding="utf-8"))):
            if name in NAMES:
                places[name].append(f"{path.relative_to(ROOT)}:{line}")
    for name, num_left in NAMES.items():
        assert len(places[name]) <= num_left, f"{name!r} has {len(places[name])} uses\n" + "\n".join(places[name])
