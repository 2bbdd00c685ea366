"""One client over all replicas of a model: each trajectory stays where its prefix is cached, no replica gets more than
its share, and a replica that dies is dropped at once while another one takes over its requests.

Takes the place of verl's `LLMServerClient`, whose balancer is an actor that every request waits for twice, and which
gives a replica that fails fastest the most requests. Where a trajectory goes is computed from its name: the replicas in
the order of a hash of both (rendezvous hashing), of which it takes the first one that is up and has room. A replica has
room for `1 + SLACK` times its share of what this process has under way, so no replica needs to know of the others.

Invariants: a request is answered by one replica, or raises; it never waits for a replica that is known to be down; a
replica that was down is asked again after `RETRY_S`.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

from relay_verl.engines.boundary import MAX_CAUSE_CHARS, describe
from relay_verl.errors import EngineError
from relay_verl.models.connection import Connection
from relay_verl.models.direct_server import node_id, open_door

logger = logging.getLogger(__name__)

SLACK = 0.25
"""How much more than its share a replica may have under way."""
CONNECT_S = 60.0
"""Seconds a replica may take to say where it answers."""
RETRY_S = 30.0
"""Seconds until a replica that was down is asked again."""
SILENT_S = 5.0
"""Seconds without any answer of a replica after which a caller that gives up says something about it ..."""
MAX_SILENT = 3
"""... and so many in a row that it hangs."""
MOST_ASKED = 100
"""Times its number of replicas that verl's balancer is asked for one."""


class ReplicaDownError(EngineError):
    """The replica did not answer, and will not: it died or hangs."""


class ReplicaClient:
    """Asks the replicas of one model, with the signature of verl's client. Can be sent to a Ray worker.

    Args:
        servers: the replicas' Ray actors by name.
        is_deterministic: a trajectory goes to the same replica in every run, and keeps its name in the engine, as verl
            has it for `full_determinism`.
    """

    def __init__(self, servers: Mapping[str, Any], *, is_deterministic: bool = False):
        self.servers = dict(servers)
        self._is_deterministic = is_deterministic
        self._replicas: list[Replica] = []
        self._loop: Any = None

    def __reduce__(self) -> Any:
        return _make_client, (self.servers, self._is_deterministic)

    @property
    def replicas(self) -> list[Replica]:
        """The replicas as the running event loop sees them: a connection belongs to one loop."""
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            self._loop, self._replicas = loop, [Replica(name, actor) for name, actor in self.servers.items()]
        return self._replicas

    async def generate(self, request_id: str, *, prompt_ids: list[int], sampling_params: dict[str, Any]) -> Any:
        """The tokens that follow a prompt; see verl's `LLMServerClient.generate`.

        Args:
            request_id: of the trajectory.
            prompt_ids: [prompt_length].
            sampling_params: vLLM's, by name.

        Returns:
            what has the fields of verl's `TokenOutput`.

        Raises:
            ValueError: the engine refuses the request.
            EngineError: it failed there, or no replica is up.
        """
        downs: list[ReplicaDownError] = []
        replicas = self.replicas
        for _ in replicas:
            replica = self._choose(request_id)
            if replica is None:
                break
            try:
                name = request_id if self._is_deterministic else uuid4().hex
                output = await replica.ask(name, prompt_ids, sampling_params)
                version = output.extra_fields.get("global_steps")
                output.extra_fields |= {"min_global_steps": version, "max_global_steps": version}
                return output
            except ReplicaDownError as error:
                downs.append(error)
        reason = downs[0] if downs else next((each.reason for each in replicas if each.reason), "there is none")
        raise EngineError(f"none of {len(replicas)} replica(s) is up: {reason}")

    def _choose(self, request_id: str) -> Replica | None:
        up = [replica for replica in self.replicas if replica.is_up]
        if not up:
            return None
        up.sort(key=lambda replica: rendezvous_hash(request_id, replica.name))
        if self._is_deterministic:
            return up[0]
        room = room_of(sum(replica.num_running for replica in up), len(up))
        return next(replica for replica in up if replica.num_running < room)


async def servers_of(client: Any) -> dict[str, Any]:
    """The Ray actors behind verl's own client, by name; its balancer names them all, but hands out one at a time.

    Raises:
        EngineError: the balancer does not answer in time, or does not hand out all of them.
    """
    try:
        async with asyncio.timeout(CONNECT_S):
            return await _take_each(client)
    except TimeoutError:
        raise EngineError(f"verl's balancer did not hand out its replicas within {CONNECT_S:g} s") from None


async def _take_each(client: Any) -> dict[str, Any]:
    balancer = client._load_balancer
    names = await balancer.get_all_servers.remote()
    servers: dict[str, Any] = {}
    taken = []
    for number in range(MOST_ASKED * len(names)):  # it hands out the least loaded, or one by a hash of the request
        name, actor = await balancer.acquire_server.remote(request_id=f"relay-{number}")
        taken.append(name)
        servers[name] = actor
        if len(servers) == len(names):
            break
    await asyncio.gather(*(balancer.release_server.remote(server_id=name) for name in taken))
    if not servers or len(servers) < len(names):
        raise EngineError(f"verl's balancer handed out {len(servers)} of its {len(names)} replicas")
    return servers


def _make_client(servers: Mapping[str, Any], is_deterministic: bool) -> ReplicaClient:
    return ReplicaClient(servers, is_deterministic=is_deterministic)


def room_of(num_running: int, num_replicas: int) -> int:
    """Requests that each of the replicas may have under way once one more joins the `num_running` of all of them."""
    return math.ceil((1 + SLACK) * (1 + num_running) / num_replicas)


def rendezvous_hash(request_id: str, name: str) -> bytes:
    """Orders the replicas of a trajectory: it goes to the one of the smallest hash that is up and has room."""
    return hashlib.blake2b(f"{request_id}\n{name}".encode(), digest_size=8).digest()


class Replica:
    """One replica as one event loop sees it.

    Args:
        name: tells it from the others.
        actor: verl's server in Ray.
    """

    def __init__(self, name: str, actor: Any):
        self.name = name
        self.num_running = 0
        """Requests under way."""
        self.reason = ""
        """Why it is down, or was."""
        self._actor = actor
        self._down_until = -math.inf
        self._num_silent = 0
        self._last_answer_at = -math.inf
        self._connection: asyncio.Task[Connection | None] | None = None

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
        with self._running():
            connection = await self._connect()
            if connection is None:
                return await self._ask_ray(request_id, prompt_ids, sampling)
            try:
                answer = await connection.ask(request_id, prompt_ids, sampling)
            except EOFError:
                raise self._drop("its process has ended") from None
        if answer.is_dead:
            raise self._drop(answer.error or "")
        if answer.is_refusal:
            raise ValueError(answer.error)
        if answer.error is not None:
            raise EngineError(answer.error)
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
            self._num_silent += clock() - max(asked_at, self._last_answer_at) >= SILENT_S
            if self._num_silent >= MAX_SILENT:
                self._drop(f"{MAX_SILENT} requests in a row had no answer in time")
            raise
        finally:
            self.num_running -= 1

    def _drop(self, reason: str) -> ReplicaDownError:
        self._down_until = asyncio.get_running_loop().time() + RETRY_S
        self._num_silent = 0
        self._connection = None
        self.reason = f"replica {self.name}: {' '.join(reason.split()):.{MAX_CAUSE_CHARS}}"
        logger.warning("relay_verl: warning: %s; it is asked again in %g s", self.reason, RETRY_S)
        return ReplicaDownError(self.reason)

    async def _connect(self) -> Connection | None:
        """The connection to it; None if it is on another node, where only Ray reaches it."""
        if self._connection is None:
            self._connection = asyncio.create_task(_open(self._actor))
        try:
            return await asyncio.wait_for(asyncio.shield(self._connection), CONNECT_S)
        except TimeoutError:
            raise self._drop(f"it did not say within {CONNECT_S:g} s where it answers") from None
        except Exception as error:  # Ray's, of an actor that is dead or cannot be reached
            raise self._drop(describe(error)) from None

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
                raise self._drop(describe(error)) from None
            raise


async def _open(actor: Any) -> Connection | None:
    its_node, path = await actor.__ray_call__.remote(open_door)
    return await Connection.open(path) if its_node == node_id() else None
