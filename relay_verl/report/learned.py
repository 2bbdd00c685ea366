"""The page on what a trained pair learned: how much it asks for, where, when, and what that was good for.

`learned.html` is whole by itself; next to it are the same as Markdown, the pictures as SVG and, as CSV, the numbers
that they are drawn from: a line for each response, for each call and for each step of a training.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from relay_verl.errors import as_user_error
from relay_verl.files import replace_file
from relay_verl.report.call_lengths import correlation, correlations_table, lengths_figure, lengths_table, with_bounds
from relay_verl.report.call_places import places_figure, places_table
from relay_verl.report.comparison import NONE
from relay_verl.report.curves import Log, read_log
from relay_verl.report.curves_picture import curves_picture
from relay_verl.report.document import Document, Picture, Section, Table
from relay_verl.report.grades import grades_figure, grades_table
from relay_verl.report.groups import Group
from relay_verl.report.headline import provenance
from relay_verl.report.learned_data import Pair
from relay_verl.report.page_files import to_csv, write_page
from relay_verl.report.usefulness import (
    tried_calls,
    tried_groups,
    useful_share,
    usefulness_by_level,
    usefulness_figure,
    usefulness_table,
)
from relay_verl.traces.records import ResponseRecord
from relay_verl.types import CallOutcome

PAGE = "learned"
"""Name of the page's files, without the suffix."""
_TRAINING = {
    "accuracy": "relay/accuracy",
    "call_rate": "relay/call_rate",
    "call_ratio": "relay/call_ratio",
    "requested_tokens": "relay/requested_tokens",
    "delivered_tokens": "relay/delivered_tokens",
}
"""Columns of `training.csv`, and the metrics they have."""
Row = dict[str, Any]


def write_learned(pair: Pair, metrics: Mapping[str, Path], out: Path) -> str:
    """Write the page; returns it as Markdown.

    Args:
        pair: what was measured.
        metrics: logs of training runs by label.
        out: its folder; it is made.

    Raises:
        UserError: a log cannot be read.
    """
    with as_user_error((OSError, ValueError), "--metrics"):
        logs = {label: read_log(path) for label, path in metrics.items()}
    document = learned_document(pair, logs, curves_picture(metrics, out, {}) if metrics else None)
    for name, rows in (("responses", response_rows(pair)), ("calls", call_rows(pair)), ("training", step_rows(logs))):
        if lines := list(rows):
            replace_file(out / f"{name}.csv", to_csv(lines).encode())
    return write_page(document, out, PAGE)


def learned_document(pair: Pair, logs: Mapping[str, Log], curves: Picture | None) -> Document:
    """The page."""
    sections = [
        _section("How much the student asks for", *_lengths(pair)),
        _section("Where calls stand", *((places_table(pair), places_figure(pair)) if pair.callers else ())),
        _section("With the teacher and without", *_grades(pair)),
        _section("What calls were good for", *_usefulness(pair)),
        _section("Training", *((training_table(logs), curves) if logs else ())),
    ]
    num_responses = sum(len(records) for group in pair.names for records in group.records)
    missing = [text for is_missing, text in _gaps(pair, logs) if is_missing]
    note = f"{num_responses:,} responses under {len(pair.names)} conditions. {' '.join(missing)}".strip()
    return Document(
        "What the student learned about asking",
        note,
        tuple(section for section in sections if section.blocks),
        _headlines(pair),
        provenance(pair.groups),
    )


def _section(title: str, *blocks: Table | Picture | None) -> Section:
    return Section(title, tuple(block for block in blocks if block))


def _gaps(pair: Pair, logs: Mapping[str, Log]) -> Iterable[tuple[bool, str]]:
    """What is not on the page, and what would put it there."""
    yield not pair.callers, "No condition has a call that was served."
    yield pair.needed is None, "The questions do not say how many tokens they need (--needed KEY)."
    yield pair.grade is None, "The questions do not say how difficult they are (--grade KEY)."
    is_untried = bool(pair.callers) and not tried_groups(pair)
    yield is_untried, "No call was refused (`relay-verl eval --refusals N`)."
    yield not logs, "No log of a training is given (--metrics LABEL=PATH)."


def _lengths(pair: Pair) -> Sequence[Table | Picture | None]:
    if not pair.callers:
        return ()
    blocks: list[Table | Picture | None] = []
    if pair.needed:
        blocks += [correlations_table(pair, pair.needed), lengths_figure(pair, pair.needed)]
        blocks.append(lengths_table(pair, pair.needed, f"{pair.needed} tokens"))
    if pair.grade:
        blocks.append(lengths_table(pair, pair.grade, pair.grade))
    return blocks


def _grades(pair: Pair) -> Sequence[Table | Picture | None]:
    return (grades_table(pair, pair.grade), grades_figure(pair, pair.grade)) if pair.grade else ()


def _usefulness(pair: Pair) -> Sequence[Table | Picture | None]:
    if not tried_groups(pair):
        return ()
    by_level = usefulness_by_level(pair, pair.grade) if pair.grade else None
    return usefulness_table(pair), usefulness_figure(pair), by_level


def _headlines(pair: Pair) -> tuple[str, ...]:
    """A sentence for each condition that calls."""
    sentences = []
    for group in pair.callers:
        parts = []
        if pair.needed:
            value, num_questions = correlation(pair, group, pair.needed, with_call=False)
            if value is not None:
                parts.append(
                    f"n follows the tokens needed with a rank correlation of {with_bounds(value)} over "
                    f"{num_questions:,} questions"
                )
        share = useful_share(group) if group in tried_groups(pair) else None
        if share is not None:
            parts.append(f"{100 * share.value:.0f}% of the teacher's tokens were useful")
        if parts:
            sentences.append(f"{group.family}, {pair.names[group]}: {'; '.join(parts)}.")
    return tuple(sentences)


def training_table(logs: Mapping[str, Log]) -> Table:
    """Call rate at the beginning, in the middle and at the end of each training."""
    rows = []
    for label, log in logs.items():
        rates = [metrics["relay/call_rate"] for metrics in log.values() if "relay/call_rate" in metrics]
        tenth = max(1, len(rates) // 10)
        middle = (len(rates) - tenth) // 2
        parts = [rates[start : start + tenth] for start in (0, middle, len(rates) - tenth)]
        cells = [f"{100 * fmean(part):.1f}" for part in parts] if rates else [NONE] * 3
        rows.append((label, f"{len(rates)}", *cells))
    head = ("training", "steps", "first tenth", "middle tenth", "last tenth")
    note = "Training responses that call, in percent, each a mean over a tenth of the steps."
    return Table("Call rate over training (%)", head, tuple(rows), note=note)


def response_rows(pair: Pair) -> Iterable[Row]:
    """A line for each response."""
    for group, seed, record in _responses(pair):
        yield {
            **_name(pair, group, seed, record),
            "is_correct": int(record.is_correct),
            "num_tokens": record.num_tokens,
            "num_calls": record.num_calls,
            "num_requested": record.num_requested_tokens,
            "num_delivered": record.num_teacher_tokens,
            **_numbers(pair, record),
        }


def call_rows(pair: Pair) -> Iterable[Row]:
    """A line for each served call."""
    for group, seed, record in _responses(pair):
        effects = {call.number: call.effect.value for call in tried_calls(record)}
        served = [call for call in record.calls if call["outcome"] == CallOutcome.SERVED]
        for number, call in enumerate(served, start=1):
            yield {
                **_name(pair, group, seed, record),
                "call": number,
                "position": call["position"],
                "num_tokens": record.num_tokens,
                "num_requested": call["num_requested"],
                "num_delivered": call["num_delivered"],
                "effect": effects.get(number, ""),
                **_numbers(pair, record),
            }


def step_rows(logs: Mapping[str, Log]) -> Iterable[Row]:
    """A line for each step of each training."""
    for label, log in logs.items():
        for step, metrics in log.items():
            yield {"training": label, "step": step, **{name: metrics.get(key) for name, key in _TRAINING.items()}}


def _responses(pair: Pair) -> Iterable[tuple[Group, int, ResponseRecord]]:
    """Every response with its condition and the number of its training seed; verdicts are by rule."""
    for group in pair.names:
        for seed, records in enumerate(group.raw_records):
            for record in records:
                yield group, seed, record


def _name(pair: Pair, group: Group, seed: int, record: ResponseRecord) -> Row:
    place = {"benchmark": record.benchmark, "id": record.id, "sample": record.sample}
    return {"condition": pair.names[group], "family": group.family, "seed": seed, **place}


def _numbers(pair: Pair, record: ResponseRecord) -> Row:
    return {key: pair.numbers.of(record, key) for key in pair.numbers.keys}
