"""Relay: the state of one response while two models write it in turn, and the two steps that advance it.

`relay_verl.decoder` has the algorithm's invariants and where the paper is silent; `relay_verl.transcript` has what each
model sees. A step yields each piece as soon as it is written, so an engine that streams has more pieces to yield and
nothing else to change.

Invariant: the pieces joined are the trajectory, and it does not depend on how engines cut their answers into pieces,
unless one fails in the middle of an answer: what a reader has seen stays, so what the teacher streamed before it failed
is part of the response and is charged.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import replace

from relay_verl.calls import Calls, TeacherTurn
from relay_verl.constraint import force_command
from relay_verl.deferral import Deferral
from relay_verl.engines.base import Generation
from relay_verl.engines.failures import RetriedError
from relay_verl.errors import DeclinedError, EngineError, PermanentError, TeacherError
from relay_verl.policy_base import Interruption, Policy
from relay_verl.protocol import CLOSE, OPEN, find_calls_in_bytes
from relay_verl.relay_config import RelayConfig
from relay_verl.tokenization import TokenBytes
from relay_verl.transcript import Transcript
from relay_verl.types import CallOutcome, CallRecord, RelayStatus, RelayTrajectory, Segment
from relay_verl.writer import Whole, Writer, cut

_CLOSING = CLOSE.encode()
_LEFT_OUT = Interruption(1 << 62, 0)
"""In place of a tentative call that the policy leaves out: all of the student's tokens stay, and it continues."""


class Relay:
    """One response while it is being written; async-iterating it yields each new piece as a Segment with its writer.

    Closing it (`aclose`) ends the requests to both engines; what was written until then is the trajectory.

    Args:
        prompt_ids: the prompt, [prompt_length].
        config: the limits.
        policy: how commands are treated.
        student: writes, and decides when to call.
        teacher: answers calls; without one every command stays unserved.
        tokens: the tokenizer's view of its ids as bytes.
        note_failed_call: told of each call that fails.
    """

    def __init__(
        self,
        prompt_ids: list[int],
        config: RelayConfig,
        policy: Policy,
        student: Writer,
        teacher: Writer | None,
        tokens: TokenBytes,
        note_failed_call: Callable[[EngineError], None],
    ):
        self._config = config
        self._policy = policy
        self._student = student
        self._teacher = teacher
        self._tokens = tokens
        self._transcript = Transcript(prompt_ids, config.max_response_tokens, tokens)
        self._calls = Calls(config, note_failed_call)
        self._has_ended = False
        self._teacher_turn: TeacherTurn | None = None  # what the student's last step asks for
        self._deferral: Deferral | None = None  # of the student's current turn, if its engine may ask by itself
        self._plans_calls = True  # baselines only: see `_next_planned_call` and `_ask_student`
        self._status = RelayStatus.COMPLETED
        self._error = ""
        self._is_refused = False
        self._error_status: int | None = None
        self._pieces: AsyncGenerator[Segment, None] | None = None

    def trajectory(self) -> RelayTrajectory:
        """What has been written so far."""
        written = self._transcript
        return RelayTrajectory(
            written.prompt_ids,
            written.segments,
            self._status,
            self.calls,
            self._error,
            self._is_refused,
            self._error_status,
        )

    @property
    def calls(self) -> list[CallRecord]:
        """Every command met so far, without the cost of the whole `trajectory`."""
        return list(self._calls.records)

    def __aiter__(self) -> AsyncGenerator[Segment, None]:
        if self._pieces is None:
            self._pieces = self._write()
        return self._pieces

    async def aclose(self) -> None:
        """End the response here."""
        await aiter(self).aclose()

    async def _write(self) -> AsyncGenerator[Segment, None]:
        while not self._has_ended and self._transcript.tokens_left > 0:
            for step in (self._student_step, self._teacher_step):
                # a step that is left to the garbage collector would leave its request running
                async with aclosing(step()) as pieces:
                    async for piece in pieces:
                        yield piece
        self._calls.note_malformed(self._transcript.close_turn())

    # ---- the student ----

    async def _student_step(self) -> AsyncGenerator[Segment, None]:
        """The student writes until it completes a command that will be served, ends, or fills the response; leaves at
        `_teacher_turn` what the teacher is asked for, if anything."""
        self._teacher_turn = None
        max_tokens = self._transcript.tokens_left
        planned = self._next_planned_call()
        if planned is not None:
            max_tokens = min(max_tokens, planned.num_student_tokens)
            if max_tokens == 0:
                self._teacher_turn = TeacherTurn(planned.num_tokens, has_command=False)
                return

        num_written = 0
        piece = Generation([], None, None)
        try:
            is_tentative = planned is not None and planned.is_tentative
            async with aclosing(self._ask_student(max_tokens, is_whole=is_tentative)) as pieces:
                async for piece in pieces:
                    # it would write nothing the next time, too
                    if not num_written and not piece.token_ids and piece.finish_reason == "stop":
                        raise EngineError("the student's engine wrote nothing and did not end")
                    # With a fixed number in the text (5.4) the student stopped at `<call>`: what follows is not its
                    # choice.
                    forced: Generation | None = None
                    if self._is_constrained:
                        piece, forced = self._constrain(piece)
                    piece = self._read(self._cut_deferral(piece))
                    num_written += len(piece.token_ids)
                    if planned is not None and planned.is_tentative and self._is_due(planned, piece, num_written):
                        planned = self._policy.settle(planned, piece) or _LEFT_OUT
                        piece = cut(piece, planned.num_student_tokens, "length")
                    has_nothing = not num_written and self._teacher_turn is None
                    is_empty_answer = has_nothing and piece.finish_reason is not None
                    if piece.token_ids or (is_empty_answer and forced is None):
                        yield self._transcript.append_student(piece)
                    if forced is not None:
                        # The command may not fit: then its beginning fills the response, and it is not served.
                        piece = self._read(cut(forced, self._transcript.tokens_left, "stop"))
                        if piece.token_ids:
                            yield self._transcript.append_student(piece, is_forced=True)
                    if forced is not None or self._teacher_turn is not None:
                        break
        except EngineError as error:
            self._fail(RelayStatus.STUDENT_FAILED, error)
            return

        if self._teacher_turn is not None or planned is _LEFT_OUT:
            return
        is_due = planned is not None and piece.finish_reason == "length" and num_written == max_tokens
        if planned is not None and is_due:
            # The student wrote all tokens before the planned place. Where they filled the response, no call is left.
            if self._transcript.tokens_left:
                self._teacher_turn = TeacherTurn(planned.num_tokens, has_command=False)
        elif piece.finish_reason != "stop":
            # Without a stop string the response is over: an end of sequence, or no room in the response or the context.
            # A stop without a call is a command that is passed over (n = 0): the student continues behind it.
            self._has_ended = True

    def _is_due(self, planned: Interruption, piece: Generation, num_written: int) -> bool:
        """Whether the student has written all tokens before a planned call, and none of its own commands is served."""
        is_there = piece.finish_reason == "length" and num_written == planned.num_student_tokens
        return is_there and self._teacher_turn is None

    def _ask_student(self, max_tokens: int, *, is_whole: bool) -> AsyncGenerator[Generation, None] | Whole:
        # A command that would not be served need not stop the engine. Under the constraint `<call>` has to, since the
        # number behind it is written for the student.
        stop: tuple[str, ...] = ()
        if self._is_listening:
            stop = (OPEN,) if self._is_constrained else (CLOSE,)
        written = self._transcript
        # what a policy may take back is not shown before it has decided
        student = replace(self._student, streams=False) if is_whole else self._student
        deferral = self._config.deferral if self._teacher is not None and self._plans_calls else None
        threshold = None if deferral is None else self._policy.defer_threshold(deferral.threshold)
        self._deferral = None if threshold is None else deferral
        if deferral is not None and threshold is not None:
            student = replace(student, sampling=deferral.sampling(threshold, student.sampling))
        return student.pieces(written.student_context(), max_tokens, num_written=written.num_tokens, stop=stop)

    def _cut_deferral(self, piece: Generation) -> Generation:
        """`piece` without the reserved id by which the student's engine asks for the teacher, who then has the next
        turn; the engine says that it ended, or filled what it was asked for."""
        deferral = self._deferral
        if deferral is None or deferral.token_id not in piece.token_ids:
            return piece
        self._teacher_turn = TeacherTurn(deferral.num_tokens, has_command=False)
        return cut(piece, piece.token_ids.index(deferral.token_id), "stop")

    def _read(self, piece: Generation) -> Generation:
        """`piece` cut after its first command to be served, which becomes the `_teacher_turn`; commands that are passed
        over are recorded."""
        # A command may begin in an earlier piece of the turn, so the whole turn is read, and what ended before `piece`
        # is skipped: it has been seen. A piece that completes no `</call>` completes no command.
        turn, text = self._transcript.turn_bytes, self._tokens.join(piece.token_ids)
        if _CLOSING not in turn[1 - len(_CLOSING) :] + text:
            return piece
        old_end, text = len(turn), turn + text
        for call in find_calls_in_bytes(text):
            if call.end <= old_end:
                continue
            if not self._is_listening:
                self._calls.pass_over(CallOutcome.OVER_LIMIT, call.num_tokens)
                continue
            num_asked = self._policy.num_tokens(call)
            if num_asked == 0:
                self._calls.pass_over(CallOutcome.ZERO)
                continue
            self._teacher_turn = TeacherTurn(num_asked, has_command=True)
            # Text past the command is dropped, but a token is never split: the one that completes it is kept whole.
            return cut(piece, self._tokens.count_up_to(piece.token_ids, call.end - old_end), "stop")
        return piece

    @property
    def _is_listening(self) -> bool:
        """Whether the next command would be served."""
        return self._teacher is not None and self._policy.allows_calls and self._calls.are_left

    @property
    def _is_constrained(self) -> bool:
        """Whether the number in the next command is not the student's to write."""
        is_fixed = self._config.fixed_command == "text" and self._policy.fixed_length() is not None
        return is_fixed and self._is_listening

    def _constrain(self, piece: Generation) -> tuple[Generation, Generation | None]:
        """`piece` up to its first `<call>`, and what the constraint puts behind that; None without a `<call>`."""
        num_tokens = self._policy.fixed_length()
        assert num_tokens is not None
        forced = force_command(self._transcript.turn_bytes, piece.token_ids, num_tokens, self._tokens)
        if forced is None:
            return piece, None
        num_kept, token_ids = forced
        return cut(piece, num_kept, "stop"), Generation(token_ids, [0.0] * len(token_ids), "stop")

    # ---- the teacher ----

    async def _teacher_step(self) -> AsyncGenerator[Segment, None]:
        """The teacher writes what the student's step asks for, if anything.

        Raises:
            TeacherError: it failed and `on_teacher_failure` is 'fail'.
        """
        turn = self._teacher_turn
        if turn is None:
            return
        assert self._teacher is not None
        num_malformed = 0
        piece: Generation | None = None
        try:
            async with aclosing(self._calls.ask(self._teacher, self._transcript, turn)) as pieces:
                async for piece in pieces:
                    if piece.token_ids:
                        # until a token comes, the student's turn may continue
                        num_malformed += self._transcript.close_turn()
                        yield self._transcript.append_teacher(piece)
        except DeclinedError:
            # the budget was spent after the command was met: the student continues, unless the teacher writes alone
            self._has_ended = not type(self._policy).needs_student
            self._plans_calls = self._plans_calls and turn.has_command
        except EngineError as error:
            if self._config.on_teacher_failure == "fail":
                raise TeacherError(f"teacher: {error}") from error
            if self._config.on_teacher_failure == "drop":
                self._fail(RelayStatus.TEACHER_FAILED, error)
            # 'continue': a failed command stays in the text, and `max_failed_calls` bounds how many follow. Planned
            # calls have no such bound, so there are no more of them.
            self._plans_calls = self._plans_calls and turn.has_command
        else:
            self._has_ended = piece is not None and piece.finish_reason == "eos"
        finally:
            self._calls.note_malformed(num_malformed)

    # ---- calls without a command: baselines of the evaluation (random_P, router_P, teacher_alone, deferred_TAU) ----

    def _next_planned_call(self) -> Interruption | None:
        """The baseline's next call; None under every policy that can be trained."""
        return self._policy.next_interruption() if self._plans_calls else None

    # ---- both ----

    def _fail(self, status: RelayStatus, error: EngineError) -> None:
        self._has_ended = True
        self._status, self._error = status, str(error)
        self._is_refused = isinstance(error, PermanentError) and not error.concerns_all
        self._error_status = error.status_code if isinstance(error, RetriedError) else None
