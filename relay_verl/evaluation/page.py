"""One HTML page to read responses: who wrote what, what each call asked for and got, and the summary on top.

The page is a single file that needs no network. Texts reach the browser as JSON inside the page and are shown as text
nodes only, so that nothing a model writes can become markup. `page.js` shows them a hundred at a time, and keeps its
filters in the address's fragment (`page.html#verdict=wrong&scenario=teacher-dependent`), so that a view can be linked.

The JSON is not compressed: 10,000 responses of 2,000 characters are 29 MB and open in a second; gzip in base64 halves
the file, but takes two to three times as long to open, and nobody can search the file with other tools.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from importlib.resources import files
from itertools import groupby, repeat
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from relay_verl.evaluation.pieces import make_pieces
from relay_verl.evaluation.records import JudgeText, ResponseRecord
from relay_verl.evaluation.table import ConditionSummary, make_columns, summarize
from relay_verl.files import replace_file
from relay_verl.rewards import find_scenario
from relay_verl.types import CallOutcome

_Question = tuple[str, str, str]
"""Condition, benchmark and id: what the samples of one question under one condition share."""


def write_page(
    records: Iterable[ResponseRecord],
    out: Path,
    title: str,
    *,
    summaries: Sequence[ConditionSummary] | None = None,
    names: Mapping[str, str] = {},
    limit_per_condition: int | None = None,
) -> int:
    """Write the page.

    Args:
        records: the responses.
        out: the HTML file; its folder is made.
        title: the page's heading.
        summaries: the table on top; that of all `records` if None.
        names: other names to show for conditions and benchmarks.
        limit_per_condition: most responses to show of each condition and benchmark, the first ones; None shows all. The
            table and the scenarios count all of them.

    Returns:
        How many responses the page shows.
    """
    records = list(records)
    shown = records if limit_per_condition is None else _take_first(records, limit_per_condition)
    groups = _find_groups(records)
    entries = [{**_make_entry(record), **groups[_question_of(record)]} for record in shown]
    parts = files(__package__)
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(parts.joinpath("page.html").read_text(encoding="utf-8"))
    html = template.render(
        title=title,
        num_records=len(records),
        num_shown=len(shown),
        limit=limit_per_condition,
        table=_make_table(summarize(records) if summaries is None else summaries, names),
        data=_embed({"responses": entries, "names": dict(names)}),
        style=Markup(parts.joinpath("page.css").read_text(encoding="utf-8")),
        script=Markup(parts.joinpath("page.js").read_text(encoding="utf-8")),
    )
    replace_file(Path(out), html.encode())
    return len(shown)


def _take_first(records: Iterable[ResponseRecord], limit: int) -> list[ResponseRecord]:
    seen: Counter[tuple[str, str]] = Counter()
    taken = []
    for record in records:
        seen[record.condition, record.benchmark] += 1
        if seen[record.condition, record.benchmark] <= limit:
            taken.append(record)
    return taken


def _question_of(record: ResponseRecord) -> _Question:
    return record.condition, record.benchmark, record.id


def _find_groups(records: Iterable[ResponseRecord]) -> dict[_Question, dict[str, Any]]:
    """What the samples of each question under each condition say together: their scenario (paper 3.2.3)."""
    by_question: dict[_Question, list[ResponseRecord]] = {}
    for record in records:
        by_question.setdefault(_question_of(record), []).append(record)
    groups = {}
    for question, samples in by_question.items():
        correct = [record.is_correct for record in samples]
        scenario = find_scenario(correct, [record.has_called for record in samples])
        groups[question] = {"scenario": scenario.replace("_", "-"), "samples": len(samples), "right": sum(correct)}
    return groups


def _make_table(summaries: Sequence[ConditionSummary], names: Mapping[str, str]) -> dict[str, Any]:
    """The summary as groups of columns and rows of (text, share of 1 or None for a count)."""
    columns = make_columns(summaries, names)
    cells = [
        list(zip(column.cells(), column.values if column.num_decimals is not None else repeat(None), strict=False))
        for column in columns
    ]
    groups = [column.group for column in columns]
    return {
        "groups": [(name, len(list(group))) for name, group in groupby(groups)],
        "firsts": [i for i, group in enumerate(groups) if i == 0 or group != groups[i - 1]],
        "labels": [column.label for column in columns],
        "rows": [
            (names.get(summary.condition, summary.condition), [column[row] for column in cells])
            for row, summary in enumerate(summaries)
        ],
    }


def _make_entry(record: ResponseRecord) -> dict[str, Any]:
    """What the page needs of one response."""
    pieces = make_pieces(record)
    return {
        "condition": record.condition,
        "benchmark": record.benchmark,
        "id": record.id,
        "sample": record.sample,
        "question": record.question,
        "truth": record.ground_truth,
        "answer": record.answer,
        "verdict": name_verdict(record),
        "judge": record.judge and {**record.judge, "view": _compare(record.judge, record.is_correct)},
        "status": record.status,
        "called": record.has_called,
        "short": any(piece["kind"] == "call" and not piece["outcome"] for piece in pieces)
        or any(call["has_command"] and call["num_delivered"] < call["num_requested"] for call in record.calls),
        "tokens": record.num_tokens,
        "teacher": record.num_teacher_tokens,
        "ratio": record.call_ratio,
        "calls": record.num_calls,
        "latency": record.latency_s,
        "malformed": sum(call["outcome"] == CallOutcome.MALFORMED for call in record.calls),
        "bar": [[segment["source"], segment["num_tokens"]] for segment in record.segments],
        "pieces": pieces,
    }


def name_verdict(record: ResponseRecord) -> str:
    """What became of the answer, in a word or two."""
    if record.is_correct:
        return "correct"
    if not record.is_completed:
        return "not completed"
    return "wrong" if record.grading == "graded" else record.grading.replace("_", " ")


def _compare(judge: JudgeText, is_correct: bool) -> str:
    if judge["is_correct"] is None:
        return "none"
    return "agrees" if judge["is_correct"] == is_correct else "disagrees"


def _embed(data: object) -> Markup:
    """JSON that can stand in a script element: no character of it means anything to an HTML parser.

    >>> print(_embed("</script>"))
    "\\u003c/script\\u003e"
    """
    text = json.dumps(data, allow_nan=False, separators=(",", ":"))
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))
