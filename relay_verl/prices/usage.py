"""Tokens that a model reads and writes for a response, as a price list counts them. Pure.

A model reads its whole context each time it is asked. What a prefix cache holds of it is cheaper, so it is counted
apart. The student's engine keeps a response on one replica, so all that the student has read or written before counts
as cached; the teacher's engine says what its cache held, and where it does not, nothing counts as cached. An API counts
by its own tokenizer, hidden reasoning included: where it says what it bills, that number counts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from relay_verl.types import RelayTrajectory


@dataclass(frozen=True)
class Usage:
    """Tokens of some requests to one model."""

    num_input: int = 0
    """Tokens that it was given to read, those of the cache included."""
    num_cached: int = 0
    """Those of them that its prefix cache held."""
    num_output: int = 0
    """Tokens that it wrote, or that its API bills as written."""

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.num_input + other.num_input, self.num_cached + other.num_cached, self.num_output + other.num_output
        )

    @property
    def num_computed(self) -> int:
        """Tokens that pass through the model: prefilled and written."""
        return self.num_input - self.num_cached + self.num_output

    def flops(self, num_parameters: int) -> int:
        """Floating-point operations: 2 x parameters x tokens, prefill included. Attention over the context is left out,
        as is usual for models whose weights dominate.

        Args:
            num_parameters: those that a token passes through: all of a dense model, the active ones of a mixture.

        >>> Usage(num_input=100, num_cached=60, num_output=10).flops(8_000_000_000)
        800000000000
        """
        return 2 * num_parameters * self.num_computed


def student_usage(num_prompt_tokens: int, segments: Iterable[tuple[str, int]]) -> Usage:
    """What the student read and wrote for one response.

    Args:
        num_prompt_tokens: tokens of the prompt.
        segments: the response in order: who wrote it ('student' or 'teacher'), and how many tokens.

    The student writes 10 tokens after a prompt of 100, the teacher 5, the student 20: it reads 100, then 115, of which
    110 are in its cache.

    >>> student_usage(100, [("student", 10), ("teacher", 5), ("student", 20)])
    Usage(num_input=215, num_cached=110, num_output=30)
    """
    usage, context, known = Usage(), num_prompt_tokens, 0
    for source, num_tokens in segments:
        if source == "student":
            usage += Usage(context, known, num_tokens)
            known = context + num_tokens
        context += num_tokens
    return usage


def teacher_usage(calls: Iterable[Mapping[str, Any]]) -> Usage:
    """What the teacher read and wrote for one response. A failed call counts if it was billed, or streamed tokens.

    Args:
        calls: `relay_verl.types.CallRecord` as mappings, or `relay_verl.traces.records.CallText`.

    >>> served = {"num_context": 100, "num_cached": 60, "num_delivered": 5}
    >>> teacher_usage([served, served | {"num_billed_input": 120, "num_billed_output": 40}])
    Usage(num_input=220, num_cached=120, num_output=45)
    """
    usage = Usage()
    for call in calls:
        num_input, num_output = call.get("num_billed_input"), call.get("num_billed_output")
        if call["num_delivered"]:
            num_input = call["num_context"] if num_input is None else num_input
            num_output = call["num_delivered"] if num_output is None else num_output
        num_input = num_input or 0
        usage += Usage(num_input, min(call.get("num_cached") or 0, num_input), num_output or 0)
    return usage


def usage_of(trajectory: RelayTrajectory) -> tuple[Usage, Usage]:
    """What the student and what the teacher read and wrote for a trajectory."""
    segments = [(segment.source, len(segment.token_ids)) for segment in trajectory.segments]
    calls = [vars(call) for call in trajectory.calls]
    return student_usage(len(trajectory.prompt_ids), segments), teacher_usage(calls)
