"""RelayDecoder: one response from prompt to end, written by two models in turn (paper 2.1 to 2.3).

The student writes until it completes a command; the teacher sees the same context without the commands and writes the
next n tokens; the student reads them and goes on. Async and pure of verl: training, evaluation, serving and benchmarks
all run this loop.

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
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from typing import Any, Literal
from uuid import uuid4

from relay_verl.constraint import force_command
from relay_verl.engines.ask import ask_within
from relay_verl.engines.base import FinishReason, Generation, TokenEngine
from relay_verl.engines.deadlines import pulse_of
from relay_verl.engines.failures import RetriedError
from relay_verl.errors import EngineError, PermanentError, TeacherError
from relay_verl.policies import Interruption, Learned, Policy
from relay_verl.protocol import (
    CLOSE,
    MAX_NUM_TOKENS,
    OPEN,
    Call,
    count_malformed_calls,
    find_calls_in_bytes,
    strip_call_tokens,
)
from relay_verl.relay_config import RelayConfig
from relay_verl.tokenization import TokenBytes, end_ids_of
from relay_verl.types import CallOutcome, CallRecord, RelayStatus, RelayTrajectory, Segment

logger = logging.getLogger(__name__)

__all__ = ["Relay", "RelayConfig", "RelayDecoder"]


class RelayDecoder:
    """Writes responses with a student and, when it asks, a teacher.

    One decoder serves any number of trajectories at a time. Both models must share one tokenizer, or the teacher stand
    behind a `relay_verl.engines.text_bridge`. Without a teacher every command stays unserved.
    """

    def __init__(self, student: TokenEngine, teacher: TokenEngine | None, tokenizer: Any, config: RelayConfig):
        self.student = student
        self.teacher = teacher
        self.tokenizer = tokenizer
        self.config = config
        self.tokens = TokenBytes(tokenizer)
        self.end_ids = end_ids_of(tokenizer, config.end_ids)
        self.student_pulse = pulse_of(student)
        self.teacher_pulse = pulse_of(teacher)
        self._has_warned = False

    def note_failed_call(self, error: EngineError) -> None:
        """Say the first failure of this decoder's calls at once: whoever counts them may do so much later. Where a
        failure is raised, whoever asks says it."""
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
        """
        relay = self.stream(
            prompt_ids,
            sampling=sampling,
            teacher_sampling=teacher_sampling,
            policy=policy,
            request_id=request_id,
            max_response_tokens=max_response_tokens,
            teacher=teacher,
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
    ) -> Relay:
        """The same, piece by piece: iterate over the result for segments, then ask it for its `trajectory()`."""
        policy = policy or Learned()
        student = {**(sampling or {}), **policy.student_sampling()}
        answering = {**self.config.teacher_sampling, **(teacher_sampling or {})}
        limit = min(self.config.max_response_tokens, max_response_tokens or self.config.max_response_tokens)
        config = replace(self.config, max_response_tokens=limit, teacher_sampling=answering)
        return Relay(
            self, config, list(prompt_ids), student, policy, request_id or uuid4().hex, teacher or self.teacher
        )


class Relay:
    """One response while it is being written; async-iterating it yields each new piece as a Segment."""

    def __init__(
        self,
        decoder: RelayDecoder,
        config: RelayConfig,
        prompt_ids: list[int],
        sampling: dict[str, Any],
        policy: Policy,
        request_id: str,
        teacher: TokenEngine | None,
    ):
        self._decoder = decoder
        self._teacher = teacher
        self._teacher_pulse = decoder.teacher_pulse if teacher is decoder.teacher else pulse_of(teacher)
        self._config = config
        self._policy = policy
        self._sampling = sampling
        self._request_id = request_id
        self._prompt_ids = prompt_ids
        self._context = list(prompt_ids)  # the student's: prompt and all segments
        self._teacher_context = list(prompt_ids)  # the teacher's, up to the student's current turn
        self._turn: list[int] = []  # what the student wrote since the teacher last did
        self._turn_bytes = b""
        self._segments: list[Segment] = []
        self._calls: list[CallRecord] = []
        self._num_attempts = 0
        self._num_failed = 0
        self._has_failed = False  # a call without a command, which else might come for ever
        self._status = RelayStatus.COMPLETED
        self._error = ""
        self._is_refused = False
        self._error_status: int | None = None

    def trajectory(self) -> RelayTrajectory:
        """What has been written so far."""
        return RelayTrajectory(
            self._prompt_ids,
            list(self._segments),
            self._status,
            list(self._calls),
            self._error,
            self._is_refused,
            self._error_status,
        )

    async def __aiter__(self) -> AsyncIterator[Segment]:
        while self._tokens_left > 0:
            planned = None if self._has_failed else self._policy.next_interruption()
            max_tokens = min(self._tokens_left, planned.num_student_tokens) if planned else self._tokens_left
            call = None
            if max_tokens:
                try:
                    piece = await self._student_turn(max_tokens)
                except EngineError as error:
                    self._fail(RelayStatus.STUDENT_FAILED, error)
                    break
                forced: Generation | None = None
                if self._is_constrained:
                    piece, forced = self._constrain(piece)
                call, piece = self._read(piece)
                if piece.token_ids or forced is None:
                    yield self._append("student", piece)
                if forced is not None:
                    # the decoder writes the rest of the command, as far as the response has room for it
                    call, piece = self._read(_cut(forced, self._tokens_left, "stop"))
                    if piece.token_ids:
                        yield self._append("student", piece, is_forced=True)
                is_cut = planned is not None and piece.finish_reason == "length" and len(piece.token_ids) == max_tokens
                if call is None and not is_cut:
                    if piece.finish_reason != "stop":
                        break
                    continue
                if call is None and not self._tokens_left:
                    break
            try:
                answer = await self._ask_teacher(call, planned)
            except EngineError as error:
                if self._config.on_teacher_failure == "fail":
                    raise TeacherError(f"teacher: {error}") from error
                if self._config.on_teacher_failure == "drop":
                    self._fail(RelayStatus.TEACHER_FAILED, error)
                    break
                self._has_failed = self._has_failed or call is None
                continue
            if answer is not None:
                yield self._append("teacher", answer)
                if answer.finish_reason == "eos":
                    break
        self._close_turn()

    def _fail(self, status: RelayStatus, error: EngineError) -> None:
        self._status, self._error = status, str(error)
        self._is_refused = isinstance(error, PermanentError) and not error.concerns_all
        self._error_status = error.status_code if isinstance(error, RetriedError) else None

    @property
    def _tokens_left(self) -> int:
        return self._config.max_response_tokens - (len(self._context) - len(self._prompt_ids))

    @property
    def _is_listening(self) -> bool:
        """Whether the next command would be served."""
        has_teacher = self._teacher is not None and self._policy.allows_calls
        has_calls_left = self._config.max_calls is None or self._num_attempts < self._config.max_calls
        return has_teacher and has_calls_left and self._num_failed < self._config.max_failed_calls

    @property
    def _is_constrained(self) -> bool:
        """Whether the number in the next command is not the student's to write."""
        is_fixed = self._config.fixed_command == "text" and self._policy.fixed_length() is not None
        return is_fixed and self._is_listening

    def _constrain(self, piece: Generation) -> tuple[Generation, Generation | None]:
        """`piece` up to its first `<call>`, and what the constraint puts behind that; None without a `<call>`."""
        num_tokens = self._policy.fixed_length()
        assert num_tokens is not None
        forced = force_command(self._turn_bytes, piece.token_ids, num_tokens, self._decoder.tokens)
        if forced is None:
            return piece, None
        num_kept, token_ids = forced
        return _cut(piece, num_kept, "stop"), Generation(token_ids, [0.0] * len(token_ids), "stop")

    def _seeded(self, sampling: Mapping[str, Any]) -> Mapping[str, Any]:
        """A seed, if there is one, differs from turn to turn, or each turn would repeat the draws of the first."""
        if "seed" not in sampling:
            return sampling
        return {**sampling, "seed": sampling["seed"] + len(self._context) - len(self._prompt_ids)}

    async def _student_turn(self, max_tokens: int) -> Generation:
        piece = await ask_within(
            self._config.student_timeout_s,
            lambda: self._decoder.student.generate(
                list(self._context),
                max_tokens=max_tokens,
                stop=(OPEN,) if self._is_constrained else (CLOSE,) if self._is_listening else (),
                sampling=self._seeded(self._sampling),
                request_id=self._request_id,
            ),
            pulse=self._decoder.student_pulse,
            max_tokens=max_tokens,
        )
        if not piece.token_ids and piece.finish_reason == "stop":
            raise EngineError("the student's engine wrote nothing and did not end")
        self._check_ids("student", piece)
        # an engine that does not know all of the model's ends writes past one, or says that it was stopped
        num_tokens = self._length_up_to_end(piece.token_ids[:max_tokens])
        if num_tokens is not None:
            return _cut(piece, num_tokens, "eos")
        return _cut(piece, max_tokens, piece.finish_reason)

    def _read(self, piece: Generation) -> tuple[Call | None, Generation]:
        """The first command in `piece` to be served, and `piece` cut after it; commands passed over are recorded."""
        old_end = len(self._turn_bytes)
        text = self._turn_bytes + self._decoder.tokens.join(piece.token_ids)
        for call in find_calls_in_bytes(text):
            if call.end <= old_end:
                continue
            if not self._is_listening:
                self._calls.append(CallRecord(CallOutcome.OVER_LIMIT, min(call.num_tokens, MAX_NUM_TOKENS)))
            elif self._policy.num_tokens(call) == 0:
                self._calls.append(CallRecord(CallOutcome.ZERO))
            else:
                end = old_end
                for num_tokens, token_id in enumerate(piece.token_ids, start=1):
                    end += len(self._decoder.tokens.to_bytes(token_id))
                    if end >= call.end:
                        return call, _cut(piece, num_tokens, "stop")
        return None, piece

    async def _ask_teacher(self, call: Call | None, planned: Interruption | None) -> Generation | None:
        """The teacher's tokens for a command, or else for a call without one; None if no token is left of the response.

        Raises:
            EngineError: it failed, was late, or answered rubbish; the call is recorded.
        """
        teacher = self._teacher
        assert teacher is not None
        asked = max_tokens = self._tokens_left
        num_tokens = self._policy.num_tokens(call) if call else planned.num_tokens if planned else None
        if num_tokens is not None:
            asked = min(num_tokens, MAX_NUM_TOKENS)
            max_tokens = min(asked, self._config.max_tokens_per_call, self._tokens_left)
        if max_tokens <= 0:
            self._calls.append(CallRecord(CallOutcome.OVER_LIMIT, asked))
            return None
        self._num_attempts += call is not None
        context = self._teacher_context + strip_call_tokens(self._turn, self._decoder.tokens)
        common: dict[str, Any] = {
            "num_requested": asked,
            "position": len(self._context) - len(self._prompt_ids),
            "num_context": len(context),
            "has_command": call is not None,
            "teacher": self._config.teacher_name,
        }

        def record(outcome: CallOutcome, **what: Any) -> None:
            self._calls.append(CallRecord(outcome, **common, **what))

        started = time.monotonic()
        try:
            answer = await ask_within(
                self._config.teacher_timeout_s,
                lambda: teacher.generate(
                    context,
                    max_tokens=max_tokens,
                    sampling=self._seeded(self._config.teacher_sampling),
                    request_id=self._request_id,
                ),
                pulse=self._teacher_pulse,
                max_tokens=max_tokens,
            )
            answer = self._check_answer(answer, max_tokens)
        except EngineError as error:
            self._num_failed += 1
            record(CallOutcome.FAILED, latency_s=time.monotonic() - started, error=str(error))
            self._decoder.note_failed_call(error)
            raise
        record(
            CallOutcome.SERVED,
            num_delivered=len(answer.token_ids),
            latency_s=time.monotonic() - started,
            num_cached=answer.num_cached,
        )
        return answer

    def _check_answer(self, answer: Generation, max_tokens: int) -> Generation:
        """`answer` cut to `max_tokens` and after its EOS, or EngineError if it cannot be text."""
        self._check_ids("teacher", answer)
        if not answer.token_ids:
            raise EngineError("the teacher answered with no token")
        num_tokens = self._length_up_to_end(answer.token_ids[:max_tokens])
        if num_tokens is not None:
            return _cut(answer, num_tokens, "eos")
        return _cut(answer, max_tokens, answer.finish_reason if len(answer.token_ids) <= max_tokens else "length")

    def _check_ids(self, who: str, piece: Generation) -> None:
        """Raise EngineError on an id that the student has no embedding for. One without text is an id like others:
        it is a padding row of the embedding."""
        size = self._config.vocab_size
        if size is not None and max(piece.token_ids, default=0) >= size:
            raise EngineError(
                f"the {who} answered {max(piece.token_ids)}, but the student's vocabulary has {size} token ids"
            )

    def _length_up_to_end(self, token_ids: list[int]) -> int | None:
        """How many of the ids come up to the first one that ends a response, with it; None if none does."""
        ends = self._decoder.end_ids
        return next((count for count, token_id in enumerate(token_ids, start=1) if token_id in ends), None)

    def _append(self, source: Literal["student", "teacher"], piece: Generation, *, is_forced: bool = False) -> Segment:
        marks = [True] * len(piece.token_ids) if is_forced else None
        segment = Segment(source, list(piece.token_ids), piece.logprobs, marks)
        last = self._segments[-1] if self._segments else None
        if source == "student":
            self._turn += piece.token_ids
            self._turn_bytes += self._decoder.tokens.join(piece.token_ids)
        else:
            self._close_turn()
            self._teacher_context += piece.token_ids
        if last is not None and last.source == source:
            self._segments[-1] = _join(last, segment)
        else:
            self._segments.append(segment)
        self._context += piece.token_ids
        return segment

    def _close_turn(self) -> None:
        """The student's turn is over: what the teacher will see of it is settled."""
        num_malformed = count_malformed_calls(self._turn_bytes.decode("latin-1"))
        self._calls += [CallRecord(CallOutcome.MALFORMED)] * num_malformed
        self._teacher_context += strip_call_tokens(self._turn, self._decoder.tokens)
        self._turn, self._turn_bytes = [], b""


def _join(one: Segment, other: Segment) -> Segment:
    """Two segments of one writer as one."""
    logprobs = None if one.logprobs is None or other.logprobs is None else one.logprobs + other.logprobs
    is_forced = None
    if one.is_forced is not None or other.is_forced is not None:
        is_forced = [mark for part in (one, other) for mark in part.is_forced or [False] * len(part.token_ids)]
    return Segment(one.source, one.token_ids + other.token_ids, logprobs, is_forced)


def _cut(piece: Generation, num_tokens: int, finish_reason: FinishReason) -> Generation:
    """The first `num_tokens` of `piece`."""
    logprobs = None if piece.logprobs is None else piece.logprobs[:num_tokens]
    return Generation(piece.token_ids[:num_tokens], logprobs, finish_reason, piece.num_cached)
