"""Both models of a pair while they are served: started side by side, watched, and ended together.

    async with Supervisor(student, teacher) as supervisor:
        await supervisor.wait_until_settled()
        supervisor.state()

Invariant: when the block is left, no process that it started runs.
"""

from __future__ import annotations

import asyncio
from types import TracebackType

from relay_verl.serving.model_watch import ModelWatch
from relay_verl.serving.settings import ServerState


class Supervisor:
    """Watches both models.

    Args:
        student: writes; without it nothing is served.
        teacher: answers calls; None serves the student alone.
    """

    def __init__(self, student: ModelWatch, teacher: ModelWatch | None):
        self.student = student
        self.teacher = teacher
        self._watches = [student] if teacher is None else [student, teacher]
        self._tasks: list[asyncio.Task[None]] = []
        self._is_stopping = False
        self._has_started = False

    async def __aenter__(self) -> Supervisor:
        self._tasks = [asyncio.create_task(watch.watch(), name=watch.role) for watch in self._watches]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop_serving()
        for task in self._tasks:
            task.cancel()  # a watch ends its process on the way out
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for watch in self._watches:
            await watch.probe.aclose()

    async def wait_until_settled(self) -> None:
        """Return once the pair can be served: its student answers, and so does a teacher that is started here.

        Raises:
            EngineError: a process of ours never answered.
        """
        settled = asyncio.create_task(self._settle())
        try:
            await asyncio.wait({settled, *self._tasks}, return_when=asyncio.FIRST_COMPLETED)
            for task in self._tasks:
                if task.done():  # a watch never ends by itself
                    task.result()
        finally:
            settled.cancel()
        self._has_started = True

    async def _settle(self) -> None:
        for watch in self._watches:
            await watch.has_settled.wait()

    async def wait_until_failed(self) -> None:
        """Raise what a watch fails with, which none does once the pair is served, unless it is a bug."""
        # not gather(), which would end the watches along with whoever waits here
        done, _ = await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()

    def stop_serving(self) -> None:
        """From now on the state is `stopping`; requests that run can end."""
        self._is_stopping = True

    def state(self) -> ServerState:
        """How the pair is."""
        if self._is_stopping:
            return ServerState.STOPPING
        if not self._has_started:
            return ServerState.STARTING
        if not self.student.is_up:
            return ServerState.STUDENT_DOWN
        if self.teacher is not None and not self.teacher.is_up:
            return ServerState.TEACHER_DOWN
        return ServerState.READY
