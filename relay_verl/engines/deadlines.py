"""How long the parts of a rollout may take, deadlines that hold, and deadlines that follow the load. Pure.

Invariant: whoever waits has more time than what it waits for. A sample's turn ends within its group's time
(`relay.rollout_timeout_s`); a group that does not end in time counts as failed, and its worker says so within
`STATUS_TIMEOUT_S`; the replay buffer waits `GRACE_S` longer than a group may take, so that a hung group is one failed
group and only a worker that says nothing at all ends the run.

The rule for requests (`Pulse`). A request that waits in the queue of a slow engine, or shares the engine with many
others, is not late: an engine that makes progress is alive. So a request's `timeout_s` is about silence, and a request
fails as soon as one of these is true:

1. Silence: for `timeout_s` since it was sent, the engine has shown no sign of life. An answer to any request of this
   engine object is a sign, and so is a token counter of the engine that moves (vLLM's metrics, looked at every quarter
   of `timeout_s`), since other processes may ask the same engine.
2. Lost: a request that was sent later has been answered, and since then it has taken `timeout_s` and `LOST_FACTOR`
   times as long as its tokens take at the pace of those later requests. An engine starts requests in the order in which
   they come, so one that was overtaken is being written, or the engine does not have it.
3. `LONGEST_WAIT` times `timeout_s` since it was sent, whatever the engine does.

An answer that is streamed is a request that is sent anew with each piece, and a piece is a sign of life. Once a stream
has begun, the engine writes it and it waits in no queue: `LOST_FACTOR` times `timeout_s` without a piece end it.

A hung engine fails all its requests in `timeout_s`; 24 short requests in the queue of an engine that writes one after
the other are all served; one that the engine lost fails in a time that follows its pace.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any, TypeVar

from relay_verl.engines.answer_log import AnswerLog
from relay_verl.engines.pump import Pump
from relay_verl.engines.tasks import hear, is_done, start

Result = TypeVar("Result")

STATUS_TIMEOUT_S = 60.0
"""Seconds the transfer queue may take for one group's rows, and for its status."""
GRACE_S = 5 * STATUS_TIMEOUT_S
"""Seconds the replay buffer waits past a group's time: for its rows, its status, and a worker that has much to do."""

GRADING_S = 600.0
"""Seconds that grading and judging may take after a response is written, the start of their workers included."""

LOST_FACTOR = 4.0
"""How much slower than the requests sent after it a request may be, before it counts as lost."""
LONGEST_WAIT = 24
"""Most times its `timeout_s` that a request waits."""
CALLER_LEFT = "the caller left"
"""What a request's cancellation says where its caller was cancelled, which tells nothing about the engine; a deadline's
says nothing."""
LOOKS = 4
"""How often in `timeout_s` the engine's counter is looked at while requests wait."""


class DeadlineError(TimeoutError):
    """Work took longer than it may."""


async def run_within(timeout_s: float, work: Coroutine[Any, Any, Result]) -> Result:
    """What `work` returns; past the deadline it is cancelled and left alone, as it may not hear its cancellation.

    Raises:
        DeadlineError: it took longer.
    """
    # wait() instead of wait_for(): the latter waits until the cancelled task ends, which a hung one does not.
    task = start(work)
    try:
        done, _ = await asyncio.wait({task}, timeout=timeout_s)
    finally:
        task.cancel()
    if not done:
        raise DeadlineError(f"not done within {timeout_s:g} s")
    return task.result()


@dataclass(eq=False)
class _Request:
    """A request that waits."""

    sent_at: float
    """By the event loop's clock, as all times here."""
    num_tokens: int
    """Most tokens of its answer."""
    heard_at: float
    """When the last piece of its answer came, or it was sent."""
    number: int
    """In the order in which they were sent."""
    has_begun: bool = False
    """Whether a piece of its answer has come."""


class Pulse:
    """An engine's signs of life, as one process sees them, and deadlines that follow them: the rule above.

    Can be sent to another process, where it starts anew.

    Args:
        count_tokens: a number that grows while the engine works for anyone; None from it says that it cannot be known.
    """

    def __init__(self, count_tokens: Callable[[], Awaitable[int | None]] | None = None):
        self._count_tokens = count_tokens
        self._waiting: set[_Request] = set()
        self._num_sent = 0
        self._answers = AnswerLog()
        self._last_sign_at = -math.inf
        self._last_count: int | None = None
        self._looked_at = -math.inf
        self._look: asyncio.Task[None] | None = None
        self.num_tokens = 0
        """Tokens of the answers so far, as `relay_verl.engines.boundary` counts them."""

    def __reduce__(self) -> Any:
        return Pulse, (self._count_tokens,)

    def silence_s(self, since: float) -> float:
        """Seconds without a sign of life, counted from `since` on the event loop's clock."""
        return asyncio.get_running_loop().time() - max(since, self._last_sign_at)

    async def wait(
        self,
        timeout_s: float,
        work: Coroutine[Any, Any, Result],
        *,
        num_tokens: int = 1,
        measure: Callable[[Result], int] = lambda _: 1,
    ) -> Result:
        """What `work`, a request to the engine, returns. Past its deadline it is cancelled and left alone.

        Args:
            timeout_s: seconds of silence that it bears.
            work: the request. Only what it returns is a sign of life; what it raises is not.
            num_tokens: most tokens of the answer.
            measure: tokens of an answer.

        Raises:
            DeadlineError: the engine is silent, or this request is lost.
        """
        clock = asyncio.get_running_loop().time
        request = self._send(clock(), num_tokens)
        task = asyncio.create_task(work)
        reason: str | None = None
        patience_s = timeout_s / LOOKS  # nothing is due before the first look: nearly all calculate no deadline
        try:
            while not await is_done(task, patience_s):
                self._look_at_counter(clock(), timeout_s / LOOKS)
                patience_s = self._patience_s(request, timeout_s)
        except BaseException as error:  # its deadline has passed, or the caller's
            reason = CALLER_LEFT if isinstance(error, asyncio.CancelledError) else None
            task.add_done_callback(hear)
            raise
        finally:
            self._waiting.discard(request)
            task.cancel(reason)
        result = task.result()
        self._note_answer(request, clock(), max(1, measure(result)))
        return result

    async def pieces(
        self,
        timeout_s: float,
        stream: AsyncGenerator[Result, None],
        *,
        num_tokens: int = 1,
        measure: Callable[[Result], int] = lambda _: 1,
        is_last: Callable[[Result], bool] = lambda _: False,
    ) -> AsyncGenerator[Result, None]:
        """`wait` for an answer that comes in pieces: the items of `stream`. Closed early, or past its deadline, the
        stream is cancelled and left alone.

        Args:
            is_last: whether a piece ends the answer: then it is answered, whether or not the reader asks for more. The
                others are those of `wait`.

        Raises:
            DeadlineError: the engine is silent, or this stream is lost.
        """
        clock = asyncio.get_running_loop().time
        request = self._send(clock(), num_tokens)
        num_written = 0
        has_ended = False
        pump = Pump(stream)
        reason: str | None = None
        try:
            while True:
                # the reader's time is not the engine's: silence counts from when the next piece is waited for
                request.heard_at = clock()
                # nothing is due before the first look, so nearly all pieces cost no calculation of a deadline
                patience_s = timeout_s / LOOKS
                while not pump.is_ready:
                    await pump.wait(patience_s)
                    if not pump.is_ready:
                        self._look_at_counter(clock(), timeout_s / LOOKS)
                        patience_s = self._patience_s(request, timeout_s)
                if not pump.has_item:
                    break
                piece = pump.take()
                num_written += measure(piece)
                self._last_sign_at = clock()
                request.has_begun = True
                if is_last(piece) and not has_ended:
                    has_ended = True
                    self._note_answer(request, clock(), max(1, num_written))
                yield piece
            pump.check()
        except (asyncio.CancelledError, GeneratorExit):
            reason = CALLER_LEFT
            raise
        finally:
            self._waiting.discard(request)
            pump.stop(reason)
        if not has_ended:
            self._note_answer(request, clock(), max(1, num_written))

    def _send(self, now: float, num_tokens: int) -> _Request:
        request = _Request(now, num_tokens, now, self._num_sent)
        self._num_sent += 1
        self._waiting.add(request)
        return request

    def _patience_s(self, request: _Request, timeout_s: float) -> float:
        """Seconds until a request that waits is looked at again.

        Raises:
            DeadlineError: its deadline has passed.
        """
        ends_at, reason = self._deadline(request, timeout_s)
        left_s = ends_at - asyncio.get_running_loop().time()
        if left_s <= 0:
            raise DeadlineError(reason)
        # an answer to another request may bring the deadline nearer, so it is looked at now and then
        return min(left_s, timeout_s / LOOKS)

    def _deadline(self, request: _Request, timeout_s: float) -> tuple[float, str]:
        """When the request fails unless it is answered, and what to say then."""
        # The three rules of the module's docstring; the earliest of them decides and names the reason.
        silent_at = max(request.heard_at, self._last_sign_at) + timeout_s
        longest_s = (LOST_FACTOR if request.has_begun else LONGEST_WAIT) * timeout_s
        what = "more of the answer" if request.has_begun else "answer"
        ends = [
            (silent_at, f"no {what} within {timeout_s:g} s, to this request or to another one"),
            (request.heard_at + longest_s, f"no {what} within {longest_s:g} s"),
        ]
        later = self._answers.after(request.heard_at)
        if later.num_tokens:
            pace_s = later.seconds / later.num_tokens  # seconds a token
            lost_at = later.first_at + timeout_s + LOST_FACTOR * pace_s * request.num_tokens
            lost_s = lost_at - request.heard_at
            ends.append((lost_at, f"no {what} within {lost_s:.3g} s, though requests sent after it were answered"))
        return min(ends)

    def _note_answer(self, request: _Request, now: float, num_tokens: int) -> None:
        self._last_sign_at = now
        self._answers.note(request.number, request.sent_at, now, num_tokens)
        self._answers.forget(other.heard_at for other in self._waiting)

    def _look_at_counter(self, now: float, every_s: float) -> None:
        """Start a look at the engine's counter, unless the last one was a moment ago; nothing waits for it."""
        is_looking = self._look is not None and not self._look.done()
        if self._count_tokens is None or is_looking or now - self._looked_at < every_s:
            return
        self._looked_at = now
        self._look = start(self._read_counter(self._count_tokens))

    async def _read_counter(self, count_tokens: Callable[[], Awaitable[int | None]]) -> None:
        count = await count_tokens()
        if count is None:
            return
        if self._last_count is not None and count != self._last_count:
            self._last_sign_at = asyncio.get_running_loop().time()
        self._last_count = count


def pulse_of(engine: Any) -> Pulse:
    """The pulse that an engine keeps for all who ask it in this process, or a new one for an engine that keeps none."""
    pulse = getattr(engine, "pulse", None)
    return pulse if isinstance(pulse, Pulse) else Pulse()
