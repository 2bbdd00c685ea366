"""The calls of one response: asking the teacher within the limits, and the record of what became of each command.

Invariant: a call delivers at most min(n, max_tokens_per_call, tokens left); every command met has one record.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from relay_verl.engines.base import Generation
from relay_verl.errors import DeclinedError, EngineError
from relay_verl.protocol import MAX_NUM_TOKENS
from relay_verl.relay_config import RelayConfig
from relay_verl.transcript import Transcript
from relay_verl.types import CallOutcome, CallRecord
from relay_verl.writer import Writer


@dataclass(frozen=True)
class TeacherTurn:
    """What the teacher is asked for next."""

    num_tokens: int | None
    """Tokens to ask for, before any cap; None for all that is left of the response, whatever the caps say."""
    has_command: bool
    """Whether the student asked; a baseline's calls come by themselves."""


class Calls:
    """The commands of one response.

    Args:
        config: the limits.
        note_failed_call: told of each call that fails.
    """

    def __init__(self, config: RelayConfig, note_failed_call: Callable[[EngineError], None]):
        self.records: list[CallRecord] = []
        """Every command met, in the order in which its fate was known."""
        self._config = config
        self._note_failed_call = note_failed_call
        self._num_attempts = 0
        self._num_failed = 0

    @property
    def are_left(self) -> bool:
        """Whether the next command may be served."""
        has_calls_left = self._config.max_calls is None or self._num_attempts < self._config.max_calls
        return has_calls_left and self._num_failed < self._config.max_failed_calls

    def pass_over(self, outcome: CallOutcome, num_requested: int = 0) -> None:
        """Record a command that the teacher is not asked for."""
        self.records.append(CallRecord(outcome, min(num_requested, MAX_NUM_TOKENS)))

    def note_malformed(self, num_commands: int) -> None:
        """Record commands that are none."""
        self.records += [CallRecord(CallOutcome.MALFORMED)] * num_commands

    async def ask(self, teacher: Writer, transcript: Transcript, turn: TeacherTurn) -> AsyncGenerator[Generation, None]:
        """The teacher's tokens, and the record of the call; nothing if no token is left of the response.

        Args:
            teacher: who is asked.
            transcript: what is written so far; it may grow by what is yielded.
            turn: how much is asked for.

        Raises:
            DeclinedError: it was not asked, as a budget is spent.
            EngineError: it failed, was late, or answered rubbish.
        """
        num_asked = max_tokens = transcript.tokens_left
        if turn.num_tokens is not None:
            num_asked = min(turn.num_tokens, MAX_NUM_TOKENS)
            max_tokens = min(num_asked, self._config.max_tokens_per_call, transcript.tokens_left)
        if max_tokens <= 0:
            self.pass_over(CallOutcome.OVER_LIMIT, num_asked)
            return
        # `max_calls` counts what the student asked for, whatever comes of it
        self._num_attempts += turn.has_command
        context = transcript.teacher_context()
        record: dict[str, Any] = {
            "num_requested": num_asked,
            "position": transcript.num_tokens,
            "num_context": len(context),
            "has_command": turn.has_command,
            "teacher": self._config.teacher_name,
        }
        started = time.monotonic()
        outcome, num_delivered = CallOutcome.SERVED, 0
        try:
            answer = teacher.pieces(context, max_tokens, num_written=transcript.num_tokens)
            async with aclosing(answer) as pieces:
                async for piece in pieces:
                    num_delivered += len(piece.token_ids)
                    if piece.num_cached is not None:
                        record |= {"num_cached": piece.num_cached, "cache_block": piece.cache_block}
                    if piece.billed is not None:  # an answer without a token may be billed, too
                        record["num_billed_input"] = piece.billed.num_input
                        record["num_billed_output"] = piece.billed.num_output
                    yield piece
            if not num_delivered:
                raise EngineError("the teacher answered with no token")
        except DeclinedError:
            # as a command that is met when calls are off: none of `max_calls`, and not a failure
            self._num_attempts -= turn.has_command
            self.pass_over(CallOutcome.OVER_LIMIT, num_asked)
            raise
        except EngineError as error:
            self._num_failed += 1
            outcome, record["error"] = CallOutcome.FAILED, str(error)
            self._note_failed_call(error)
            raise
        finally:
            # A reader who leaves before the first token leaves no call.
            if num_delivered or outcome is CallOutcome.FAILED:
                record |= {"num_delivered": num_delivered, "latency_s": time.monotonic() - started}
                self.records.append(CallRecord(outcome, **record))
