"""RelayDecoder: one response from prompt to end, written by two models in turn (paper 2.1 to 2.3).

The student writes until it completes a command; the teacher sees the same context without the commands and writes the
next n tokens; the student reads them and continues. `relay_verl.relay.Relay` is that loop. Async and pure of verl:
training, evaluation, serving and benchmarks all run it.

Invariants: the student's context is the prompt and all segments, commands included; the teacher's is the same without
the characters of any command the student wrote, and every token that no command touches keeps its id. A call delivers
at most min(n, max_tokens_per_call, tokens left). A teacher that fails never hangs the loop. No trajectory waits for
another. Tokens that a constraint forces (5.4, `relay_verl.constraint`) are marked and not trained on.

Where the paper is silent:
1. A command the decoder does not serve (n = 0, past `max_calls`, malformed, failed) stays in the text and the student
   continues. A failed call uses up one of `max_calls`, and after `max_failed_calls` of them no command is served, so
   that a dead teacher costs a bounded time.
2. Text that an engine wrote past a served command is cut after the token that completes it: a prefix of a sample.
3. Commands in the teacher's own tokens are plain text.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Any
from uuid import uuid4

from relay_verl.engines.base import TokenEngine
from relay_verl.engines.deadlines import pulse_of
from relay_verl.engines.failures import RetriedError
from relay_verl.errors import EngineError, PermanentError, UserError
from relay_verl.policies import Learned
from relay_verl.policy_base import Policy
from relay_verl.relay import Relay
from relay_verl.relay_config import RelayConfig
from relay_verl.tokenization import TokenBytes, end_ids_of
from relay_verl.types import RelayStatus, RelayTrajectory
from relay_verl.writer import Writer

logger = logging.getLogger(__name__)

__all__ = ["Relay", "RelayConfig", "RelayDecoder", "failure_of"]


def failure_of(trajectory: RelayTrajectory) -> EngineError | None:
    """What ended a response that is not completed, for callers to whom it is worth nothing; None if it is completed.

    A PermanentError where an engine refuses its request for good, a RetriedError with the HTTP status of an endpoint.
    """
    if trajectory.status is RelayStatus.COMPLETED:
        return None
    who = "teacher: " if trajectory.status is RelayStatus.TEACHER_FAILED else ""
    message = f"{who}{trajectory.error}"
    if trajectory.is_refused:
        return PermanentError(message)
    if trajectory.error_status is not None:
        return RetriedError(message, trajectory.error_status)
    return EngineError(message)


class RelayDecoder:
    """Writes responses with a student and, when it asks, a teacher.

    One decoder serves any number of trajectories at a time. Both models must share one tokenizer, or the teacher stand
    behind a `relay_verl.engines.text_bridge`. Without a teacher every command stays unserved. With `raises_bugs`
    a bug in an engine is raised as it is, for callers who wrote the engine; in a run it is a failure like another.
    """

    def __init__(
        self,
        student: TokenEngine,
        teacher: TokenEngine | None,
        tokenizer: Any,
        config: RelayConfig,
        *,
        raises_bugs: bool = False,
    ):
        self.student = student
        self.teacher = teacher
        self.tokenizer = tokenizer
        self.config = config
        self.raises_bugs = raises_bugs
        self.tokens = TokenBytes(tokenizer)
        self.end_ids = end_ids_of(tokenizer, config.end_ids)
        self.student_pulse = pulse_of(student)
        self.teacher_pulse = pulse_of(teacher)
        self._has_warned = False

    def note_failed_call(self, error: EngineError) -> None:
        """Warn of the first failed call of this decoder at once, since whoever counts the calls may do so much later;
        where a failure is raised, whoever asked reports it. `relay_verl.logs` lets the warning be heard in Ray."""
        if self.config.on_teacher_failure == "fail" or self._has_warned:
            return
        self._has_warned = True
        name = f" {self.config.teacher_name}" if self.config.teacher_name else ""
        logger.warning("relay_verl: warning: the first call to the teacher%s that failed: %s", name, error)

    async def run(
        self,
        prompt_ids: list[int],
        *,
        sampling: Mapping[str, Any] | None = None,
        teacher_sampling: Mapping[str, Any] | None = None,
        policy: Policy | None = None,
        request_id: str | None = None,
        max_response_tokens: int | None = None,
        teacher: TokenEngine | None = None,
    ) -> RelayTrajectory:
        """Write one response.

        Args:
            prompt_ids: the prompt, [prompt_length].
            sampling: the student's sampling parameters under vLLM's names.
            teacher_sampling: what this response adds to the config's, such as a seed.
            policy: how commands are treated; `Learned` by default.
            request_id: names the trajectory to the engines; made up if None.
            max_response_tokens: a lower limit than the config's, such as what a long prompt leaves of the context.
            teacher: answers this response's calls instead of the decoder's own, such as one that knows the chat.

        Raises:
            TeacherError: the teacher failed and `on_teacher_failure` is 'fail'.
            UserError: the policy asks a defer head, and `config.deferral` is None.
        """
        relay = self.stream(
            prompt_ids,
            sampling=sampling,
            teacher_sampling=teacher_sampling,
            policy=policy,
            request_id=request_id,
            max_response_tokens=max_response_tokens,
            teacher=teacher,
            streams=False,
        )
        async for _ in relay:
            pass
        return relay.trajectory()

    def stream(
        self,
        prompt_ids: list[int],
        *,
        sampling: Mapping[str, Any] | None = None,
        teacher_sampling: Mapping[str, Any] | None = None,
        policy: Policy | None = None,
        request_id: str | None = None,
        max_response_tokens: int | None = None,
        teacher: TokenEngine | None = None,
        streams: bool = True,
    ) -> Relay:
        """The same, piece by piece: iterate over the result for segments, then ask it for its `trajectory()`. Closing
        it (`aclose`) ends the requests to both engines.

        Args:
            streams: yield what an engine that can stream has written while it writes; False yields whole turns. The
                others are those of `run`.
        """
        policy = policy or Learned()
        limit = min(self.config.max_response_tokens, max_response_tokens or self.config.max_response_tokens)
        is_own = limit == self.config.max_response_tokens
        config = self.config if is_own else replace(self.config, max_response_tokens=limit)
        common: dict[str, Any] = {
            "request_id": request_id or uuid4().hex,
            "end_ids": self.end_ids,
            "vocab_size": config.vocab_size,
            "streams": streams,
            "raises_bugs": self.raises_bugs,
        }
        student = Writer(
            "student",
            self.student,
            self.student_pulse,
            config.student_timeout_s,
            {**(sampling or {}), **policy.student_sampling()},
            **common,
        )
        answering: Writer | None = None
        engine = teacher or self.teacher
        if engine is not None:
            # a teacher of this response alone may stand in front of an engine that others ask, too
            pulse = self.teacher_pulse if engine is self.teacher else pulse_of(engine)
            merged = {**config.teacher_sampling, **(teacher_sampling or {})}
            answering = Writer("teacher", engine, pulse, config.teacher_timeout_s, merged, **common)
        if config.deferral is None and policy.defer_threshold(0.0) is not None:
            raise UserError("policy deferred: the student's engine has no defer head (relay.defer.head)")
        return Relay(list(prompt_ids), config, policy, student, answering, self.tokens, self.note_failed_call)
