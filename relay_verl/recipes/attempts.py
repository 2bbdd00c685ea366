"""What others measured of the paper's rows in public, from `attempts.yaml` next to this file.

Invariant: numbers are those that a source prints; a mean over benchmarks is ours, and is there only where the source
has all of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from statistics import fmean
from typing import Any

import yaml

from relay_verl.recipes.paper import find_row, paper


@dataclass(frozen=True)
class AttemptSource:
    """Where somebody reports what they measured, and under which conditions as far as they say."""

    name: str
    """Such as 'issue 2', of the authors' repository."""
    url: str
    date: str
    """Of the report, as YYYY-MM-DD."""
    models: str
    """What was measured or trained."""
    prompt: str
    """In which mode of the chat template."""
    sampling: str
    """How responses were sampled, and how long they could be."""
    verdicts: str
    """Who said what is right."""
    finding: str
    """What it says apart from the numbers."""
    answer: str
    """What the authors say to it."""


@dataclass(frozen=True)
class Attempt:
    """One row as a source measured it."""

    source: AttemptSource
    row: str
    """Name of its `Row`."""
    how: str
    """What tells it from another one of the same source and row; empty where there is one."""
    values: Mapping[str, float]
    """Percent by benchmark, and by the means of benchmarks and 'call_ratio' where all of their parts are there."""

    @property
    def label(self) -> str:
        """What tables call it."""
        return f"{self.source.name}, {self.how}" if self.how else self.source.name


@cache
def attempts() -> tuple[Attempt, ...]:
    """Every attempt, by source; the file is read once."""
    data = _read()
    sources = {name: AttemptSource(name, **_texts(facts)) for name, facts in data["sources"].items()}
    ratios = {_key(line): _numbers(line) for line in data["call_ratios"]}
    return tuple(
        Attempt(
            sources[line["source"]],
            find_row(line["row"]).name,
            str(line.get("how", "")),
            _with_means(_numbers(line), ratios.get(_key(line), {})),
        )
        for line in data["attempts"]
    )


@cache
def sources() -> tuple[AttemptSource, ...]:
    """Every source, the oldest first."""
    return tuple(dict.fromkeys(attempt.source for attempt in attempts()))


def attempts_at(row: str) -> tuple[Attempt, ...]:
    """Those at one row."""
    return tuple(attempt for attempt in attempts() if attempt.row == row)


def _read() -> Any:
    return yaml.safe_load(files(__package__).joinpath("attempts.yaml").read_text(encoding="utf-8"))


def _texts(facts: Mapping[str, Any]) -> dict[str, str]:
    return {name: str(value) for name, value in facts.items()}


def _key(line: Mapping[str, Any]) -> tuple[str, str, str]:
    return line["source"], line["row"], str(line.get("how", ""))


def _numbers(line: Mapping[str, Any]) -> dict[str, float]:
    return {name: float(value) for name, value in line.items() if name in paper().benchmarks}


def _with_means(values: dict[str, float], ratios: Mapping[str, float]) -> dict[str, float]:
    """The means of `Paper.groups` that are over benchmarks of the paper, and the mean of the call ratios."""
    means = {
        name: fmean(values[benchmark] for benchmark in group)
        for name, group in paper().groups.items()
        if set(group) <= values.keys() and name in ("average", "easy", "hard")
    }
    is_whole = set(paper().groups["average"]) <= ratios.keys()
    return values | means | ({"call_ratio": fmean(ratios.values())} if is_whole else {})


@cache
def in_release(method: str) -> str:
    """What the authors' release has for a method; 'none' where it has nothing."""
    return str(_read()["release"].get(method, "none"))


RELEASED_CHECKPOINT: str = _read()["released_checkpoint"]["id"]
"""The authors' checkpoint on the hub."""
RELEASED_ROW: str = _read()["released_checkpoint"]["row"]
"""The row that it is."""
