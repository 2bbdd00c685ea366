"""What `defer_head.json` says of a head. Pure.

{"format": 1, "kind": "citer", "hidden_size": 1024, "threshold": 0.95,
 "calibration": {"target_ratio": 0.01, "reached_ratio": 0.0102, "interval": [0.0088, 0.0117], "num_questions": 500},
 "student": "Qwen/Qwen3-0.6B", "student_sha256": "...", "step_end": "\\n\\n", "versions": {"relay-verl": "0.2.0"}}
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Annotated

from pydantic import Field

from relay_verl.config.values import STRICT, Count
from relay_verl.deferral import MAX_THRESHOLD

Threshold = Annotated[float, Field(ge=0, lt=MAX_THRESHOLD, allow_inf_nan=False)]
Ratio = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]


class HeadKind(StrEnum):
    """How a score is computed."""

    CITER = "citer"
    """An MLP over the last hidden state, as CITER's release has it."""
    COLLM = "collm"
    """A linear layer over the last hidden state, as in Co-LLM."""
    ENTROPY = "entropy"
    """The entropy of the student's next-token law; no weights."""
    FIRST_TOKEN_ENTROPY = "first_token_entropy"
    """The same, only where a step begins; elsewhere the student writes."""

    @property
    def has_weights(self) -> bool:
        """Whether it is trained, and so for one student."""
        return self in (HeadKind.CITER, HeadKind.COLLM)


@dataclass(frozen=True)
class Calibration:
    """How a threshold was chosen: the teacher's share of all tokens on held-out questions."""

    __pydantic_config__ = STRICT

    target_ratio: Ratio
    """The share that was asked for."""
    reached_ratio: Ratio
    """The share at the threshold."""
    interval: tuple[Ratio, Ratio] | None = None
    """95% interval of the share, over questions."""
    num_questions: Count | None = None
    """Held-out questions."""


@dataclass(frozen=True)
class HeadInfo:
    """A head but for its weights."""

    __pydantic_config__ = STRICT

    kind: HeadKind
    """How its scores are computed."""
    hidden_size: Count | None = None
    """Width of the student's hidden states, H; null for a head without weights, which fits every student."""
    threshold: Threshold = 0.95
    """The teacher writes where the score is below it; CITER's default. 0 never asks, above 1 always does."""
    calibration: Calibration | None = None
    """How `threshold` was chosen; null if it is a default or set by hand."""
    student: str | None = None
    """Folder or hub id of the student that it was trained for."""
    student_sha256: str | None = None
    """`relay_verl.models.address.model_sha256` of that student; null if unknown."""
    step_end: str = "\n\n"
    """Text that ends a step, for `first_token_entropy`."""
    versions: Mapping[str, str] = field(default_factory=dict)
    """`relay_verl.versions.versions()` of the process that wrote it."""
    format: Annotated[int, Field(ge=1, le=1, strict=True)] = 1
    """Of the file."""

    def __post_init__(self) -> None:
        if self.kind.has_weights and self.hidden_size is None:
            raise ValueError(f"hidden_size: a {self.kind} head has one")
        if not self.step_end:
            raise ValueError("step_end: expected a text")
