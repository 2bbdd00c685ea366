"""One HTML page to read sample responses: who wrote what, what each call asked for and got, and the summary on top.

The page is a single file that needs no network. Texts reach the browser as JSON inside the page and are shown as text
nodes only, so that nothing a model writes can become markup; `page.html` shows them a hundred at a time.

Invariant: the pieces of a response joined are its text. A command is paired with its `CallText` by order: the decoder
records well-formed commands in the order of the text (a malformed one is no command and stays plain text).
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

from relay_verl.evaluation.records import CallText, ResponseRecord
from relay_verl.evaluation.table import ConditionSummary, make_columns, summarize
from relay_verl.files import replace_file
from relay_verl.protocol import find_calls
from relay_verl.types import CallOutcome

_WHY_UNSERVED: dict[str, str] = {
    CallOutcome.FAILED: "the teacher failed",
    CallOutcome.ZERO: "nothing to ask for",
    CallOutcome.OVER_LIMIT: "no call was left or allowed",
}


def write_page(
    records: Iterable[ResponseRecord],
    out: Path,
    title: str,
    *,
    summaries: Sequence[ConditionSummary] | None = None,
    names: Mapping[str, str] = {},
    limit_per_condition: int | None = None,
) -> None:
    """Write the page.

    Args:
        records: the responses.
        out: the HTML file; its folder is made.
        title: the page's heading.
        summaries: the table on top; that of all `records` if None.
        names: other names to show for conditions and benchmarks.
        limit_per_condition: most responses to show of each condition and benchmark, the first ones; None shows all. The
            table is not affected.
    """
    records = list(records)
    shown = records if limit_per_condition is None else _take_first(records, limit_per_condition)
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(files(__package__).joinpath("page.html").read_text(encoding="utf-8"))
    html = template.render(
        title=title,
        num_records=len(records),
        num_shown=len(shown),
        limit=limit_per_condition,
        table=_make_table(summarize(records) if summaries is None else summaries, names),
        data=_embed({"responses": [_make_entry(record) for record in shown], "names": dict(names)}),
    )
    replace_file(Path(out), html.encode())


def _take_first(records: Iterable[ResponseRecord], limit: int) -> list[ResponseRecord]:
    seen: Counter[tuple[str, str]] = Counter()
    taken = []
    for record in records:
        seen[record.condition, record.benchmark] += 1
        if seen[record.condition, record.benchmark] <= limit:
            taken.append(record)
    return taken


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
    return {
        "condition": record.condition,
        "benchmark": record.benchmark,
        "id": record.id,
        "question": record.question,
        "truth": record.ground_truth,
        "answer": record.answer,
        "verdict": _judge(record),
        "status": record.status,
        "called": record.has_called,
        "tokens": record.num_tokens,
        "teacher": record.num_teacher_tokens,
        "ratio": record.call_ratio,
        "calls": record.num_calls,
        "latency": record.latency_s,
        "malformed": sum(call["outcome"] == CallOutcome.MALFORMED for call in record.calls),
        "bar": [[segment["source"], segment["num_tokens"]] for segment in record.segments],
        "pieces": make_pieces(record),
    }


def _judge(record: ResponseRecord) -> str:
    if record.is_correct:
        return "correct"
    if not record.is_completed:
        return "not completed"
    return "wrong" if record.grading == "graded" else record.grading.replace("_", " ")


def make_pieces(record: ResponseRecord) -> list[dict[str, str]]:
    """The response in pieces of kind 'student', 'teacher' or 'call', each with its `text`.

    A teacher's piece has a `tip` that says its length. A call has its `outcome` ('' if none is recorded), a `tip` such
    as 'asked 20, delivered 12 tokens', and a `note` to show beside it where it got less than it asked for.
    """
    calls = iter([call for call in record.calls if call["outcome"] != CallOutcome.MALFORMED])
    pieces: list[dict[str, str]] = []
    for segment in record.segments:
        text, end = segment["text"], 0
        if segment["source"] == "teacher":
            pieces.append({"kind": "teacher", "text": text, "tip": f"teacher: {segment['num_tokens']} tokens"})
            continue
        for command in find_calls(text):
            pieces.append({"kind": "student", "text": text[end : command.start]})
            fate = _tell_fate(next(calls, None), command.num_tokens)
            pieces.append({"kind": "call", "text": text[command.start : command.end], **fate})
            end = command.end
        pieces.append({"kind": "student", "text": text[end:]})
    return [piece for piece in pieces if piece["text"]]


def _tell_fate(call: CallText | None, num_written: int) -> dict[str, str]:
    if call is None:
        tip = f"asked {num_written}, delivered 0 tokens: the response was full"
        return {"outcome": "", "note": "not served", "tip": tip}
    outcome, asked, delivered = call["outcome"], call["num_requested"], call["num_delivered"]
    tip = f"asked {asked}, delivered {delivered} tokens"
    if outcome == CallOutcome.SERVED:
        note = f"{delivered} of {asked}" if delivered < asked else ""
        return {"outcome": outcome, "note": note, "tip": f"{tip}, {call['latency_s']:.2f} s"}
    return {
        "outcome": outcome,
        "note": outcome.replace("_", " "),
        "tip": f"{tip}: {_WHY_UNSERVED.get(outcome, outcome)}",
    }


def _embed(data: object) -> Markup:
    """JSON that can stand in a script element: no character of it means anything to an HTML parser.

    >>> print(_embed("</script>"))
    "\\u003c/script\\u003e"
    """
    text = json.dumps(data, allow_nan=False, separators=(",", ":"))
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))
