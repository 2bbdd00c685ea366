"""Results folders and data files with chosen numbers, to make tests of claims with."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from relay_verl.benchmarks.registry import Questions
from relay_verl.files import sha256_of
from relay_verl.traces.condensed import condense
from relay_verl.traces.question_table import QuestionFacts, facts_of, write_questions
from relay_verl.traces.records import ResponseRecord, write_records
from relay_verl.traces.results import MANIFEST, RESPONSES, read_result
from tests.helpers.records import alone, call, record, student, teacher

NEEDS = (1, 3, 6, 12, 25)


def world(num_questions: int = 100) -> QuestionFacts:
    """Questions of two benchmarks, five grades and five lengths."""
    rows = [
        {
            "data_source": f"tiny/{('add', 'mul')[number % 2]}",
            "prompt": [{"role": "user", "content": f"q{number}"}],
            "reward_model": {"ground_truth": "1"},
            "extra_info": {
                "index": number,
                "id": f"q-{number}",
                "family": ("add", "mul")[number % 2],
                "grade": 1 + number % 5,
                "needed": NEEDS[(number // 5) % 5],
                "split": "test",
            },
        }
        for number in range(num_questions)
    ]
    return facts_of({"tiny": Questions(rows, {})})


Answer = tuple[bool, int, int]
"""Whether a response is right, its tokens, and how many of them the teacher was asked for."""


def response(name: tuple[str, str], answer: Answer, **facts: Any) -> ResponseRecord:
    """One response, with a call in it if it asks for a token."""
    is_correct, num_tokens, num_asked = answer
    place: dict[str, Any] = {"benchmark": name[0], "id": name[1], "is_correct": is_correct, "num_tokens": num_tokens}
    if not num_asked:
        return alone(segments=[student("no", num_tokens)], **place, **facts)
    called = call("served", num_asked, num_asked) | {"position": 2}
    written = [student("ab", 2), teacher("1", num_asked), student("c", num_tokens - 2 - num_asked)]
    return record(calls=[called], segments=written, num_teacher_tokens=num_asked, **place, **facts)


def write_result(
    folder: Path,
    questions: QuestionFacts,
    row: str,
    answer: Callable[[int], Answer],
    *,
    policy: str = "learned",
    teacher_name: str | None = "teacher",
    seed: int | None = None,
    **changes: Any,
) -> Path:
    """A results folder as `relay-verl eval` leaves it; `answer` is asked with each question's number."""
    records = [response(name, answer(number)) for number, name in enumerate(questions.names)]
    write_records(folder / RESPONSES, records)
    job = {
        "kind": "eval",
        "condition": f"{row} {policy}",
        "row": f"tiny/{row}",
        "training_seed": seed,
        "policy": policy,
        "student": f"/models/{row}",
        "student_sha256": f"{row}{seed}",
        "teacher": teacher_name and f"/models/{teacher_name}",
        "teacher_name": teacher_name,
        "benchmarks": {name: {"sha256": sha256, "num_samples": 1} for name, sha256 in questions.world.items()},
        "seed": 0,
        "limits": {"max_calls": None},
    }
    manifest = {
        "job": job | changes,
        "num_queries": len(records),
        "versions": {"relay-verl": "0.2.0"},
        "output_sha256": sha256_of(folder / RESPONSES),
    }
    (folder / MANIFEST).write_text(json.dumps(manifest))
    return folder


def keep_result(keep: Path, questions: QuestionFacts, folder: Path) -> Path:
    """Its data file, next to the table of questions."""
    write_questions(keep, questions)
    return condense(read_result(folder), questions, keep)
