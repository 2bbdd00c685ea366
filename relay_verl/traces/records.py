"""One evaluated response as a line of JSON, and files of them. Pure: no torch, Ray, verl.

Invariant: `ResponseRecord.from_json(record.to_json()) == record`; `to_json` is a line of ASCII without NaN; a file of
records is either the old one or the whole new one.

A worked example, where the teacher wrote `56`::

    segments  student "We compute 7*8=<call>2</call>"   teacher "56"   student ". The answer is ..."
    calls     {outcome served, num_requested 2, num_delivered 2, position 21, latency_s 0.03}
"""

from __future__ import annotations

import codecs
import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, NotRequired, Protocol, cast

from pydantic import ConfigDict, TypeAdapter, ValidationError, with_config
from typing_extensions import TypedDict

from relay_verl.errors import as_user_error
from relay_verl.files import replace_file
from relay_verl.traces.refusals import RefusalText
from relay_verl.types import CallOutcome, CallRecord, RelayStatus, RelayTrajectory, asked_teacher, rho

UNCLEAR_REPLY = "the reply is neither Yes nor No"
"""The judge replied without a verdict. Any other reason, except REFUSED, means that the judge did not reply."""
REFUSED = "the judge refuses the question"
"""Begins why there is no verdict where asking the judge again gives none either; the cause follows it."""

_STRICT = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


@with_config(_STRICT)
class SegmentText(TypedDict):
    """Consecutive tokens by one writer, as text."""

    source: Literal["student", "teacher"]
    text: str
    num_tokens: int


@with_config(_STRICT)
class CallText(TypedDict):
    """One command and what became of it: `CallRecord` as plain data."""

    outcome: str
    num_requested: int
    num_delivered: int
    position: int
    latency_s: float
    num_context: int
    """Tokens the teacher read."""
    num_cached: int | None
    """Those of them in its prefix cache; None if its engine does not say."""
    has_command: bool
    """Whether a command stands in the text."""
    num_billed_input: NotRequired[int]
    """Tokens that the teacher's API bills as read, where it bills other tokens than `num_context`."""
    num_billed_output: NotRequired[int]
    """Tokens that it bills as written, where they are not those delivered."""


@with_config(_STRICT)
class JudgeText(TypedDict):
    """What an LLM judge says of a response (paper C.2)."""

    is_correct: bool | None
    """Its verdict; None if it gave none."""
    reply: str
    """What it wrote."""
    error: str
    """Why there is no verdict, or why it was not asked for one; else empty."""


def refusal(cause: object) -> JudgeText:
    """What stands in place of a verdict where the judge refuses the question for good, such as for its length."""
    return {"is_correct": None, "reply": "", "error": f"{REFUSED}: {cause}"}


class VerdictLike(Protocol):
    """What a grader says of one response, such as `relay_verl.grading.Verdict`."""

    @property
    def is_correct(self) -> bool: ...
    @property
    def answer(self) -> str | None: ...
    @property
    def status(self) -> str: ...


@dataclass(frozen=True)
class ResponseRecord:
    """One response to one question under one condition, and how it was judged."""

    __pydantic_config__ = _STRICT

    condition: str
    """Who answered and under which rules, such as 'student alone'."""
    benchmark: str
    """The question's data source, such as 'tiny/mul'."""
    id: str
    """The question's id; several samples of one question share it."""
    sample: int
    """Which sample of the question, from 0."""
    question: str
    """The question as text."""
    ground_truth: str
    """Its right answer."""
    segments: list[SegmentText]
    """The response in order."""
    calls: list[CallText]
    """Every command, in the order in which its fate was known; latency in seconds, all else in tokens."""
    status: str
    """`RelayStatus` of the trajectory."""
    is_correct: bool
    """Whether the answer is right."""
    answer: str | None
    """The answer as written; None if there is none."""
    grading: str
    """How the grading ended: 'graded', 'no_answer', 'timeout' or 'error'."""
    judge: JudgeText | None
    """A second verdict, by an LLM; None if none was asked."""
    num_prompt_tokens: int
    """Tokens of the prompt."""
    num_tokens: int
    """Tokens of the response, both writers together."""
    num_teacher_tokens: int
    """Tokens the teacher delivered."""
    num_calls: int
    """Calls that the teacher served."""
    started_at: float
    """When the response began, in seconds since 1970."""
    latency_s: float
    """Seconds from the prompt to the end of the response."""
    task: str | None = None
    """Which of its benchmark's tasks the question belongs to, such as BBEH's 'boardgame qa'; None if it has none. Files
    written before there was this field read as None."""
    error: str | None = None
    """Why the response is not completed, such as a prompt that fills the context; None if it is completed, and in files
    written before there was this field."""
    mean_logprob: float | None = None
    """Mean log-probability of the student's tokens; None if its engine was not asked."""
    refusals: list[RefusalText] | None = None
    """What would have been without each of the first served calls; None if that was not tried."""

    @classmethod
    def of(
        cls,
        trajectory: RelayTrajectory,
        verdict: VerdictLike,
        *,
        condition: str,
        benchmark: str,
        id: str,
        question: str,
        ground_truth: str,
        started_at: float,
        latency_s: float,
        join: Callable[[list[int]], bytes],
        sample: int = 0,
        judge: JudgeText | None = None,
        task: str | None = None,
        mean_logprob: float | None = None,
    ) -> ResponseRecord:
        """The record of a trajectory; `join` gives the bytes of token ids (`relay_verl.tokenization.TokenBytes`)."""
        texts = decode_parts(join(segment.token_ids) for segment in trajectory.segments)
        return cls(
            condition=condition,
            benchmark=benchmark,
            id=id,
            sample=sample,
            question=question,
            ground_truth=ground_truth,
            segments=[
                {"source": segment.source, "text": text, "num_tokens": len(segment.token_ids)}
                for segment, text in zip(trajectory.segments, texts, strict=True)
            ],
            calls=[_call_text(call) for call in trajectory.calls],
            status=str(trajectory.status),
            is_correct=bool(verdict.is_correct),
            answer=verdict.answer,
            grading=str(verdict.status),
            judge=judge,
            num_prompt_tokens=len(trajectory.prompt_ids),
            num_tokens=trajectory.num_tokens,
            num_teacher_tokens=trajectory.num_teacher_tokens,
            num_calls=trajectory.num_calls,
            started_at=float(started_at),
            latency_s=float(latency_s),
            task=task,
            error=trajectory.error or None,
            mean_logprob=mean_logprob,
        )

    @property
    def num_requested_tokens(self) -> int:
        """Tokens that the served calls asked for."""
        return sum(call["num_requested"] for call in self.calls if call["outcome"] == CallOutcome.SERVED)

    @property
    def text(self) -> str:
        """The whole response, commands included."""
        return "".join(segment["text"] for segment in self.segments)

    @property
    def call_ratio(self) -> float:
        """See `relay_verl.types.rho`."""
        return rho(self.num_teacher_tokens, self.num_tokens)

    @property
    def has_called(self) -> bool:
        """See `relay_verl.types.asked_teacher`."""
        return asked_teacher(call["outcome"] for call in self.calls)

    @property
    def is_completed(self) -> bool:
        """Whether the response is whole."""
        return self.status == RelayStatus.COMPLETED

    def to_dict(self) -> dict[str, Any]:
        """The record as JSON's types. A later field that is None has no key: an old record stays byte for byte."""
        fields = asdict(self)
        for name in ("task", "error", "mean_logprob", "refusals"):
            if fields[name] is None:
                del fields[name]
        return fields

    def to_json(self) -> str:
        """The record as JSON in ASCII, without line breaks.

        Raises:
            ValueError: a number is NaN or infinite.
        """
        return json.dumps(self.to_dict(), allow_nan=False)

    @classmethod
    def from_json(cls, line: str | bytes) -> ResponseRecord:
        """The record that `to_json` wrote.

        Raises:
            ValueError: not JSON, or a field is missing, unknown or of another type; the one-line message names it.
        """
        try:
            return _adapter().validate_json(line)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            place = ".".join(map(str, first["loc"]))
            raise ValueError(f"{place}: {first['msg']}" if place else first["msg"]) from None


def _call_text(call: CallRecord) -> CallText:
    """The call as plain data. Without a bill there is no key for it: an old record stays byte for byte."""
    fields = {name: getattr(call, name) for name in CallText.__annotations__}
    billed = {name: value for name, value in fields.items() if value is not None or not name.startswith("num_billed")}
    return cast(CallText, billed | {"outcome": str(call.outcome), "latency_s": float(call.latency_s)})


def decode_parts(parts: Iterable[bytes]) -> list[str]:
    """Consecutive parts of one text, as text. A character that a border cuts belongs to the part that completes it, so
    that the texts joined are the text of the bytes joined.

    >>> decode_parts([b"t\\xc3", b"\\xa9!"])
    ['t', 'é!']
    """
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    texts = [decoder.decode(part) for part in parts]
    if rest := decoder.decode(b"", final=True):  # the last character was never completed
        texts[-1] += rest
    return texts


@cache
def _adapter() -> TypeAdapter[ResponseRecord]:
    return TypeAdapter(ResponseRecord)


def read_records(path: Path) -> list[ResponseRecord]:
    """All records of a JSONL file.

    Raises:
        UserError: a line is not a record; names the file and the line's number, which starts at 1.
    """
    records = []
    with open(path, "rb") as lines:
        for number, line in enumerate(lines, start=1):
            with as_user_error(ValueError, f"{path}, line {number}"):
                records.append(ResponseRecord.from_json(line))
    return records


def write_records(path: Path, records: Iterable[ResponseRecord]) -> None:
    """Write a JSONL file; makes its folder. `read_records` gives the same records back."""
    replace_file(path, "".join(f"{record.to_json()}\n" for record in records).encode())
