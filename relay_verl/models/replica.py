"""One replica of a model as one event loop sees it: how it is reached, whether it is up, and what it has done so far.

A replica is down for `RETRY_S` after it died, after `MAX_SILENT` callers in a row gave up on it without a sign of life,
and where too large a share of its requests failed in its engine.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from relay_verl.engines.boundary import MAX_CAUSE_CHARS, describe
from relay_verl.engines.failure_share import FailureShare
from relay_verl.errors import EngineError
from relay_verl.models.connection import Connection
from relay_verl.models.direct_server import node_id, open_door

logger = logging.getLogger(__name__)

CONNECT_S = 60.0
"""Seconds a replica may take to say where it answers."""
RETRY_S = 30.0
"""Seconds until a replica that was down is asked again."""
SILENT_S = 5.0
"""Seconds without any answer of a replica after which a caller that gives up says something about it ..."""
MAX_SILENT = 3
"""... and so many in a row that it hangs."""


class ReplicaDownError(EngineError):
    """The replica did not answer, and will not: it died or hangs."""


@dataclass(frozen=True)
class ReplicaCounts:
    """What became of the requests that one process sent to a replica."""

    num_failed: int = 0
    """Requests that it failed: an error of its engine, no sign of life in time, or it died."""
    num_drops: int = 0
    """Times that it was found to be down."""

    def __add__(self, other: ReplicaCounts) -> ReplicaCounts:
        return ReplicaCounts(self.num_failed + other.num_failed, self.num_drops + other.num_drops)


@dataclass(frozen=True)
class _Way:
    """How a replica is reached."""

    connection: Connection | None
    """To its socket; None if it is on another node, where only Ray reaches it."""
    cache_block: int | None
    """Tokens of a block of its prefix cache, if it says so."""


class Replica:
    """One replica as one event loop sees it.

    Args:
        name: tells it from the others.
        actor: verl's server in Ray.
        max_failed_share: largest share of its requests that its engine may fail.
        ray_name: the server's name in Ray, which a server has that is started in its place; None if none will be.
    """

    def __init__(self, name: str, actor: Any, max_failed_share: float = 1.0, ray_name: str | None = None):
        self.name = name
        self.num_running = 0
        """Requests under way."""
        self.reason = ""
        """Why it is down, or was."""
        self.counts = ReplicaCounts()
        """What became of its requests."""
        self._actor = actor
        self._ray_name = ray_name
        self._max_failed_share = max_failed_share
        self._share = self._new_share()  # since the last decision
        self._too_many: FailureShare | None = None
        self._down_until = -math.inf
        self._num_silent = 0
        self._last_answer_at = -math.inf
        self._way: asyncio.Task[_Way] | None = None

    def _new_share(self) -> FailureShare:
        return FailureShare(self._max_failed_share, "requests")

    @property
    def is_up(self) -> bool:
        """Whether it may be asked."""
        return asyncio.get_running_loop().time() >= self._down_until

    async def ask(self, request_id: str, prompt_ids: list[int], sampling: Mapping[str, Any]) -> Any:
        """One request, without another try.

        Raises:
            ReplicaDownError: this replica does not answer; it counts as down.
            EngineError: the engine failed.
            ValueError: it refuses the request.
        """
        try:
            answer = await self._ask(request_id, prompt_ids, sampling)
        except ReplicaDownError:
            raise
        except ValueError:  # a refusal is an answer
            self._note(is_failed=False)
            raise
        except Exception as error:
            self._note(is_failed=True, cause=describe(error))
            raise
        self._note(is_failed=False)
        return answer

    def _note(self, *, is_failed: bool, cause: str = "") -> None:
        """Count what the engine did with a request; each `MIN_COUNT` of them decide together, and none counts twice."""
        if is_failed:
            self.counts = replace(self.counts, num_failed=self.counts.num_failed + 1)
        self._share.add(not is_failed, is_failed, cause)
        if self._share.is_decided:
            decided, self._share = self._share, self._new_share()
            self._too_many = decided if decided.is_over else None

    @property
    def is_failing(self) -> bool:
        """Whether too many of its latest requests failed."""
        return self._too_many is not None

    def drop_failing(self) -> None:
        """Count it as down because `is_failing`; what it is writing may end."""
        assert self._too_many is not None
        self._drop(str(self._too_many))

    async def _ask(self, request_id: str, prompt_ids: list[int], sampling: Mapping[str, Any]) -> Any:
        with self._running():
            way = await self._connect()
            if way.connection is None:
                answer = await self._ask_ray(request_id, prompt_ids, sampling)
            else:
                try:
                    answer = await way.connection.ask(request_id, prompt_ids, sampling)
                except EOFError:
                    raise self._fail("its process has ended") from None
                if answer.is_dead:
                    raise self._fail(answer.error or "")
                if answer.is_refusal:
                    raise ValueError(answer.error)
                if answer.error is not None:
                    raise EngineError(answer.error)
        answer.extra_fields["cache_block"] = way.cache_block
        return answer

    @contextmanager
    def _running(self) -> Iterator[None]:
        """Count a request, and what it says of the replica if the caller gives up."""
        clock = asyncio.get_running_loop().time
        self.num_running += 1
        asked_at = clock()
        try:
            yield
            self._num_silent, self._last_answer_at = 0, clock()
        except asyncio.CancelledError:
            if clock() - max(asked_at, self._last_answer_at) >= SILENT_S:
                self._num_silent += 1
                self.counts = replace(self.counts, num_failed=self.counts.num_failed + 1)
            if self._num_silent >= MAX_SILENT:
                self._leave(f"{MAX_SILENT} requests in a row had no answer in time")
            raise
        except ReplicaDownError:
            raise
        except Exception:  # an error of its engine is a sign of life, too
            self._num_silent, self._last_answer_at = 0, clock()
            raise
        finally:
            self.num_running -= 1

    def _fail(self, reason: str) -> ReplicaDownError:
        """Drop it because of a request, which failed with it."""
        self.counts = replace(self.counts, num_failed=self.counts.num_failed + 1)
        self._leave(reason)
        return ReplicaDownError(self.reason)

    def _leave(self, reason: str) -> None:
        """Drop it, and let all that it was asked be asked elsewhere."""
        self._drop(reason)
        way, self._way = self._way, None
        if way is None or not way.done() or way.cancelled() or way.exception() is not None:
            return
        if (connection := way.result().connection) is not None:
            connection.close()

    def _drop(self, reason: str) -> None:
        was_up = self.is_up
        self._down_until = asyncio.get_running_loop().time() + RETRY_S
        self._num_silent = 0
        self._share, self._too_many = self._new_share(), None
        if not was_up:  # of the requests that it had, the first one has said so
            return
        self.counts = replace(self.counts, num_drops=self.counts.num_drops + 1)
        self.reason = f"replica {self.name}: {' '.join(reason.split()):.{MAX_CAUSE_CHARS}}"
        logger.warning("relay_verl: warning: %s; it is asked again in %g s", self.reason, RETRY_S)

    async def _connect(self) -> _Way:
        if self._way is None:
            self._way = asyncio.create_task(self._open())
        try:
            return await asyncio.wait_for(asyncio.shield(self._way), CONNECT_S)
        except TimeoutError:
            raise self._fail(f"it did not say within {CONNECT_S:g} s where it answers") from None
        except Exception as error:  # Ray's, of an actor that is dead or cannot be reached
            raise self._fail(describe(error)) from None

    async def _open(self) -> _Way:
        if self._ray_name is not None and self.counts.num_drops:  # another one may have its place
            self._actor = await asyncio.to_thread(find_actor, self._ray_name)
        door = await self._actor.__ray_call__.remote(open_door)
        is_here = door.node_id == node_id()
        return _Way(await Connection.open(door.path) if is_here else None, door.cache_block)

    async def _ask_ray(self, request_id: str, prompt_ids: list[int], sampling: Mapping[str, Any]) -> Any:
        import ray

        call = self._actor.generate.remote(request_id=request_id, prompt_ids=prompt_ids, sampling_params=dict(sampling))
        try:
            return await call
        except asyncio.CancelledError:
            ray.cancel(call)  # the engine writes no more for a caller that is gone
            raise
        except Exception as error:
            # Ray's error for what the server raised is named after it
            if isinstance(error, ray.exceptions.RayActorError) or "EngineDeadError" in type(error).__name__:
                raise self._fail(describe(error)) from None
            raise


def find_actor(ray_name: str) -> Any:
    """The actor that has this name now.

    Raises:
        ValueError: there is none.
    """
    import ray

    return ray.get_actor(ray_name)
