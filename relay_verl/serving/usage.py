"""What a response cost, as `usage` says it. Pure.

Invariant: `completion_tokens` are the tokens of both writers and of the commands, so it is `student_tokens` plus
`teacher_tokens`; the names are those of the training's metrics and of `responses.jsonl`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from relay_verl.types import CallOutcome, CallRecord, rho


@dataclass
class RelayCount:
    """Tokens and calls of one response, or of several."""

    student_tokens: int = 0
    """Tokens that the student wrote, commands included."""
    teacher_tokens: int = 0
    """Tokens that the teacher wrote."""
    num_calls: int = 0
    """Calls that the teacher served."""
    num_failed_calls: int = 0
    """Calls that the teacher's engine failed to serve."""
    requested_tokens: int = 0
    """Tokens that served calls asked for."""
    delivered_tokens: int = 0
    """Tokens that served calls delivered."""
    teacher_prefilled_tokens: int = 0
    """Tokens of contexts that the teacher read and its prefix cache did not hold."""
    teacher_cached_tokens: int = 0
    """Tokens of contexts that the teacher's prefix cache held."""
    is_budget_spent: bool = False
    """Whether calls were turned off because a budget of teacher tokens was spent."""

    @property
    def num_tokens(self) -> int:
        """Tokens of both writers."""
        return self.student_tokens + self.teacher_tokens

    def add_tokens(self, source: str, num_tokens: int) -> None:
        """Count tokens of one writer."""
        if source == "teacher":
            self.teacher_tokens += num_tokens
        else:
            self.student_tokens += num_tokens

    def add_calls(self, calls: Iterable[CallRecord]) -> None:
        """Count calls."""
        for call in calls:
            if call.outcome is CallOutcome.SERVED:
                cached = call.num_cached or 0
                self.num_calls += 1
                self.requested_tokens += call.num_requested
                self.delivered_tokens += call.num_delivered
                self.teacher_cached_tokens += cached
                self.teacher_prefilled_tokens += call.num_context - cached
            elif call.outcome is CallOutcome.FAILED:
                self.num_failed_calls += 1

    def relay(self) -> dict[str, Any]:
        """`usage.relay`."""
        return {
            "student_tokens": self.student_tokens,
            "teacher_tokens": self.teacher_tokens,
            "num_calls": self.num_calls,
            "num_failed_calls": self.num_failed_calls,
            "requested_tokens": self.requested_tokens,
            "delivered_tokens": self.delivered_tokens,
            "teacher_prefilled_tokens": self.teacher_prefilled_tokens,
            "teacher_cached_tokens": self.teacher_cached_tokens,
            "call_ratio": rho(self.teacher_tokens, self.num_tokens),
            "is_budget_spent": self.is_budget_spent,
        }


def sum_of(counts: Iterable[RelayCount]) -> RelayCount:
    """The counts of several responses together."""
    values = [vars(count) for count in counts]
    total = RelayCount(**{name: sum(value[name] for value in values) for name in vars(RelayCount())})
    total.is_budget_spent = bool(total.is_budget_spent)
    return total


def usage_of(num_prompt_tokens: int, counts: Iterable[RelayCount]) -> dict[str, Any]:
    """`usage` of an answer.

    Args:
        num_prompt_tokens: of all prompts of the request, each counted once.
        counts: of its responses.
    """
    total = sum_of(counts)
    return {**tokens_of(num_prompt_tokens, total.num_tokens), "relay": total.relay()}


def tokens_of(num_prompt_tokens: int, num_tokens: int) -> dict[str, int]:
    """The three counts that every `usage` has."""
    return {
        "prompt_tokens": num_prompt_tokens,
        "completion_tokens": num_tokens,
        "total_tokens": num_prompt_tokens + num_tokens,
    }
