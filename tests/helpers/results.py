"""Results folders on made-up answers, and what a table says of them."""

import json
from pathlib import Path
from typing import Any

from relay_verl.report.document import Table
from relay_verl.report.groups import Groups, group_results
from relay_verl.traces.records import ResponseRecord, write_records
from relay_verl.traces.results import MANIFEST, RESPONSES, find_results, read_result
from tests.helpers.records import alone, call, record

TINY = ("tiny/add", "tiny/mul", "tiny/hash")


def answer(benchmark: str, number: int, *, is_correct: bool, tokens: int) -> ResponseRecord:
    """A response of 100 tokens, `tokens` of them the teacher's."""
    facts: dict[str, Any] = {"benchmark": benchmark, "id": str(number), "question": f"q{number}", "num_tokens": 100}
    if not tokens:
        return alone(is_correct=is_correct, **facts)
    called = call("served", tokens, tokens) | {"position": 50}
    return record(is_correct=is_correct, calls=[called], num_teacher_tokens=tokens, **facts)


def make(
    folder: Path,
    row: str | None,
    *,
    policy: str = "learned",
    teacher: str | None = "teacher",
    seed: int = 0,
    right: int = 5,
    tokens: int = 0,
    benchmarks: tuple[str, ...] = TINY,
    num_questions: int = 10,
    **changes: Any,
) -> Path:
    """A results folder: `right` of ten questions of each benchmark are right, with `tokens` teacher tokens each."""
    records = [
        answer(name, number, is_correct=number < right, tokens=tokens)
        for name in benchmarks
        for number in range(num_questions)
    ]
    job: dict[str, Any] = {
        "kind": "eval",
        "student": f"/models/{row}-{seed}",
        "student_sha256": f"{row}{seed}",
        "teacher": teacher and f"/models/{teacher}",
        "teacher_name": teacher,
        "policy": policy,
        "row": row,
        "seed": seed,
        "benchmarks": {name: {"sha256": "a", "num_samples": 1} for name in benchmarks},
        "limits": {"max_calls": 3, "max_response_tokens": 100},
    }
    records = changes.pop("records", records)
    write_records(folder / RESPONSES, records)
    (folder / MANIFEST).write_text(json.dumps({"job": job | changes, "num_queries": len(records)}))
    return folder


def read(*folders: Path) -> Groups:
    return group_results([read_result(folder) for folder in find_results(folders)])


def row_of(table: Table, name: str) -> dict[str, tuple[str, ...]]:
    """The lines under one name, by what they are."""
    (lines,) = [group for group in table.groups if group[0][0] == name]
    return {line[1]: line[2:] for line in lines}
