"""The limits of one relayed response.

`relay_verl.decoder` gives `RelayConfig` to the public. It stands below it because the loop that `RelayDecoder` runs
(`relay_verl.relay`) reads it, and apart from the `relay:` node (`relay_verl.config`) because that stands above the
decoder, makes a `RelayConfig` for each response and takes its words for failures and fixed commands from here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from relay_verl.deferral import Deferral

FixedCommand = Literal["text", "delivered"]
FIXED_COMMAND: tuple[FixedCommand, ...] = ("text", "delivered")
OnTeacherFailure = Literal["continue", "drop", "fail"]
ON_TEACHER_FAILURE: tuple[OnTeacherFailure, ...] = ("continue", "drop", "fail")


@dataclass(frozen=True)
class RelayConfig:
    """Limits of one relayed response.

    Raises:
        ValueError: a value out of range; names the field.
    """

    max_response_tokens: int
    """Most tokens of the response, both writers together."""
    max_calls: int | None
    """Most calls to the teacher in a response, failed ones included; 0 forbids them, None sets no limit but the
    response's tokens, as in the paper."""
    max_tokens_per_call: int
    """Most tokens a call delivers, whatever n says."""
    on_teacher_failure: OnTeacherFailure = "continue"
    """'continue': the student continues alone; 'drop': it ends, not completed; 'fail': raise TeacherError."""
    teacher_timeout_s: float = 300.0
    """Seconds of the teacher's silence after which a call fails; `relay_verl.engines.deadlines` has the rule."""
    student_timeout_s: float = 3600.0
    """Seconds of the student's silence after which its turn fails; the same rule."""
    teacher_sampling: Mapping[str, Any] = field(default_factory=lambda: {"temperature": 0.7})
    """The teacher's sampling parameters; the released service samples at 0.7."""
    vocab_size: int | None = None
    """Rows of the student's embedding: it cannot read ids at or above this, and an answer with one is rubbish. Not the
    number of the tokenizer's tokens, which is lower where the embedding is padded. None does not check."""
    teacher_name: str | None = None
    """What call records call the teacher, where there are several."""
    max_failed_calls: int = 4
    """Failed calls after which a response stops asking, so that a dead teacher costs a bounded time."""
    end_ids: frozenset[int] = frozenset()
    """Ids that end a response, with the tokenizer's end-of-sequence token, which always does."""
    deferral: Deferral | None = None
    """How the student's engine asks for the teacher, where it has a defer head."""
    fixed_command: FixedCommand = "delivered"
    """What a policy with a fixed length fixes (paper 5.4). 'text': the number that the student writes, by constrained
    decoding; 'delivered': only what the teacher is asked for, whatever the student wrote."""

    def __post_init__(self) -> None:
        least_values = {"max_response_tokens": 1, "max_calls": 0, "max_tokens_per_call": 1, "max_failed_calls": 1}
        for name, least in least_values.items():
            value = getattr(self, name)
            if name == "max_calls" and value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise ValueError(f"{name}: {value!r} is not an int of at least {least}")
        for name in ("teacher_timeout_s", "student_timeout_s"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < float("inf"):
                raise ValueError(f"{name}: {value!r} is not a positive number of seconds")
        if self.on_teacher_failure not in ON_TEACHER_FAILURE:
            raise ValueError(
                f"on_teacher_failure: {self.on_teacher_failure!r} is not one of {', '.join(ON_TEACHER_FAILURE)}"
            )
        if self.fixed_command not in FIXED_COMMAND:
            raise ValueError(f"fixed_command: {self.fixed_command!r} is not one of {', '.join(FIXED_COMMAND)}")
