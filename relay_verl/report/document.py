"""Tables and pictures as data, and their rendering as Markdown and as one HTML page.

Invariant: every text is text. In the page it is escaped by the template; in Markdown what could be markup, a table's
bar or a line break is escaped or replaced. A picture is markup of our own drawing.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from importlib.resources import files

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from relay_verl import palette
from relay_verl.markdown import markdown_table
from relay_verl.report.terms import TERMS


@dataclass(frozen=True)
class Table:
    """Cells of text."""

    title: str
    head: tuple[str, ...]
    """Names of the columns."""
    rows: tuple[tuple[str, ...], ...]
    """Lines of cells. The last cell of a line that is shorter than the head spans the rest."""
    num_labels: int = 1
    """Columns at the left that name the line; all others are numbers, or words in their place."""
    note: str = ""
    """What a reader needs to know."""
    is_measured: bool = True
    """Whether anything of ours stands in it; else it holds the paper's numbers, or nothing at all."""

    @property
    def groups(self) -> list[list[tuple[str, ...]]]:
        """The lines by name: a line without a name belongs to the one above."""
        groups: list[list[tuple[str, ...]]] = []
        for row in self.rows:
            if row[0] or not groups:
                groups.append([])
            groups[-1].append(row)
        return groups


@dataclass(frozen=True)
class Picture:
    """One drawing."""

    name: str
    """Name of its file, without the suffix."""
    title: str
    svg: str
    """An <svg> element whose colours are the page's variables."""
    note: str = ""
    """What it shows; also its description for who cannot see it."""
    is_measured: bool = True
    """Whether anything of ours stands in it."""


@dataclass(frozen=True)
class Section:
    """Tables and pictures under one heading."""

    title: str
    blocks: tuple[Table | Picture, ...]
    note: str = ""
    is_folded: bool = False
    """Whether the page shows its title alone until it is opened."""


@dataclass(frozen=True)
class Document:
    """A report."""

    title: str
    note: str
    sections: tuple[Section, ...] = field(default=())
    headlines: tuple[str, ...] = ()
    """What was found, a sentence each."""
    provenance: tuple[tuple[str, str], ...] = ()
    """How it came about, each as a name and a text."""


def document_to_markdown(document: Document) -> str:
    """The document with its pictures as links to files `NAME.svg` next to it."""
    parts = [f"# {_escape(document.title)}"]
    parts += [f"**{_escape(sentence)}**" for sentence in document.headlines]
    parts += ["\n".join(f"- {name}: {_escape(text)}" for name, text in document.provenance), _escape(document.note)]
    for section in document.sections:
        parts += [f"## {_escape(section.title)}", _escape(section.note)]
        for block in section.blocks:
            parts.append(f"### {_escape(block.title)}")
            parts.append(
                table_to_markdown(block) if isinstance(block, Table) else f"![{_escape(block.title)}]({block.name}.svg)"
            )
            parts.append(_escape(block.note))
    return "\n\n".join(part for part in parts if part) + "\n"


def table_to_markdown(table: Table) -> str:
    """One table, with its text as it is."""
    rows = [[_escape(cell) for cell in row] for row in table.rows]
    return markdown_table([_escape(cell) for cell in table.head], rows, num_labels=table.num_labels)


def to_html(document: Document) -> str:
    """The document as one page that needs nothing from outside."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.tests["table"] = lambda block: isinstance(block, Table)
    environment.filters["picture"] = lambda picture: Markup(picture.svg)
    environment.filters["anchor"] = lambda text: re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
    environment.globals |= {"terms": TERMS, "palette": Markup(palette.to_css())}
    template = environment.from_string(files(__package__).joinpath("report.html").read_text(encoding="utf-8"))
    return template.render(document=document)


def _escape(text: str) -> str:
    """Markdown without line breaks that shows `text` as it is."""
    return re.sub(r"([\\`<>|\[\]*]|(?<!\w)_|_(?!\w))", r"\\\1", " ".join(text.split()))
