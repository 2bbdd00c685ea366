"""Where the authors' release and this project differ, from `departures.yaml` next to this file: the one list that the
README's table and the page on what reproduces have."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import yaml


@dataclass(frozen=True)
class Departure:
    """One difference; texts are Markdown."""

    what: str
    """What differs."""
    release: str
    """What the authors' code does."""
    here: str
    """What is done here by default."""
    switch: str = ""
    """How to do as the release does."""
    no_switch: str = ""
    """Why that cannot be set."""

    @property
    def row(self) -> str:
        """The line of the README's table.

        >>> Departure("waiting", "all wait", "no one waits", no_switch="only the time changes").row
        '| waiting | all wait | no one waits; no switch, since only the time changes |'
        """
        tail = f"; the release: {self.switch}" if self.switch else ""
        tail += f"; no switch, since {self.no_switch}" if self.no_switch else ""
        return f"| {self.what} | {self.release} | {self.here}{tail} |"


@cache
def departures() -> tuple[Departure, ...]:
    """Every difference, in the order of the table; the file is read once."""
    data = yaml.safe_load(files(__package__).joinpath("departures.yaml").read_text(encoding="utf-8"))
    return tuple(Departure(**item) for item in data)
