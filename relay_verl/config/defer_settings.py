"""`relay.defer`: the head by which the student's engine asks the teacher, for the policies `deferred_TAU`
(`relay_verl.defer`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from relay_verl.config.values import STRICT, Count


@dataclass(frozen=True)
class DeferSettings:
    """Token-level routing in evaluation (ours; CITER's row of the paper's tables)."""

    __pydantic_config__ = STRICT

    head: str | None = None
    """Folder of the head, on every node; null for none."""
    num_tokens: Count = 1
    """Tokens that the teacher writes each time it is asked; 1 in CITER and in Co-LLM."""
    reserved_id: Annotated[int, Field(ge=0, strict=True)] | None = None
    """Row of the student's embedding by which its engine asks, which no text has; null takes the last padding row."""
