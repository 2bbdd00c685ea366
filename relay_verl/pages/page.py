"""One HTML page to read responses: who wrote what, what each call asked for and got, and the summary on top.

The page is a single file that needs no network. Texts reach the browser as JSON inside the page and are shown as text
nodes only, so that nothing a model writes can become markup. `page.js` shows them a hundred at a time, and keeps its
filters in the address's fragment (`page.html#verdict=wrong&scenario=teacher-dependent`), so that a view can be linked.

It opens question by question, the conditions of each side by side: first the questions on which the leading condition,
the trained relay, called.

The JSON is not compressed: 10,000 responses of 2,000 characters are 29 MB and open in a second; gzip in base64 halves
the file, but takes two to three times as long to open, and the file could not be searched with other tools.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from relay_verl import palette
from relay_verl.files import replace_file
from relay_verl.pages.page_table import define, make_table
from relay_verl.pages.parts import read_parts
from relay_verl.report.summary_table import ConditionSummary, summarize
from relay_verl.traces.pieces import CUT_REASONS, make_pieces
from relay_verl.traces.records import JudgeText, ResponseRecord
from relay_verl.traces.scenarios import QuestionFacts, find_questions, question_of
from relay_verl.types import CallOutcome


def write_page(
    records: Iterable[ResponseRecord],
    out: Path,
    title: str,
    *,
    summaries: Sequence[ConditionSummary] | None = None,
    names: Mapping[str, str] = {},
    notes: Mapping[str, str] = {},
    lead: str | None = None,
    is_training: bool = False,
    limit_per_condition: int | None = None,
) -> int:
    """Write the page.

    Args:
        records: the responses.
        out: the HTML file; its folder is made.
        title: the page's heading.
        summaries: the table on top; that of all `records` if None.
        names: other names to show for conditions and benchmarks.
        notes: what the questions of a benchmark are, by its name in the records.
        lead: the condition that comes first; the one whose student called and was right most often if None.
        is_training: the conditions are steps of one training, and the newest come first.
        limit_per_condition: most responses to show of each condition and benchmark, the first ones; None shows all. The
            table and the scenarios count all of them.

    Returns:
        How many responses the page shows.
    """
    records = list(records)
    # The table and the scenarios count every response; the limit only keeps the page small.
    shown = records if limit_per_condition is None else _take_first(records, limit_per_condition)
    questions = find_questions(records, is_training=is_training)
    entries = [_make_entry(record, questions[question_of(record)]) for record in shown]
    conditions = list(dict.fromkeys(record.condition for record in records))
    # The page compares with one condition; a training has no such side, as its conditions are steps.
    leader = lead if lead in conditions else None if is_training else find_lead(records)
    # Responses are arbitrary text, often HTML or TeX: everything is escaped unless it is marked as ours.
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(read_parts(__package__, "page.html"))
    table = make_table(summarize(records) if summaries is None else summaries, names, notes)
    html = template.render(
        title=title,
        num_records=len(records),
        num_shown=len(shown),
        limit=limit_per_condition,
        table=table,
        definitions=define(table, notes, names),
        cut_reasons=CUT_REASONS,
        data=_embed(
            {
                "responses": entries,
                "names": dict(names),
                "notes": dict(notes),
                "lead": leader,
                "is_training": is_training,
                "cut_reasons": CUT_REASONS,
            }
        ),
        style=Markup("\n".join([palette.to_css(), read_parts(__package__, "marks.css", "page.css")])),
        script=Markup(read_parts(__package__, "page_cards.js", "page.js")),
    )
    replace_file(Path(out), html.encode())
    return len(shown)


def find_lead(records: Iterable[ResponseRecord]) -> str | None:
    """The condition whose student called by itself and was right most often; None if none called."""
    right: dict[str, list[bool]] = {}
    callers = set()
    for record in records:
        right.setdefault(record.condition, []).append(record.is_correct)
        if _has_asked(record):
            callers.add(record.condition)
    return max((name for name in right if name in callers), key=lambda name: fmean(right[name]), default=None)


def _has_asked(record: ResponseRecord) -> bool:
    """Whether a command of the student's was served."""
    return any(call["has_command"] and call["outcome"] == CallOutcome.SERVED for call in record.calls)


def _take_first(records: Iterable[ResponseRecord], limit: int) -> list[ResponseRecord]:
    seen: Counter[tuple[str, str]] = Counter()
    taken = []
    for record in records:
        seen[record.condition, record.benchmark] += 1
        if seen[record.condition, record.benchmark] <= limit:
            taken.append(record)
    return taken


def _make_entry(record: ResponseRecord, question: QuestionFacts) -> dict[str, Any]:
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
        "asked": _has_asked(record),
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
        "scenario": question.scenario,
        "basis": question.basis,
        "samples": question.num_samples,
        "right": question.num_right,
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
