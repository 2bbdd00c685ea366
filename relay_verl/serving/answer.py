"""One response while it is written for a client: deltas as they come, and what they cost.

Invariants: the tokens that `count` counts are those of the segments, whether the response ends, fails or its client
leaves; closing the iterator ends both engines' requests.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from typing import Any, Literal

from relay_verl.allowance import WithinAllowance
from relay_verl.deltas import Delta, DeltaReader
from relay_verl.errors import EngineError, TeacherError
from relay_verl.relay import Relay
from relay_verl.serving.api_error import ApiError
from relay_verl.serving.serve_metrics import ServeMetrics
from relay_verl.serving.usage import RelayCount
from relay_verl.types import RelayStatus, RelayTrajectory, Segment

FinishReason = Literal["stop", "length", "abort", "error"]


class Answer:
    """One response of a request.

    Args:
        index: of its choice.
        prompt_ids: [prompt_length].
        relay: writes it.
        reader: turns it into text.
        end_ids: ids that end it.
        stop_ids: those of them that are the request's own, which `stop_reason` then names.
        metrics: are told of it.
        started_at: when the request came, by `time.monotonic`.
        limited: the policy, where a budget bounds it.
    """

    def __init__(
        self,
        index: int,
        prompt_ids: list[int],
        relay: Relay,
        reader: DeltaReader,
        end_ids: frozenset[int],
        stop_ids: frozenset[int],
        metrics: ServeMetrics,
        started_at: float,
        limited: WithinAllowance | None = None,
    ):
        self.index = index
        self.prompt_ids = prompt_ids
        self.tokens = RelayCount()
        self.finish_reason: FinishReason = "abort"
        self.stop_reason: str | int | None = None
        self._relay = relay
        self._reader = reader
        self._end_ids = end_ids
        self._stop_ids = stop_ids
        self._metrics = metrics
        self._started_at = self._wrote_at = started_at
        self._limited = limited
        self._last_id: int | None = None

    @property
    def count(self) -> RelayCount:
        """What it cost so far."""
        count = RelayCount(self.tokens.student_tokens, self.tokens.teacher_tokens)
        count.add_calls(self._relay.calls)
        count.is_budget_spent = self._has_spent
        return count

    @property
    def _has_spent(self) -> bool:
        return self._limited is not None and self._limited.has_refused

    async def __aiter__(self) -> AsyncIterator[list[Delta]]:
        """Deltas as they come, in order; at the end `finish_reason` says why it is over.

        Raises:
            ApiError: a model failed.
        """
        segments: Any = aiter(self._relay)
        try:
            async for segment in segments:
                self._note(segment)
                deltas = self._reader.feed(segment)
                if deltas:
                    yield deltas
                if self._reader.is_stopped:
                    break
            deltas = self._reader.end()
            if deltas:
                yield deltas
            self._finish(self._relay.trajectory())
        except TeacherError as error:
            self.finish_reason = "error"
            raise self._failed("teacher", error) from None
        finally:
            await segments.aclose()
            self._record()

    def _note(self, segment: Segment) -> None:
        now = time.monotonic()
        if self._last_id is None:
            self._metrics.first_token.observe(now - self._started_at)
        else:
            self._metrics.between_tokens.observe(now - self._wrote_at)
        self._wrote_at = now
        num_tokens = len(segment.token_ids)
        if num_tokens:
            self._last_id = segment.token_ids[-1]
        self.tokens.add_tokens(segment.source, num_tokens)
        self._metrics.tokens.counts[segment.source] += num_tokens

    def _finish(self, trajectory: RelayTrajectory) -> None:
        """Say why it ended.

        Raises:
            ApiError: a model failed.
        """
        if self._reader.is_stopped:
            self.finish_reason, self.stop_reason = "stop", self._reader.stop_reason
        elif trajectory.status is not RelayStatus.COMPLETED:
            self.finish_reason = "error"
            who = "teacher" if trajectory.status is RelayStatus.TEACHER_FAILED else "student"
            if trajectory.is_refused:
                raise ApiError(400, f"the {who} refuses the request: {trajectory.error}", code="engine_refused")
            raise self._failed(who, EngineError(trajectory.error))
        else:
            self.finish_reason = "stop" if self._last_id in self._end_ids else "length"
            self.stop_reason = self._last_id if self._last_id in self._stop_ids else None

    def _failed(self, who: str, error: EngineError) -> ApiError:
        text = str(error).removeprefix(f"{who}: ")
        return ApiError(503, f"the {who} does not answer: {text}", code=f"{who}_failed", retry_after_s=1)

    def _record(self) -> None:
        self._metrics.note_calls(self._relay.calls)
        self._metrics.whole.observe(time.monotonic() - self._started_at)
        self._metrics.success.labels(self.finish_reason).inc()
        if self._has_spent:
            self._metrics.budget_refusals.inc()
