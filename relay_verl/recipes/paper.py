"""The numbers of the paper and the rows that runs are named after, from `paper.yaml` next to this file.

A row is SIZE/METHOD: what a student is trained as, such as '1.7b/relay'. Numbers are percentages as printed. Where the
paper's own numbers do not tie, `Paper.discrepancies` says so.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files

import yaml

from relay_verl.errors import UserError, suggest


@dataclass(frozen=True)
class Size:
    """A student's size: one of the paper's models, or a pair of ours."""

    name: str
    """Such as '1.7b'."""
    title: str
    """As the tables write it."""
    teacher: str
    """Name of its teacher's row."""
    average: str
    """The mean over benchmarks that its tables show, one of `Paper.groups`."""
    is_in_paper: bool
    """Whether the paper has numbers for it."""

    @property
    def heading(self) -> str:
        """The title where it stands alone.

        >>> Size("tiny", "the tiny world", "tiny/teacher", "tiny", False).heading
        'Tiny world'
        """
        bare = self.title.removeprefix("the ")
        return f"{bare[0].upper()}{bare[1:]}"


@dataclass(frozen=True)
class Row:
    """What a student is trained as."""

    size: str
    """Name of its `Size`."""
    method: str
    """Such as 'relay', the difficulty-aware reward."""
    size_title: str
    """The size as the tables write it."""
    title: str
    """The method as the tables write it."""
    words: str
    """The method where conditions are named in words."""
    recipe: str | None
    """The recipe that trains it, or its head (CITER); None where nothing is trained, or not by us."""

    @property
    def name(self) -> str:
        """SIZE/METHOD."""
        return f"{self.size}/{self.method}"


@dataclass(frozen=True)
class PaperBenchmark:
    """A set of questions in the paper's tables, or of a pair of ours."""

    name: str
    title: str
    """As the tables write it."""
    num_samples: int = 1
    """Responses to each question (4.2)."""
    about: str = ""
    """What its questions are, where its name does not say it."""


@dataclass(frozen=True)
class Entry:
    """A row of a table."""

    table: str
    """Such as 'Table 1'."""
    row: str
    """Name of its `Row`."""
    values: Mapping[str, float]
    """Percent by benchmark or by 'average', 'easy', 'hard', 'call_ratio'."""
    policy: str | None = None
    """'teacher_free' where commands are forbidden; None is as trained."""
    teacher: str | None = None
    """Another teacher's name (Figure 3)."""


@dataclass(frozen=True)
class Discrepancy:
    """A place where the paper's numbers do not tie."""

    place: str
    """Section or table."""
    says: str
    """What stands there."""
    but: str
    """What does not fit it."""


@dataclass(frozen=True)
class Paper:
    """All of `paper.yaml`."""

    sizes: Mapping[str, Size]
    """By name."""
    rows: Mapping[str, Row]
    """By name."""
    benchmarks: Mapping[str, PaperBenchmark]
    """By name, in the order of the tables' columns."""
    groups: Mapping[str, tuple[str, ...]]
    """Benchmarks of each mean: 'average', 'easy', 'hard', or a size outside of the paper."""
    entries: tuple[Entry, ...]
    """Every row of every table, in order."""
    discrepancies: Mapping[str, Discrepancy] = field(default_factory=dict)
    """By a short name."""

    def find(self, table: str, row: str, *, policy: str | None = None) -> Mapping[str, float]:
        """The numbers of a row; empty where the table has no such row."""
        lines = [e for e in self.entries if (e.table, e.row, e.policy) == (table, row, policy)]
        return lines[0].values if lines else {}

    def averaged(self, size: Size, measured: Iterable[str]) -> tuple[str, ...]:
        """The benchmarks that a size's average is over: where they are families of one benchmark, such as tiny/add,
        also its other families that were measured, in the order of the tables' columns, unknown ones last."""
        names = self.groups[size.average]
        whole = {name.partition("/")[0] for name in names if "/" in name}
        more = [name for name in measured if name not in names and name.partition("/")[0] in whole]
        columns = [name for name in self.benchmarks if name in (*names, *more)]
        return (*columns, *(name for name in more if name not in columns)) if more else names

    def students(self, *, is_in_paper: bool) -> list[Size]:
        """The sizes that have a relay: the paper's, or those of our own pairs."""
        return [s for s in self.sizes.values() if s.is_in_paper == is_in_paper and f"{s.name}/relay" in self.rows]


@cache
def paper() -> Paper:
    """The paper's numbers; the file is read once."""
    data = yaml.safe_load(files(__package__).joinpath("paper.yaml").read_text(encoding="utf-8"))
    titles, words = data["methods"], data["words"]
    all_rows = [
        Row(
            size=size,
            method=method,
            size_title=data["sizes"][size]["title"],
            title=titles[method],
            words=words.get(method, titles[method]),
            recipe=data["recipes"].get(size, {}).get(method),
        )
        for size, methods in data["rows"].items()
        for method in methods
    ]
    in_paper = {line["row"].partition("/")[0] for lines in data["tables"].values() for line in lines}
    return Paper(
        sizes={name: Size(name, **facts, is_in_paper=name in in_paper) for name, facts in data["sizes"].items()},
        rows={row.name: row for row in all_rows},
        benchmarks={name: PaperBenchmark(name, **facts) for name, facts in data["benchmarks"].items()},
        groups={name: tuple(benchmarks) for name, benchmarks in data["groups"].items()},
        entries=tuple(_read_entry(table, line) for table, lines in data["tables"].items() for line in lines),
        discrepancies={name: Discrepancy(**item) for name, item in data["discrepancies"].items()},
    )


def _read_entry(table: str, line: Mapping[str, str | float]) -> Entry:
    words = {key: str(line[key]) for key in ("policy", "teacher") if key in line}
    values = {key: float(value) for key, value in line.items() if key not in ("row", "policy", "teacher")}
    return Entry(table, str(line["row"]), values, **words)


def rows() -> tuple[Row, ...]:
    """Every row, by size and in the order of the tables."""
    return tuple(paper().rows.values())


def find_row(name: str) -> Row:
    """The row called `name`, such as '1.7b/relay'.

    Raises:
        UserError: no such row; lists the valid ones.
    """
    if name not in paper().rows:
        raise UserError(f"row: {name!r} is not one of {', '.join(paper().rows)}{suggest(name, paper().rows)}")
    return paper().rows[name]
