"""The two ways in which a model is there: a server that we start and keep running, or one at an address.

Both are watched until they are cancelled, and say in between whether the model answers.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from abc import ABC, abstractmethod
from dataclasses import replace
from pathlib import Path

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, wait_exponential

from relay_verl.errors import EngineError
from relay_verl.serving.guarded_process import GuardedProcess, last_cause
from relay_verl.serving.health_probe import HealthProbe, ServedModel
from relay_verl.serving.vllm_server import VllmServer

logger = logging.getLogger(__name__)

LOOK_EVERY_S = 1.0
"""Seconds between two looks at a server."""
NUM_MISSES = 3
"""Looks in a row that fail before a model counts as down."""
HUNG_S = 60.0
"""Seconds without a sign of life after which a running process is ended and started again."""
STABLE_S = 300.0
"""Seconds that a restarted server has to run before its earlier ends are forgotten."""
BACKOFF = wait_exponential(multiplier=1.0, max=60.0)
"""Seconds before a restart: 1, 2, 4, ... up to a minute."""


class EndedError(EngineError):
    """A server has ended, or hangs; it is started again."""


class ModelWatch(ABC):
    """One model and its server.

    Args:
        role: `student` or `teacher`.
        probe: looks at the server.
        token_id: what the first completion is asked to continue; any id of the model's.
    """

    def __init__(self, role: str, probe: HealthProbe, token_id: int):
        self.role = role
        self.probe = probe
        self.token_id = token_id
        self.is_up = False
        """Whether the model answers."""
        self.model: ServedModel | None = None
        """What the server said when it answered first."""
        self.has_settled = asyncio.Event()
        """Set once the pair can be served as far as this model is concerned."""

    @abstractmethod
    async def watch(self) -> None:
        """Keep `is_up` true to what is; runs until it is cancelled.

        Raises:
            EngineError: a process ended before it ever answered.
        """

    async def _answer_first(self) -> None:
        self.model = await self.probe.read_model(self.token_id)
        self.is_up = True

    async def _look_until_down(self) -> None:
        """Return once the server has failed a few looks in a row."""
        num_misses = 0
        while num_misses < NUM_MISSES:
            await asyncio.sleep(LOOK_EVERY_S)
            num_misses = 0 if await self.probe.is_alive() else num_misses + 1
        self.is_up = False


class EndpointWatch(ModelWatch):
    """A model at an address, whose server is its owner's to start.

    Args:
        role, probe, token_id: see `ModelWatch`.
        is_needed: whether nothing can be served before it answers; else it may come up later.
    """

    def __init__(self, role: str, probe: HealthProbe, token_id: int, *, is_needed: bool):
        super().__init__(role, probe, token_id)
        self._is_needed = is_needed

    async def watch(self) -> None:
        """See `ModelWatch.watch`."""
        was_down = False
        while True:
            try:
                await self._answer_first()
            except EngineError as error:
                if not was_down:
                    logger.warning("relay_verl: warning: the %s does not answer: %s", self.role, error)
                was_down = True
                if not self._is_needed:
                    self.has_settled.set()
                await asyncio.sleep(LOOK_EVERY_S)
                continue
            if was_down:
                logger.warning("relay_verl: the %s at %s answers", self.role, self.probe.base_url)
            self.has_settled.set()
            await self._look_until_down()


class ProcessWatch(ModelWatch):
    """A `vllm serve` of ours, started again when it ends or hangs.

    Args:
        server: what to start.
        log: file that its output is added to.
        token_id: see `ModelWatch`.
        start_timeout_s: seconds until the model answers; a start that takes longer has failed.
        after: another model that has to answer before this one starts, such as one on the same GPU.
    """

    def __init__(
        self,
        server: VllmServer,
        log: Path,
        token_id: int,
        start_timeout_s: float,
        after: ModelWatch | None = None,
    ):
        probe = HealthProbe(server.base_url, server.role, server.api_key_env)
        super().__init__(server.role, probe, token_id)
        self.log = log
        self._server = server
        self._start_timeout_s = start_timeout_s
        self._after = after

    async def watch(self) -> None:
        """See `ModelWatch.watch`."""
        if self._after is not None:
            await self._after.has_settled.wait()
        # A server that ran for long and ends is a new story: its first restart comes at once.
        while True:
            restarts = AsyncRetrying(
                wait=BACKOFF, retry=retry_if_exception_type(EndedError), before_sleep=self._tell_restart
            )
            async for attempt in restarts:
                with attempt:
                    await self._run_once()

    async def _run_once(self) -> None:
        """One process from start to end; returns if it ran for `STABLE_S`.

        Raises:
            EndedError: it ended earlier.
            EngineError: it never answered, and neither did one before it.
        """
        logger.info("the %s %s loads; its log is %s", self.role, self._server.model, self.log)
        start = self.log.stat().st_size if self.log.exists() else 0
        process = await GuardedProcess.start(self._server.command(), self._server.environment(os.environ), self.log)
        ended = asyncio.create_task(process.wait())
        try:
            began_at = time.monotonic()
            await self._wait_until_ready(ended, start)
            took_s = time.monotonic() - began_at
            logger.info("the %s answers after %.0f s at %s", self.role, took_s, self._server.base_url)
            self.has_settled.set()
            began_at = time.monotonic()
            reason = await self._wait_until_ended(ended, start)
            if time.monotonic() - began_at < STABLE_S:
                raise EndedError(reason)
            self._tell(reason)
        finally:
            self.is_up = False
            ended.cancel()
            await process.end()

    async def _wait_until_ready(self, ended: asyncio.Task[int], log_start: int) -> None:
        """Return once the model has answered.

        Raises:
            EndedError: it did not, but an earlier process did.
            EngineError: it did not.
        """
        ready = asyncio.create_task(self._become_ready())
        try:
            await asyncio.wait({ended, ready}, timeout=self._start_timeout_s, return_when=asyncio.FIRST_COMPLETED)
            if ready.done() and ready.exception() is None:
                # A restart keeps the context that the first start found room for: clients know its length.
                if self._server.max_model_len is None and self.model is not None:
                    self._server = replace(self._server, max_model_len=self.model.max_model_len)
                return
        finally:
            ready.cancel()
        if ended.done():
            reason = self._ended(ended, log_start)
        elif ready.done():
            error = ready.exception()
            if not (isinstance(error, EngineError) and self.has_settled.is_set()):
                ready.result()
            reason = f"does not answer: {error}; its log is {self.log}"
        else:
            reason = f"did not answer within {self._start_timeout_s:g} s; its log is {self.log}"
        if self.has_settled.is_set():
            raise EndedError(reason)
        raise EngineError(f"the {self.role} {self._server.model} {reason}")

    async def _become_ready(self) -> None:
        while not await self.probe.is_alive():
            await asyncio.sleep(LOOK_EVERY_S / 4)
        await self._answer_first()

    async def _wait_until_ended(self, ended: asyncio.Task[int], log_start: int) -> str:
        """Why the process is over: it ended, or it hangs."""
        last_sign_at = time.monotonic()
        while True:
            look = asyncio.create_task(self._look_until_down() if self.is_up else self._look_until_up())
            try:
                left_s = None if self.is_up else last_sign_at + HUNG_S - time.monotonic()
                await asyncio.wait({ended, look}, timeout=left_s, return_when=asyncio.FIRST_COMPLETED)
            finally:
                look.cancel()
            if ended.done():
                return self._ended(ended, log_start)
            if not look.done():
                return f"gave no sign of life for {HUNG_S:g} s"
            last_sign_at = time.monotonic()

    async def _look_until_up(self) -> None:
        while not await self.probe.is_alive():
            await asyncio.sleep(LOOK_EVERY_S)
        self.is_up = True

    def _ended(self, ended: asyncio.Task[int], log_start: int) -> str:
        return f"ended with code {ended.result()}: {last_cause(self.log, log_start)}; its log is {self.log}"

    def _tell(self, reason: object) -> None:
        logger.warning("relay_verl: warning: the %s %s; it is started again", self.role, reason)

    def _tell_restart(self, state: RetryCallState) -> None:
        self._tell(state.outcome.exception() if state.outcome else "ended")
