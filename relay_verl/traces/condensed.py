"""Results as small data files, without texts: one CSV for each condition and seed, next to `questions.csv`.

    # {"sha256": ..., "job": {"row": "tiny/relay", "training_seed": 1, ...}, "versions": {...}, ...}
    right,tokens,teacher,calls
    1,44,3,12+3
    0,41,0,

A line is a response; questions are in the order of `questions.csv`, the samples of one together. `right` is 1 or 0, and
- where the response is not whole, which counts as wrong. A call is PLACE+ASKED: after how many tokens it was made and
how many it asked for; =DELIVERED follows where the teacher wrote another number, !OUTCOME where it was not served.

What stays behind is what no table counts: texts, latencies, what a teacher read, the judge's verdicts. So `read_result`
gives such a file as a result like any other, which the report takes by rule and without its tables of cost.

Invariant: a file that is read is as it was written, and holds a line for each response that was asked for.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from relay_verl.errors import UserError
from relay_verl.files import replace_file
from relay_verl.policies import find_policy
from relay_verl.traces.question_table import QUESTIONS, QuestionFacts, read_questions
from relay_verl.traces.records import CallText, ResponseRecord, SegmentText
from relay_verl.traces.sealed import read_sealed, seal
from relay_verl.traces.words import has_both
from relay_verl.types import CallOutcome, RelayStatus

if TYPE_CHECKING:
    from relay_verl.traces.results import Result  # it reads data files through this module

_HEAD = ["right", "tokens", "teacher", "calls"]
_NOT_WHOLE = "-"
_CALL = re.compile(r"(?P<place>\d+)\+(?P<asked>\d+)(?:=(?P<delivered>\d+))?(?:!(?P<outcome>\w+))?")
_KEPT = (
    *("kind", "condition", "row", "training_seed", "policy", "student_sha256", "teacher_name", "teacher_sha256"),
    *("benchmarks", "seed", "is_deterministic", "limits", "max_teacher_tokens", "fixed_command", "teacher_sampling"),
)
"""Keys of the job that are kept as they are."""


def data_file_name(job: Mapping[str, Any]) -> str:
    """The name of a condition's file, such as `relay-1.learned.teacher.csv`.

    Raises:
        UserError: the job does not say its row.
    """
    if job.get("row") is None:
        raise UserError("row: null: expected the row of the tables that the student is; evaluate with --row")
    method = str(job["row"]).rpartition("/")[2]
    seed = "" if job.get("training_seed") is None else f"-{job['training_seed']}"
    teacher = f".{job['teacher_name']}" if has_both(job["policy"]) and job.get("teacher_name") else ""
    return f"{method}{seed}.{job['policy']}{teacher}.csv"


def condense(result: Result, questions: QuestionFacts, folder: Path) -> Path:
    """Write the data file of a results folder; gives its path.

    Args:
        result: of `relay-verl eval`.
        questions: those that it answered.
        folder: of the data files.

    Raises:
        UserError: it answered other questions, or it does not say its row.
    """
    job = result.job
    for name, facts in (job.get("benchmarks") or {}).items():
        expected, actual = questions.world.get(name), facts.get("sha256")
        if actual != expected:
            raise UserError(
                f"{result.folder}: benchmarks.{name}.sha256: {actual}: expected {expected}; these responses are to "
                "another version of the questions"
            )
    if strange := {(record.benchmark, record.id) for record in result.records} ^ set(questions.names):
        raise UserError(f"{result.folder}: {'/'.join(min(strange))}: expected responses to the same questions")
    records = sorted(result.records, key=lambda one: (questions.number_of[one.benchmark, one.id], one.sample))
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(_HEAD)
    table.writerows(map(_line, records))
    models = {role: (job.get(role) or "").rstrip("/").rpartition("/")[2] or None for role in ("student", "teacher")}
    head_sha256 = (job.get("defer") or {}).get("head_sha256")
    header = {
        "job": {
            **models,
            **{key: job[key] for key in _KEPT if key in job},
            **({"defer": {"head_sha256": head_sha256}} if head_sha256 else {}),
        },
        "versions": dict(result.manifest.get("versions") or {}),
        "num_queries": len(records),
        "started_at": min((round(record.started_at) for record in records), default=0),
        "responses_sha256": result.responses_sha256,
    }
    path = folder / data_file_name(job)
    replace_file(path, seal(header, text.getvalue()))
    return path


def is_data_file_of(path: Path, result: Result) -> bool:
    """Whether the data file is there, and made from exactly these responses.

    Raises:
        UserError: it was edited.
    """
    return path.is_file() and read_sealed(path)[0].get("responses_sha256") == result.responses_sha256


def _line(record: ResponseRecord) -> Sequence[str | int]:
    right = int(record.is_correct) if record.is_completed else _NOT_WHOLE
    return [right, record.num_tokens, record.num_teacher_tokens, " ".join(map(_write_call, record.calls))]


def _write_call(call: CallText) -> str:
    delivered = f"={call['num_delivered']}" if call["num_delivered"] != call["num_requested"] else ""
    outcome = f"!{call['outcome']}" if call["outcome"] != CallOutcome.SERVED else ""
    return f"{call['position']}+{call['num_requested']}{delivered}{outcome}"


def read_data_file(path: Path) -> tuple[Mapping[str, Any], list[ResponseRecord]]:
    """Header and responses of a data file, with `questions.csv` next to it.

    Raises:
        UserError: it was edited, or its questions are another version or another number.
    """
    header, body = read_sealed(path)
    questions = read_questions(path.with_name(QUESTIONS))
    job = header.get("job")
    if not isinstance(job, dict) or not isinstance(header.get("num_queries"), int):
        raise UserError(f"{path}: expected a data file of `relay-verl condense`")
    for name, facts in (job.get("benchmarks") or {}).items():
        if facts.get("sha256") != questions.world.get(name):
            raise UserError(
                f"{path}: benchmarks.{name}.sha256: {facts.get('sha256')}: {QUESTIONS} next to it is another version "
                f"of the questions, {questions.world.get(name)}"
            )
    head, *lines = csv.reader(io.StringIO(body))
    num_samples, rest = divmod(len(lines), max(1, len(questions.names)))
    if head != _HEAD or rest or len(lines) != header["num_queries"]:
        raise UserError(f"{path} has {len(lines)} responses, but {header['num_queries']} were written")
    has_commands = not find_policy(str(job["policy"])).kind.is_baseline
    return header, [
        _read_line(
            line,
            condition=str(job.get("condition")),
            name=questions.names[number // num_samples],
            sample=number % num_samples,
            started_at=float(header.get("started_at", 0)),
            has_commands=has_commands,
        )
        for number, line in enumerate(lines)
    ]


def _read_line(
    line: Sequence[str], *, condition: str, name: tuple[str, str], sample: int, started_at: float, has_commands: bool
) -> ResponseRecord:
    right, num_tokens, num_teacher_tokens = line[0], int(line[1]), int(line[2])
    calls = [_read_call(text, has_commands) for text in line[3].split()]
    return ResponseRecord(
        condition=condition,
        benchmark=name[0],
        id=name[1],
        sample=sample,
        question="",
        ground_truth="",
        segments=list(_segments(calls, num_tokens)),
        calls=calls,
        status=RelayStatus.STUDENT_FAILED if right == _NOT_WHOLE else RelayStatus.COMPLETED,
        is_correct=right == "1",
        answer=None,
        grading="graded",
        judge=None,
        num_prompt_tokens=0,
        num_tokens=num_tokens,
        num_teacher_tokens=num_teacher_tokens,
        num_calls=sum(call["outcome"] == CallOutcome.SERVED for call in calls),
        started_at=started_at,
        latency_s=0.0,
    )


def _read_call(text: str, has_command: bool) -> CallText:
    match = _CALL.fullmatch(text)
    assert match is not None, text  # the file is as it was written
    asked = int(match["asked"])
    return {
        "outcome": match["outcome"] or CallOutcome.SERVED,
        "num_requested": asked,
        "num_delivered": asked if match["delivered"] is None else int(match["delivered"]),
        "position": int(match["place"]),
        "latency_s": 0.0,
        "num_context": 0,
        "num_cached": None,
        "has_command": has_command,
    }


def _segments(calls: Iterable[CallText], num_tokens: int) -> Iterable[SegmentText]:
    """Who wrote how many tokens, in order."""
    place = 0
    for call in sorted(calls, key=lambda call: call["position"]):
        if call["position"] > place:
            yield {"source": "student", "text": "", "num_tokens": call["position"] - place}
        if call["num_delivered"]:
            yield {"source": "teacher", "text": "", "num_tokens": call["num_delivered"]}
        place = call["position"] + call["num_delivered"]
    if num_tokens > place:
        yield {"source": "student", "text": "", "num_tokens": num_tokens - place}
