"""The summary on top of a page of responses: one table, and the same table in parts for a window that it does not fit.

What its columns mean stands in ABOUT, for the tooltips and for the list under the table.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby, repeat
from typing import Any

from relay_verl.report.summary_table import Column, ConditionSummary, make_columns

MAX_UNFOLDED = 16
"""Most conditions whose table is open when the page is; a training has one for each step."""
ABOUT: Mapping[tuple[str, str], str] = {
    ("accuracy by rule (%)", ""): "right answers, by comparison with the ground truth",
    ("accuracy by judge (%)", ""): "right answers in the eyes of an LLM judge",
    ("accuracy by rule (%)", "average"): "mean of the benchmarks' accuracies",
    ("accuracy by judge (%)", "average"): "mean of the benchmarks' accuracies",
    ("call rate (%)", ""): "responses in which the teacher was asked, or wrote all: 100 for the teacher alone",
    ("call ratio (%)", ""): "the teacher's share of the tokens",
    ("call ratio (%)", "average"): "its share in each benchmark, averaged over benchmarks, as the paper does",
    ("call ratio (%)", "pooled"): "its share in all tokens together, in which long responses weigh more",
    ("call ratio (%)", "mean"): "its share in each response, averaged over responses: what the reward charges",
    ("", "not completed"): "responses that ended because a model failed",
}
"""Meaning of a group of columns (with an empty label) or of one column."""


def make_table(
    summaries: Sequence[ConditionSummary], names: Mapping[str, str], notes: Mapping[str, str]
) -> dict[str, Any]:
    """The summary as groups of columns, each with rows of (text, share of 1 or None for a count).

    Args:
        summaries: a row each.
        names: other names to show for conditions and benchmarks.
        notes: what a benchmark asks, by the name it has in the records.
    """
    of_label = {names.get(benchmark, benchmark): note for benchmark, note in notes.items()}
    columns = make_columns(summaries, names)
    groups = []
    for name, grouped in groupby(columns, key=lambda column: column.group):
        members = list(grouped)
        groups.append(
            {
                "name": name,
                "about": ABOUT.get((name, ""), "") if name else "",
                "labels": [(c.label, ABOUT.get((name, c.label)) or _note_of(c.label, of_label)) for c in members],
                "rows": list(zip(*(_cells(column) for column in members), strict=True)),
            }
        )
    return {
        "groups": groups,
        "conditions": [names.get(summary.condition, summary.condition) for summary in summaries],
        "is_folded": len(summaries) > MAX_UNFOLDED,
    }


def define(table: Mapping[str, Any], notes: Mapping[str, str], names: Mapping[str, str]) -> list[tuple[str, str]]:
    """Terms of the page's columns and benchmarks with their meanings, each once."""
    terms: dict[str, str] = {}
    for group in table["groups"]:
        if group["about"]:
            terms[group["name"].removesuffix(" (%)")] = group["about"]
        for label, about in group["labels"]:
            if about and (group["name"], label) in ABOUT:
                terms[f"{group['name'].removesuffix(' (%)')}, {label}" if group["name"] else label] = about
    return [*terms.items(), *((names.get(benchmark, benchmark), note) for benchmark, note in notes.items())]


def _note_of(label: str, of_label: Mapping[str, str]) -> str:
    return of_label.get(label) or of_label.get(label.rpartition(" avg@")[0]) or ""


def _cells(column: Column) -> list[tuple[str, float | None]]:
    shares: Iterable[float | None] = column.values if column.num_decimals is not None else repeat(None)
    return list(zip(column.cells(), shares, strict=False))
