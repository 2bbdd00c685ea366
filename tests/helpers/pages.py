"""The Markdown pages of the repository that name commands, recipes, files, keys and metrics."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
RECIPES = ROOT / "recipes" / "README.md"
CONTRIBUTING = ROOT / "CONTRIBUTING.md"
PAGES = [
    README,
    CONTRIBUTING,
    ROOT / "SECURITY.md",
    RECIPES,
    *sorted((ROOT / "relay_verl").glob("*/README.md")),
    *sorted((ROOT / "examples").glob("*/README.md")),
    *sorted((ROOT / "examples").glob("*/results/README.md")),
]
"""All but the changelog, which names what was there then."""


def matches(pattern: str, pages: list[Path] = PAGES) -> list[tuple[str, str]]:
    """Every match with the page it is on, once each; fails if there is none, since the pattern is then wrong."""
    pairs = {(str(page.relative_to(ROOT)), match) for page in pages for match in re.findall(pattern, page.read_text())}
    assert pairs, pattern
    return sorted(pairs)


def values(pattern: str, pages: list[Path] = PAGES) -> list[str]:
    """The matches without their pages, once each."""
    return sorted({match for _, match in matches(pattern, pages)})


def anchors(page: Path) -> set[str]:
    """What `#...` may follow a link to this page: GitHub's names of its headings.

    >>> "where-things-are" in anchors(CONTRIBUTING)
    True
    """
    prose = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    headings = re.findall(r"^#+ (.+)$", prose, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def tables(text: str) -> list[list[dict[str, str]]]:
    """The Markdown tables of a text: the rows of each, by the names of the columns."""
    read = []
    for table in re.findall(r"(?:^\|.*\|\n?)+", text, re.MULTILINE):
        head, _, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]
        read.append([dict(zip(head, row, strict=True)) for row in rows])
    return read
