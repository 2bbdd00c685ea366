"""What a relayed response is: segments that the student and the teacher wrote in turn (paper 2). Pure.

Invariant: `response_ids` is the concatenation of the segments, and mask and log-probabilities line up with it::

    segments        student [a b <call>3</call>]   teacher [x y z]   student [c EOS]
    response_ids             a b < call > 3 ... >           x y z             c EOS
    response_mask            1 1 1  1   1 1 ... 1           0 0 0             1  1

Where the written number itself is fixed (paper 5.4, `relay.fixed_command=text`), the student samples up to `<call>`
and the decoder writes the rest. Those tokens stay in the student's segment, so they count in the response's length, but
they are not samples of the policy and are not trained on::

    segments        student [a < call > | 2 0 </ call >]   teacher [x y z]   student [c EOS]
    response_ids             a < call >   2 0 </ call >             x y z             c EOS
    is_forced                0 0  0   0   1 1 1   1   1             -                 0  0
    response_mask            1 1  1   1   0 0 0   0   0             0 0 0             1  1
    logprobs                 sampled      0 0 0   0   0             0 0 0             sampled

`rho`, `asked_teacher` and `is_whole` are the only definitions of the call ratio, of who has called and of what is
trained on: rewards, metrics, records and pages use them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import compress
from typing import Literal


class RelayStatus(StrEnum):
    """How a trajectory ended. Only a completed one may be trained on."""

    COMPLETED = "completed"
    """A whole response: it ended with an EOS or filled its token budget; calls that failed on the way were skipped."""
    TEACHER_FAILED = "teacher_failed"
    """The teacher failed and `on_teacher_failure` is 'drop', or it did not score a response of a run that distils."""
    STUDENT_FAILED = "student_failed"
    """The student's engine failed or missed its deadline."""


class CallOutcome(StrEnum):
    """What became of one command."""

    SERVED = "served"
    """The teacher wrote."""
    FAILED = "failed"
    """The teacher's engine failed. Nothing was written and nothing is charged, but for what it had streamed by then."""
    ZERO = "zero"
    """n = 0."""
    OVER_LIMIT = "over_limit"
    """Past `max_calls`, with no token left of the response, or calls are not allowed."""
    MALFORMED = "malformed"
    """A '</call>' that closes no well-formed command."""


def rho(num_teacher_tokens: int, num_tokens: int) -> float:
    """The call ratio of Eq. 3: the share of a response's tokens that the teacher wrote, from 0 to 1; 0.0 for an empty
    response.

    Args:
        num_teacher_tokens: tokens the teacher delivered. `relay.reward.charge=requested` charges those it was asked
            for, which may be more than the response has: such a ratio is 1.
        num_tokens: tokens of the response, both writers together.

    >>> rho(3, 12), rho(0, 0), rho(100, 12)
    (0.25, 0.0, 1.0)
    """
    return min(1.0, num_teacher_tokens / num_tokens) if num_tokens else 0.0


def asked_teacher(outcomes: Iterable[str]) -> bool:
    """Whether a response with these `CallOutcome`s has called the teacher. A call that failed counts, so that a dead
    teacher leads neither to the penalty of stubbornness nor to the bonus of independence.

    >>> asked_teacher(["zero", "failed"]), asked_teacher(["zero", "malformed"])
    (True, False)
    """
    return any(outcome in (CallOutcome.SERVED, CallOutcome.FAILED) for outcome in outcomes)


def is_whole(status: str, num_tokens: int) -> bool:
    """Whether a response can be trained on: it is completed, and it has a token. An empty one has no token
    that an advantage could weigh, and is not a row of a batch.

    >>> is_whole("completed", 3), is_whole("completed", 0), is_whole("teacher_failed", 3)
    (True, False, False)
    """
    return status == RelayStatus.COMPLETED and num_tokens > 0


@dataclass(frozen=True)
class Segment:
    """Consecutive tokens by one writer."""

    source: Literal["student", "teacher"]
    """Who wrote it."""
    token_ids: list[int]
    """Exactly what the engine sampled, [length], but for those of `is_forced`."""
    logprobs: list[float] | None = None
    """Log-probability of each token when it was sampled, [length]; None if the engine was not asked."""
    is_forced: list[bool] | None = None
    """Which tokens the decoder wrote because a constraint left no choice, [length]; None: none of them. Their
    log-probability under the constrained policy is 0."""

    @property
    def num_forced_tokens(self) -> int:
        """Tokens that the decoder wrote."""
        return sum(self.is_forced or ())


@dataclass(frozen=True)
class CallRecord:
    """One command and what became of it."""

    outcome: CallOutcome
    """What became of it."""
    num_requested: int = 0
    """n of the command, in tokens, before any cap."""
    num_delivered: int = 0
    """Tokens the teacher wrote."""
    position: int = 0
    """Response tokens written before the teacher's first one."""
    latency_s: float = 0.0
    """Seconds from asking to answer or failure."""
    error: str = ""
    """Why it failed."""
    num_context: int = 0
    """Tokens the teacher read: prompt and response so far, without commands."""
    has_command: bool = True
    """Whether the student asked; a baseline's calls come by themselves."""
    num_cached: int | None = None
    """Those of them that its prefix cache held; None if its engine does not say. It prefilled the others."""
    cache_block: int | None = None
    """Tokens of a block of that cache; None if its engine does not say."""
    teacher: str | None = None
    """Who was asked, where there are several teachers."""
    num_billed_input: int | None = None
    """Tokens that its API bills as read, by its own tokenizer; None: those of `num_context`."""
    num_billed_output: int | None = None
    """Tokens that its API bills as written, which may be more than were asked for; None: those delivered."""


@dataclass(frozen=True)
class RelayTrajectory:
    """One response from prompt to end."""

    prompt_ids: list[int]
    """The prompt, [prompt_length]."""
    segments: list[Segment]
    """The response in order; neighbours differ in source."""
    status: RelayStatus
    """Whether it is whole."""
    calls: list[CallRecord] = field(default_factory=list)
    """Every command met, in the order in which its fate was known."""
    error: str = ""
    """Why it is not completed."""
    is_refused: bool = False
    """Whether it would not be completed another time either, since an engine refuses its request for good
    (`relay_verl.errors.PermanentError`)."""
    error_status: int | None = None
    """The HTTP status with which an endpoint failed; None if none did, or without one."""

    @property
    def response_ids(self) -> list[int]:
        """All segments joined, [response_length]."""
        return [token_id for segment in self.segments for token_id in segment.token_ids]

    @property
    def response_mask(self) -> list[int]:
        """1 where the student sampled; 0 where the teacher wrote and on forced tokens, [response_length]."""
        writers = [segment.source == "student" for segment in self.segments for _ in segment.token_ids]
        return [int(is_own and sampled) for is_own, sampled in zip(writers, self.sampled_mask, strict=True)]

    @property
    def sampled_mask(self) -> list[int]:
        """1 where either model sampled, 0 on forced tokens, [response_length]: what the released code trains on."""
        mask: list[int] = []
        for segment in self.segments:
            mask += [1 - is_forced for is_forced in segment.is_forced or [False] * len(segment.token_ids)]
        return mask

    @property
    def logprobs(self) -> list[float] | None:
        """The student's log-probabilities, [response_length]; None if some are unknown. Where the teacher wrote, and on
        forced tokens, 0.0 is a placeholder: it is valid only under `response_mask`, and no correction may read it."""
        joined: list[float] = []
        for segment in self.segments:
            if segment.source == "teacher":
                joined += [0.0] * len(segment.token_ids)
            elif segment.logprobs is None:
                return None
            else:
                joined += segment.logprobs
        return joined

    @property
    def mean_logprob(self) -> float | None:
        """Mean log-probability of the tokens that the student sampled; None if some are unknown, or without any."""
        if self.logprobs is None or not any(self.response_mask):
            return None
        return sum(compress(self.logprobs, self.response_mask)) / sum(self.response_mask)

    @property
    def num_tokens(self) -> int:
        """Tokens of the response, both writers together."""
        return sum(len(segment.token_ids) for segment in self.segments)

    @property
    def num_calls(self) -> int:
        """Calls that the teacher served."""
        return sum(segment.source == "teacher" for segment in self.segments)

    @property
    def num_requested_tokens(self) -> int:
        """Tokens asked for by the served calls."""
        return sum(call.num_requested for call in self.calls if call.outcome is CallOutcome.SERVED)

    @property
    def num_teacher_tokens(self) -> int:
        """Tokens the teacher delivered."""
        return sum(len(segment.token_ids) for segment in self.segments if segment.source == "teacher")

    @property
    def num_malformed_calls(self) -> int:
        """'</call>' written by the student that close no well-formed command."""
        return self.count(CallOutcome.MALFORMED)

    @property
    def num_failed_calls(self) -> int:
        """Calls that the teacher's engine failed to serve."""
        return self.count(CallOutcome.FAILED)

    @property
    def call_ratio(self) -> float:
        """See `rho`."""
        return rho(self.num_teacher_tokens, self.num_tokens)

    @property
    def has_called(self) -> bool:
        """See `asked_teacher`."""
        return asked_teacher(call.outcome for call in self.calls)

    @property
    def is_whole(self) -> bool:
        """See the function `is_whole`."""
        return is_whole(self.status, self.num_tokens)

    def count(self, outcome: CallOutcome) -> int:
        """Commands with this outcome."""
        return sum(call.outcome is outcome for call in self.calls)
