"""Who calls and for how long. A policy sees each command the student writes and says how many tokens to ask for."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from relay_verl.protocol import CLOSE, OPEN, Call


class Policy(Protocol):
    """How commands are treated in one trajectory."""

    allows_calls: bool
    """False: the teacher is never asked and the engine need not stop at a command."""

    def student_sampling(self) -> Mapping[str, Any]:
        """Sampling parameters to add to the student's, under vLLM's names."""
        ...

    def num_tokens(self, call: Call) -> int:
        """Teacher tokens to ask for; 0 leaves the command unserved."""
        ...


@dataclass(frozen=True)
class Learned:
    """The student decides: n is the number it wrote (paper 2.1)."""

    allows_calls = True

    def student_sampling(self) -> Mapping[str, Any]:
        return {}

    def num_tokens(self, call: Call) -> int:
        return call.num_tokens


@dataclass(frozen=True)
class TeacherFree:
    """The sampler bans both strings of the command, as in the paper's teacher-free setting (5.3)."""

    allows_calls = False

    def student_sampling(self) -> Mapping[str, Any]:
        return {"bad_words": [OPEN, CLOSE]}

    def num_tokens(self, call: Call) -> int:
        return 0


@dataclass(frozen=True)
class FixedLength:
    """The student decides when, and a call always asks for `length` tokens (paper 5.4, Table 5)."""

    length: int
    """Teacher tokens of every call, at least 1."""

    allows_calls = True

    def student_sampling(self) -> Mapping[str, Any]:
        return {}

    def num_tokens(self, call: Call) -> int:
        return self.length if call.num_tokens else 0


POLICIES: dict[str, Callable[[], Policy]] = {"learned": Learned, "teacher_free": TeacherFree}
"""The policies without a number."""
_FIXED = re.compile(r"fixed_([1-9][0-9]{0,5})")


def make_policy(name: str) -> Policy:
    """The policy called `name`.

    >>> make_policy("fixed_20")
    FixedLength(length=20)

    Raises:
        ValueError: no such policy; lists the valid ones.
    """
    if fixed := _FIXED.fullmatch(name):
        return FixedLength(int(fixed[1]))
    if name not in POLICIES:
        raise ValueError(f"policy: {name!r} is not one of {', '.join(sorted(POLICIES))}, fixed_N (such as fixed_20)")
    return POLICIES[name]()
