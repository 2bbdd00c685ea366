"""Who calls and for how long. A policy sees each command the student writes and says how many tokens to ask for; the
baselines call by themselves, without a command.

    learned         the student decides (paper 2.1)
    teacher_free    the sampler bans the command's usual tokens, and commands are not served (5.3)
    fixed_N         the student decides when, and every call asks for N tokens (5.4); `RelayConfig.fixed_command` says
                    whether its command has to say N, too
    random_P        before each token of the student's a call with probability P, its length by the warm-up's law (3.1)
    router_P        a whole query goes to the teacher with probability P, else to the student: the random router
    deferred_TAU    the student's engine asks where a defer head's score is below TAU: CITER, Co-LLM, entropy
                    (`relay_verl.deferred`)
    student_alone   nothing answers commands
    teacher_alone   the teacher writes the whole response

To add one, write a class here and give it a name in POLICIES: what training takes, the command line's help and the
words and colours of reports follow from its attributes. One of another package is a subclass of `Policy` that a config
names as `pkg.module:Name`, or an entry point of the group `relay_verl.policies` (see `examples/extend`).

A policy object serves one response, unless its class is stateless.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np

from relay_verl.deferred import Deferred
from relay_verl.errors import UserError, suggest
from relay_verl.extensions import FORM, Registry, short_name, subclasses_of
from relay_verl.policy_base import COUNT, RATE, SHARE, Author, Interruption, Policy
from relay_verl.protocol import CLOSE, OPEN, Call, draw_num_tokens


@dataclass(frozen=True)
class Learned(Policy):
    """The student decides: n is the number it wrote (paper 2.1)."""

    is_trainable = True
    summary = "the student, by its commands"
    words = "commands served"
    author = "relay"


@dataclass(frozen=True)
class StudentAlone(Policy):
    """The student writes everything; a command is text."""

    allows_calls = False
    needs_teacher = False
    words = "alone"
    author: ClassVar[Author] = "student"

    def num_tokens(self, call: Call) -> int:
        return 0


@dataclass(frozen=True)
class TeacherFree(StudentAlone):
    """The sampler bans both strings of the command, as in the paper's teacher-free setting (5.3).

    vLLM bans the token sequences that its tokenizer makes of each string, alone and behind a blank: at most four
    sequences, not every way to write the characters (Qwen3 has 92 other tokens that end in `<`). A command that gets
    through is text: it is not served.
    """

    is_trainable = True
    summary = "commands are banned"
    words = "without teacher"
    author = "other"

    def student_sampling(self) -> Mapping[str, Any]:
        return {"bad_words": [OPEN, CLOSE]}


@dataclass(frozen=True)
class TeacherAlone(StudentAlone):
    """The teacher writes everything, as if the student had called at once for the whole response."""

    needs_student = False
    needs_teacher = True
    words = "teacher alone"
    author = "teacher"

    def next_interruption(self) -> Interruption:
        return Interruption(0, None)


@dataclass(frozen=True)
class FixedLength(Policy):
    """The student decides when, and a call always asks for `length` tokens (paper 5.4, Table 5)."""

    is_trainable = True
    number = COUNT
    summary = "each call is N tokens"
    words = "fixed {number} tokens"

    length: int
    """Teacher tokens of every call, at least 1."""

    @classmethod
    def make(cls, number: str, seed: int) -> FixedLength:
        return cls(int(number))

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

    is_trainable = False
    is_stateless = False
    needs_teacher = True
    is_baseline = True
    number = RATE
    summary = "a call before each token with probability P"
    words = "random calls ({percent}% of tokens)"

    @classmethod
    def make(cls, number: str, seed: int) -> RandomCalls:
        return cls(float(number), seed)

    def __init__(self, rate: float, seed: int = 0):
        self.rate = rate
        self._rng = np.random.default_rng(seed)

    def next_interruption(self) -> Interruption | None:
        if self.rate == 0:
            return None
        return Interruption(int(self._rng.geometric(self.rate)) - 1, draw_num_tokens(self._rng))


class Router(Policy):
    """The random router: a query's seed decides which model writes its whole response. `make` gives that model's
    policy."""

    is_stateless = False
    is_baseline = True
    number = SHARE
    summary = "a question goes to the teacher alone with probability P"
    words = "random router ({percent}%)"

    @classmethod
    def make(cls, number: str, seed: int) -> Policy:
        return TeacherAlone() if np.random.default_rng(seed).random() < float(number) else StudentAlone()

    @classmethod
    def alternatives(cls, number: str) -> Sequence[Policy]:
        return (StudentAlone(), TeacherAlone())


POLICIES: dict[str, type[Policy]] = {
    "learned": Learned,
    "teacher_free": TeacherFree,
    "student_alone": StudentAlone,
    "teacher_alone": TeacherAlone,
    "fixed": FixedLength,
    "random": RandomCalls,
    "router": Router,
    "deferred": Deferred,
}
"""Our policies by name; the number that some names end with is the class's `number`."""
REGISTRY: Registry[type[Policy]] = Registry(
    kind="policy",
    group="relay_verl.policies",
    entries=POLICIES,
    accept=subclasses_of(Policy),
    expected="a subclass of relay_verl.policies.Policy",
)


_NUMBER = re.compile(r"[0-9]+(\.[0-9]+)?")


class ParsedPolicy(NamedTuple):
    """A policy by its name in a config."""

    kind: type[Policy]
    """Its class."""
    number: str
    """The number in its name; empty if it has none."""


def spelling(name: str, kind: type[Policy]) -> str:
    """How the names of a policy are written.

    >>> spelling("fixed", FixedLength), spelling("learned", Learned)
    ('fixed_N', 'learned')
    """
    return f"{name}_{kind.number.letter}" if kind.number else name


def parse_policy(name: str) -> ParsedPolicy:
    """The class of the policy called `name`, and its number: fixed_20, or `pkg.module:Name_20`.

    >>> parse_policy("fixed_20")
    ParsedPolicy(kind=<class 'relay_verl.policies.FixedLength'>, number='20')

    Raises:
        UserError: no such policy; lists the valid ones.
    """
    stem, _, number = name.rpartition("_")
    is_numbered = ":" in name or (name not in REGISTRY and stem in REGISTRY)
    if not (is_numbered and _NUMBER.fullmatch(number)):
        stem, number = name, ""
    if ":" not in stem and stem not in REGISTRY:
        raise UserError(_unknown(name))
    kind = REGISTRY.find(stem)
    if not re.fullmatch(kind.number.pattern if kind.number else "", number):
        example = f"{stem}_{kind.number.example}" if kind.number else stem
        raise UserError(
            _unknown(name) if stem in POLICIES else f"policy: {name!r}: expected a name such as {example!r}"
        )
    return ParsedPolicy(kind, number)


def _unknown(name: str) -> str:
    """What a message says of a name that is not a policy's."""
    plain = [each for each in REGISTRY.names() if POLICIES.get(each, Policy).number is None]
    numbered = [
        f"{each}_{kind.number.letter} (such as {each}_{kind.number.example})"
        for each, kind in POLICIES.items()
        if kind.number
    ]
    spellings = [f"{each}_{kind.number.example}" if kind.number else each for each, kind in POLICIES.items()]
    listed = ", ".join([*plain, *numbered])
    return f"policy: {name!r} is not one of {listed}, or {FORM}{suggest(name, [*plain, *spellings])}"


def find_policy(name: str) -> ParsedPolicy:
    """The policy of a result. One whose package is not installed here has the attributes that `Policy` has."""
    try:
        return parse_policy(name)
    except UserError:
        return ParsedPolicy(Policy, "")


def make_policy(name: str, seed: int = 0) -> Policy:
    """The policy called `name` for one response; `seed` is that of its draws.

    >>> make_policy("fixed_20")
    FixedLength(length=20)
    >>> [type(make_policy("router_0.5", seed)).__name__ for seed in range(4)]
    ['StudentAlone', 'StudentAlone', 'TeacherAlone', 'TeacherAlone']

    Raises:
        UserError: no such policy; lists the valid ones.
    """
    kind, number = parse_policy(name)
    return kind.make(number, seed)


def needs_teacher(name: str) -> bool:
    """Whether responses under this policy may have the teacher's tokens."""
    return parse_policy(name).kind.needs_teacher


def needs_student(name: str) -> bool:
    """Whether responses under this policy may have the student's tokens."""
    return parse_policy(name).kind.needs_student


def trainable() -> list[str]:
    """Names of our policies that training takes."""
    return [spelling(name, kind) for name, kind in POLICIES.items() if kind.is_trainable]


def help_text() -> str:
    """All policies as the command line's help names them."""
    shown = {spelling(name, kind): kind.summary for name, kind in POLICIES.items()}
    return ", ".join(f"{name} ({summary})" if summary else name for name, summary in shown.items())


def policy_words(name: str) -> str:
    """A policy in words, also one whose package is not installed where its results are read.

    >>> [policy_words(name) for name in ("fixed_20", "random_0.02", "router_0.25", "learned", "my_policies:Patient")]
    ['fixed 20 tokens', 'random calls (2% of tokens)', 'random router (25%)', 'commands served', 'Patient']
    """
    kind, number = find_policy(name)
    if not kind.words:
        return short_name(name).replace("_", " ")
    return kind.words.format(number=number, percent=f"{100 * float(number or 0):g}").strip()
