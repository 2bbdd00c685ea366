"""The comparison in files: `frontier.html`, whole by itself, a picture an axis as SVG, and `frontier.csv`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from relay_verl.files import replace_file
from relay_verl.frontier.axis import WORDS, Axis, Ledger
from relay_verl.frontier.frontier_figure import frontier_figure
from relay_verl.frontier.measuring import Experiment, Measured
from relay_verl.frontier.point import Point, points_of
from relay_verl.frontier.standing import Position, Standing, standings
from relay_verl.frontier.standing_words import headline, number, sentence
from relay_verl.report.conditions import with_interval
from relay_verl.report.document import Document, Section, Table, table_to_markdown, to_html
from relay_verl.report.page_files import to_csv, write_pictures
from relay_verl.report.statistics import Estimate

PAGE, DATA = "frontier.html", "frontier.csv"
_INTERVALS = (
    "Intervals are 95%: over questions (paired bootstrap), or over training seeds (t) where a method has several that "
    "differ."
)


@dataclass(frozen=True)
class Comparison:
    """All methods on all axes."""

    points: Sequence[Point]
    ledger: Ledger
    standings: Mapping[Axis, Sequence[Standing]]
    """By axis, each in the order of the points."""


def compare_methods(measured: Sequence[Measured], ledger: Ledger) -> Comparison:
    """Put the methods on all axes that are known."""
    points = points_of(measured, ledger)
    return Comparison(points, ledger, {axis: standings(points, axis) for axis in ledger.axes})


def write_frontier(comparison: Comparison, experiment: Experiment, out: Path) -> str:
    """Write all files into `out`; gives the table of methods as Markdown, after the headlines."""
    document = make_document(comparison, experiment)
    write_pictures(document, out)
    replace_file(out / PAGE, to_html(document).encode())
    replace_file(out / DATA, to_csv(to_rows(comparison)).encode())
    lines = "\n".join(document.headlines)
    return f"{lines}\n\n{table_to_markdown(methods_table(comparison))}"


def make_document(comparison: Comparison, experiment: Experiment) -> Document:
    """The page."""
    ledger = comparison.ledger
    sections = [Section("All methods", (methods_table(comparison),))]
    for axis, placed in comparison.standings.items():
        picture = frontier_figure(placed, axis, ledger)
        sections.append(Section(f"By {WORDS[axis].title}", (picture, standings_table(placed, axis, ledger))))
    missing = [f"No {WORDS[axis].title}: {WORDS[axis].missing}." for axis in Axis if axis not in ledger.axes]
    absent = [one.name for one in experiment.methods if one.name not in {point.name for point in comparison.points}]
    missing += [f"No {name}: the student's engine gives no log-probabilities." for name in absent]
    benchmarks = ", ".join(benchmark.title for benchmark, _ in experiment.suite.benchmarks.values())
    note = (
        f"{len(comparison.points)} methods on {benchmarks}, {experiment.suite.num_queries:,} responses each: the same "
        f"questions for all of them. {_INTERVALS} {' '.join(missing)}"
    )
    headlines = tuple(headline(placed, axis) for axis, placed in comparison.standings.items())
    return Document(
        "What each way to share the work costs", note.strip(), tuple(sections), headlines, _models(experiment)
    )


def _models(experiment: Experiment) -> tuple[tuple[str, str], ...]:
    """Who took part."""
    players = experiment.players
    students = [f"{name}: {', '.join(models)}" for name, models in players.students.items()]
    return (("students", "; ".join(students)), ("teacher", players.teacher))


def methods_table(comparison: Comparison) -> Table:
    """Every method with its accuracy and its costs."""
    ledger = comparison.ledger
    rows = []
    for point in comparison.points:
        costs = [cost_cell(point.cost_estimates[axis]) for axis in ledger.axes]
        rows.append((point.name, with_interval(point.accuracy_estimate, 1), *costs))
    head = ("method", "accuracy (%)", *(ledger.unit(axis) for axis in ledger.axes))
    note = (
        "In parentheses the 95% interval. FLOPs: 2 x parameters x tokens, prefill counted. Seconds are those of a "
        "response among many at a time, and depend on the machine's load and on how warm the engines are. A query "
        "router is a cascade: the student answers every question, the share with the lowest mean log-probability is "
        "answered anew by the teacher, and both answers count."
    )
    return Table("Accuracy and costs", head, tuple(rows), note=note)


def standings_table(placed: Sequence[Standing], axis: Axis, ledger: Ledger) -> Table:
    """What dominates what, a sentence each."""
    rows = tuple((one.point.name, one.position.value, sentence(one, axis, ledger)) for one in placed)
    return Table(f"What dominates what, by {WORDS[axis].title}", ("method", "where it is", "why"), rows, num_labels=3)


def cost_cell(cost: Estimate) -> str:
    """A cost and its interval, if it has a width."""
    value = number(cost.value)
    return f"{value} ({number(cost.low)}–{number(cost.high)})" if cost.low < cost.high else value


def to_rows(comparison: Comparison) -> list[dict[str, Any]]:
    """A row for each method: numbers with their intervals, and who beats it on each axis."""
    rows = []
    for index, point in enumerate(comparison.points):
        row: dict[str, Any] = {
            "method": point.name,
            "policy": point.method.policy,
            "student": point.method.student,
            "max_teacher_tokens": point.method.max_teacher_tokens,
            "num_responses": point.num_responses,
            "num_seeds": point.accuracy.num_seeds,
            **_columns("accuracy_percent", point.accuracy_estimate, 100),
        }
        for axis, placed in comparison.standings.items():
            one = placed[index]
            row |= _columns(_column(axis, comparison.ledger), point.cost_estimates[axis], 1)
            row[f"{axis}_position"] = one.position.name.lower()
            row[f"{axis}_beaten_by"] = "; ".join(by.name for by in one.by)
            row[f"{axis}_is_clear"] = None if one.position is Position.HULL else one.is_clear
        rows.append(row)
    return rows


def _column(axis: Axis, ledger: Ledger) -> str:
    """Name of an axis's column, with its unit."""
    return ledger.unit(axis).replace(",", "").replace(" ", "_")


def _columns(name: str, estimate: Estimate, factor: float) -> dict[str, float]:
    values = {name: estimate.value, f"{name}_low": estimate.low, f"{name}_high": estimate.high}
    return {key: round(factor * value, 6) for key, value in values.items()}
