"""Who calls and for how long. A policy sees each command the student writes and says how many tokens to ask for; the
baselines call by themselves, without a command.

    learned         the student decides (paper 2.1)
    teacher_free    the sampler bans the command's usual tokens, and commands are not served (5.3)
    fixed_N         the student decides when, and every call asks for N tokens (5.4); `RelayConfig.fixed_command` says
                    whether its command has to say N, too
    random_P        before each token of the student's a call with probability P, its length by the warm-up's law (3.1)
    router_P        a whole query goes to the teacher with probability P, else to the student: the random router
    student_alone   nobody answers commands
    teacher_alone   the teacher writes the whole response

A policy object serves one response: some of them draw.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from relay_verl.errors import suggest
from relay_verl.protocol import CLOSE, OPEN, Call, draw_num_tokens


@dataclass(frozen=True)
class Interruption:
    """A call that no command asks for."""

    num_student_tokens: int
    """Tokens the student writes before it; if it ends earlier, there is no call."""
    num_tokens: int | None
    """Teacher tokens to ask for; None for all that is left of the response, whatever `max_tokens_per_call` says."""


class Policy:
    """How one response comes about; this one lets the student decide."""

    allows_calls: bool = True
    """Whether commands are served; if not, the engine need not stop at one."""

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


@dataclass(frozen=True)
class Learned(Policy):
    """The student decides: n is the number it wrote (paper 2.1)."""


@dataclass(frozen=True)
class StudentAlone(Policy):
    """The student writes everything; a command is text."""

    allows_calls = False

    def num_tokens(self, call: Call) -> int:
        return 0


@dataclass(frozen=True)
class TeacherFree(StudentAlone):
    """The sampler bans both strings of the command, as in the paper's teacher-free setting (5.3).

    vLLM bans the token sequences that its tokenizer makes of each string, alone and behind a blank: at most four
    sequences, not every way to write the characters (Qwen3 has 92 other tokens that end in `<`). A command that gets
    through is text: it is not served.
    """

    def student_sampling(self) -> Mapping[str, Any]:
        return {"bad_words": [OPEN, CLOSE]}


@dataclass(frozen=True)
class TeacherAlone(StudentAlone):
    """The teacher writes everything, as if the student had called at once for the whole response."""

    def next_interruption(self) -> Interruption:
        return Interruption(0, None)


@dataclass(frozen=True)
class FixedLength(Policy):
    """The student decides when, and a call always asks for `length` tokens (paper 5.4, Table 5)."""

    length: int
    """Teacher tokens of every call, at least 1."""

    def fixed_length(self) -> int:
        return self.length

    def num_tokens(self, call: Call) -> int:
        return self.length if call.num_tokens else 0


class RandomCalls(TeacherFree):
    """Calls at random places, of lengths d * 10^k (3.1): what a learned policy must beat at the same call ratio. The
    student's own commands are banned; `max_calls` does not bind.

    Args:
        rate: probability of a call before each token of the student's.
        seed: of places and lengths.
    """

    def __init__(self, rate: float, seed: int = 0):
        self.rate = rate
        self._rng = np.random.default_rng(seed)

    def next_interruption(self) -> Interruption | None:
        if self.rate == 0:
            return None
        return Interruption(int(self._rng.geometric(self.rate)) - 1, draw_num_tokens(self._rng))


TRAINABLE = ("learned", "teacher_free", "fixed_N")
"""Those that training may use: the student decides where the teacher writes."""
POLICIES: dict[str, type[Policy]] = {
    "learned": Learned,
    "teacher_free": TeacherFree,
    "student_alone": StudentAlone,
    "teacher_alone": TeacherAlone,
}
"""The policies without a number."""
_SPELLINGS = (*POLICIES, "fixed_20", "random_0.01", "router_0.5")
"""What a misspelt policy is compared with."""
_FIXED = re.compile(r"fixed_([1-9][0-9]{0,5})")
_RATED = re.compile(r"(random|router)_(0(?:\.[0-9]+)?|1(?:\.0+)?)")


def make_policy(name: str, seed: int = 0) -> Policy:
    """The policy called `name` for one response; `seed` is that of its draws.

    >>> make_policy("fixed_20")
    FixedLength(length=20)
    >>> [type(make_policy("router_0.5", seed)).__name__ for seed in range(4)]
    ['StudentAlone', 'StudentAlone', 'TeacherAlone', 'TeacherAlone']

    Raises:
        ValueError: no such policy; lists the valid ones.
    """
    if fixed := _FIXED.fullmatch(name):
        return FixedLength(int(fixed[1]))
    if rated := _RATED.fullmatch(name):
        rate = float(rated[2])
        if rated[1] == "random":
            return RandomCalls(rate, seed)
        return TeacherAlone() if np.random.default_rng(seed).random() < rate else StudentAlone()
    if name not in POLICIES:
        raise ValueError(
            f"policy: {name!r} is not one of {', '.join(POLICIES)}, fixed_N (such as "
            "fixed_20), random_P (such as random_0.01), router_P (such as router_0.5)"
            f"{suggest(name, _SPELLINGS)}"
        )
    return POLICIES[name]()


def needs_teacher(name: str) -> bool:
    """Whether responses under this policy may have the teacher's tokens."""
    return name not in ("teacher_free", "student_alone")


def needs_student(name: str) -> bool:
    """Whether responses under this policy may have the student's tokens."""
    return name != "teacher_alone"
