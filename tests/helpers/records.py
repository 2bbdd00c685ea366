"""Records of responses to make tests with."""

import dataclasses
from typing import Any

from relay_verl.traces.records import CallText, ResponseRecord, SegmentText


def call(outcome: str, num_requested: int = 0, num_delivered: int = 0) -> CallText:
    return {
        "outcome": outcome,
        "num_requested": num_requested,
        "num_delivered": num_delivered,
        "position": 0,
        "latency_s": 0.25,
        "num_context": 20,
        "num_cached": 16,
        "has_command": True,
    }


def student(text: str, num_tokens: int = 1) -> SegmentText:
    return {"source": "student", "text": text, "num_tokens": num_tokens}


def teacher(text: str, num_tokens: int = 1) -> SegmentText:
    return {"source": "teacher", "text": text, "num_tokens": num_tokens}


def record(**changes: Any) -> ResponseRecord:
    plain = ResponseRecord(
        condition="relay",
        benchmark="tiny/mul",
        id="7",
        sample=0,
        question="What is 7*8?",
        ground_truth="56",
        segments=[student("7*8=<call>2</call>", 6), teacher("56", 2), student(" \\boxed{56}", 2)],
        calls=[call("served", 2, 2)],
        status="completed",
        is_correct=True,
        answer="56",
        grading="graded",
        judge=None,
        num_prompt_tokens=12,
        num_tokens=10,
        num_teacher_tokens=2,
        num_calls=1,
        started_at=1.0,
        latency_s=0.5,
    )
    return dataclasses.replace(plain, **changes)


def alone(**changes: Any) -> ResponseRecord:
    """A response without a call, of 10 tokens."""
    nothing: dict[str, Any] = {"segments": [student("no", 10)], "calls": [], "num_teacher_tokens": 0, "num_calls": 0}
    return record(**(nothing | changes))
