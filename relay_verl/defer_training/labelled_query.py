"""A query of a label file: a dataset's row with the column `defer`, which has the reference and its labels.

Invariants: `reference_ids` are the ids that the teacher sampled, its end-of-sequence token included; all lists but
`prompt_ids` have a reference's length.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa

from relay_verl.defer_training.labels import Labels, LabelSource
from relay_verl.errors import UserError
from relay_verl.jobs.formats import Row

COLUMN = "defer"
"""The dataset's column that holds a `LabelledQuery`."""
_INTS, _FLOATS = pa.list_(pa.int32()), pa.list_(pa.float32())
FIELDS = pa.struct(
    [
        ("iteration", pa.int32()),
        ("prompt_ids", _INTS),
        ("reference_ids", _INTS),
        ("sources", pa.list_(pa.int8())),
        ("values", pa.list_(pa.int8())),
        ("student_ids", _INTS),
        ("student_logprobs", _FLOATS),
        ("teacher_logprobs", _FLOATS),
        ("num_tries", pa.int32()),
        ("num_student_tokens", pa.int64()),
        ("num_teacher_tokens", pa.int64()),
    ]
)


@dataclass(frozen=True)
class LabelledQuery:
    """One query with its reference and labels."""

    iteration: int
    """Of the labels: 1, or that of the head whose rollouts decided the open places."""
    prompt_ids: list[int]
    """The prompt, [prompt_length]."""
    reference_ids: list[int]
    """The teacher's right response, [length]; empty if it has none, and such a query is left out of the file."""
    sources: list[int]
    """`LabelSource` of each place, [length]."""
    values: list[int]
    """The labels, [length]."""
    student_ids: list[int]
    """The student's greedy token at each place, [length]."""
    student_logprobs: list[float] | None
    """Log-probability of the reference's token under the student, [length]; None if it was not asked for."""
    teacher_logprobs: list[float] | None
    """The same under the teacher."""
    num_tries: int
    """Responses that the teacher wrote until one was right."""
    num_student_tokens: int
    """Tokens that the student wrote for the labels, in rollouts."""
    num_teacher_tokens: int
    """Tokens that the teacher wrote for them, references included."""

    @property
    def labels(self) -> Labels:
        """Sources and values."""
        return Labels(self.sources, self.values)

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> LabelledQuery:
        """From a row of a label file."""
        return cls(**row[COLUMN])


def labelled_schema(schema: pa.Schema) -> pa.Schema:
    """A dataset's columns and `defer`, in place of an earlier one."""
    names = [name for name in schema.names if name != COLUMN]
    return pa.schema([schema.field(name) for name in names]).append(pa.field(COLUMN, FIELDS))


def to_records(row: Row, result: Mapping[str, Any]) -> list[Row]:
    """The row with its labels; none without a reference."""
    return [{**row, COLUMN: dict(result)}] if result["reference_ids"] else []


def check_labelled(path: object, schema: pa.Schema) -> None:
    """A file has labels.

    Raises:
        UserError: it has none.
    """
    if COLUMN not in schema.names:
        raise UserError(f"{path}: expected labels, in a column {COLUMN!r}; `relay-verl defer-data` writes them")


def count_tokens(result: Mapping[str, Any]) -> dict[str, int]:
    """What each model wrote for a result."""
    return {"student": result["num_student_tokens"], "teacher": result["num_teacher_tokens"]}


def summarize(queries: list[LabelledQuery]) -> dict[str, Any]:
    """Numbers on a label file: tokens by what decides them, and the share of labels that say 'student'."""
    sources = [source for query in queries for source in query.sources]
    values = [value for query in queries for value in query.values]
    rollouts = [value for source, value in zip(sources, values, strict=True) if source == LabelSource.ROLLOUT]
    return {
        "num_queries": len(queries),
        "num_tokens": len(sources),
        **{f"num_{source.name.lower()}": sources.count(source) for source in LabelSource},
        "student_share": sum(values) / len(values) if values else 0.0,
        "rollout_right_share": sum(rollouts) / len(rollouts) if rollouts else 0.0,
        "num_student_tokens": sum(query.num_student_tokens for query in queries),
        "num_teacher_tokens": sum(query.num_teacher_tokens for query in queries),
    }
