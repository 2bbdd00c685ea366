"""What a policy is and what it needs; `relay_verl.policies` has ours, and their names. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from relay_verl.engines.base import Generation
from relay_verl.protocol import Call

Author = Literal["student", "teacher", "relay", "other"]
"""Whose colour a policy has in pictures."""


@dataclass(frozen=True)
class Number:
    """The number in the name of a policy, such as N in fixed_N."""

    letter: str
    """What stands for it in help and messages."""
    example: str
    """A valid one."""
    pattern: str
    """Regular expression of the valid ones."""


COUNT = Number("N", "20", r"[1-9][0-9]{0,5}")
"""A number of tokens."""
_SHARE = r"0(?:\.[0-9]+)?|1(?:\.0+)?"
RATE = Number("P", "0.01", _SHARE)
"""A probability of each token."""
SHARE = Number("P", "0.5", _SHARE)
"""A probability of each query."""


@dataclass(frozen=True)
class Interruption:
    """A call that no command asks for."""

    num_student_tokens: int
    """Tokens the student writes before it; if it ends earlier, there is no call."""
    num_tokens: int | None
    """Teacher tokens to ask for; None for all that is left of the response, whatever `max_tokens_per_call` says."""
    is_tentative: bool = False
    """Whether `Policy.settle` decides about the call once the student has written these tokens."""


class Policy:
    """How one response comes about; this one lets the student decide."""

    allows_calls: bool = True
    """Whether commands are served; if not, the engine need not stop at one."""
    is_trainable: ClassVar[bool] = False
    """Whether training may use it: the student decides where the teacher writes."""
    is_stateless: ClassVar[bool] = True
    """Whether one object may serve any number of responses; else each response has one, with a seed of its own."""
    needs_student: ClassVar[bool] = True
    """Whether responses may have the student's tokens; if not, the teacher writes all of a response."""
    needs_teacher: ClassVar[bool] = True
    """Whether responses may have the teacher's tokens."""
    is_baseline: ClassVar[bool] = False
    """Whether it calls whatever the student was trained to do, so that tables name it without the student's training.
    """
    number: ClassVar[Number | None] = None
    """The number that its name ends with, if any."""
    summary: ClassVar[str] = ""
    """What the command line's help says of it."""
    words: ClassVar[str] = ""
    """What tables call it, with the name's `{number}`, or `{percent}` of a share; the name itself if empty."""
    author: ClassVar[Author] = "other"
    """Whose colour it has in pictures."""

    @classmethod
    def make(cls, number: str, seed: int) -> Policy:
        """The policy for one response.

        Args:
            number: the one in its name, as text that matches the pattern of `number`; empty if it has none.
            seed: of its draws.
        """
        return cls()

    @classmethod
    def alternatives(cls, number: str) -> Sequence[Policy]:
        """The policies that responses may be written under, where a draw decides for whole responses."""
        return (cls.make(number, 0),)

    def student_sampling(self) -> Mapping[str, Any]:
        """Sampling parameters to add to the student's, under vLLM's names."""
        return {}

    def num_tokens(self, call: Call) -> int:
        """Teacher tokens to ask for; 0 leaves the command unserved."""
        return call.num_tokens

    def fixed_length(self) -> int | None:
        """The one number that every command asks for; None lets the student decide."""
        return None

    def next_interruption(self) -> Interruption | None:
        """The next call without a command; None if there will be none. Asked before each turn of the student's."""
        return None

    def defer_threshold(self, own: float) -> float | None:
        """The score of the student's defer head below which its engine asks the teacher in its next turn
        (`relay_verl.deferral`); None asks no head. Asked before each turn of the student's.

        Args:
            own: the threshold that is stored with the head.
        """
        return None

    def settle(self, planned: Interruption, written: Generation) -> Interruption | None:
        """A tentative call, now that the student has written all tokens before it: the call as it will be made, whose
        `num_student_tokens` says how many of these tokens stay; None leaves it out, and the student continues. Not
        asked where the student ends or completes a command that is served before.

        Args:
            planned: what `next_interruption` gave.
            written: the student's tokens since then. Its `logprobs`, and `top_logprobs` where the engine has them, are
                there if `student_sampling` asks for them.
        """
        return planned
